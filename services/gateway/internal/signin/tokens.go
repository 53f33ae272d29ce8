package signin

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/time/rate"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/services/gateway/internal/caller"
)

const (
	// maxTokenLife refuses tokens that live as long as keys do: those cannot be revoked here.
	maxTokenLife = 24 * time.Hour
	// maxTokenSize bounds, in bytes, a token that is read at all.
	maxTokenSize = 16 << 10
	// keysEvery is how often an issuer is asked for its keys while a set of them is young: forged tokens make us look
	// for the key that they name. What they used up is no more when the set is old and read anew.
	keysEvery = 5 * time.Second
	// keysAge is how old an issuer's keys become: one that it publishes no more is not believed for longer.
	keysAge = 10 * time.Minute
	// keysBurst is how often it may be asked in a row.
	keysBurst = 10
)

// Tokens checks the tokens that scripts send. It is safe for concurrent use.
type Tokens struct {
	now     func() time.Time
	issuers []*issuer
}

// issuer is one issuer with the rules of one workspace.
type issuer struct {
	settings TokenSettings
	provider *Provider

	mu    sync.Mutex
	keys  *oidc.RemoteKeySet
	from  string // the address of keys
	since time.Time
}

// NewTokens makes it of the settings.
func NewTokens(s Settings, now func() time.Time) *Tokens {
	t := &Tokens{now: now}
	for _, of := range s.Tokens {
		p := newProvider(ProviderSettings{ID: of.ID, Name: of.Name, Issuer: of.Issuer, ClientID: of.Audience}, "", now)
		t.issuers = append(t.issuers, &issuer{settings: of, provider: p})
	}
	return t
}

// errSpared is a question that an issuer was not asked, because it was asked so often before.
var errSpared = errors.New("signin: the issuer was asked for its keys a moment ago")

// sparing bounds how often strangers can make us ask an issuer.
type sparing struct {
	http.RoundTripper
	limit *rate.Limiter
}

// RoundTrip implements http.RoundTripper.
func (s *sparing) RoundTrip(r *http.Request) (*http.Response, error) {
	if !s.limit.Allow() {
		return nil, errSpared
	}
	return s.RoundTripper.RoundTrip(r) //nolint:wrapcheck // part of http.Client
}

// Check implements caller.Tokens: who sent a token, and what it may do. UNAUTHENTICATED when it is not to be
// believed, PERMISSION_DENIED when no rule is
// about it, IDENTITY_PROVIDER_UNAVAILABLE when the issuer's keys cannot be read. Nothing of the token is in an error.
func (t *Tokens) Check(ctx context.Context, raw string) (caller.Caller, error) {
	refused := func(what string, cause error) error {
		return apierr.Newf(apierr.ReasonUnauthenticated, "The token in the Authorization header is not valid: %s.", what).With(apierr.WithCause(cause))
	}
	if len(raw) > maxTokenSize {
		return caller.Caller{}, refused("it is too large", nil)
	}
	said, err := unverified(raw)
	if err != nil {
		return caller.Caller{}, refused("it cannot be read", err)
	}
	last := refused("nobody here knows its issuer", nil)
	for _, i := range t.issuers {
		if i.settings.Issuer != said.Issuer {
			continue
		}
		claims, id, err := i.verify(ctx, raw)
		var no refusedToken
		switch {
		case err == nil:
			if g, ok := i.grant(claims, id); ok {
				return g, nil
			}
			last = apierr.Newf(apierr.ReasonPermissionDenied, "The token of %s is good, and no rule is about what it says of itself. An operator adds one to the tokens of the identity providers' file.", i.settings.Name)
		case errors.As(err, &no):
			if !apierr.Has(last, apierr.ReasonPermissionDenied) {
				last = refused(no.why, no.cause)
			}
		default:
			return caller.Caller{}, err
		}
	}
	return caller.Caller{}, last
}

// refusedToken is a token that is not to be believed, and why, in words for who sent it.
type refusedToken struct {
	why   string
	cause error
}

// Error implements error.
func (r refusedToken) Error() string { return r.why }

type saidClaims struct {
	Issuer string `json:"iss"`
}

// unverified reads whose keys count.
func unverified(raw string) (c saidClaims, err error) {
	parts := strings.Split(raw, ".")
	payload, err := base64.RawURLEncoding.DecodeString(parts[min(1, len(parts)-1)])
	if err == nil {
		err = json.Unmarshal(payload, &c)
	}
	if err != nil {
		return c, fmt.Errorf("signin: read a token: %w", err)
	}
	return c, nil
}

// capture keeps what a set of keys said: the library tells it as a text only.
type capture struct {
	oidc.KeySet
	err error
}

// VerifySignature implements oidc.KeySet.
func (c *capture) VerifySignature(ctx context.Context, token string) ([]byte, error) {
	payload, err := c.KeySet.VerifySignature(ctx, token)
	c.err = err
	return payload, err //nolint:wrapcheck // for the library
}

// verify checks signature, issuer, audience and times.
func (i *issuer) verify(ctx context.Context, raw string) (map[string]json.RawMessage, *oidc.IDToken, error) {
	_, f, err := i.provider.discover(ctx)
	if err != nil {
		return nil, nil, err
	}
	keys := &capture{KeySet: i.keySet(ctx, f.Keys)}
	id, err := oidc.NewVerifier(i.settings.Issuer, keys, &oidc.Config{
		ClientID: i.settings.Audience, SupportedSigningAlgs: allowedOf(f), Now: i.provider.now,
	}).Verify(ctx, raw)
	var expired *oidc.TokenExpiredError
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return nil, nil, ctx.Err() //nolint:wrapcheck // the caller's own
	case keys.err != nil && strings.Contains(keys.err.Error(), "fetching keys") && !errors.Is(keys.err, errSpared):
		return nil, nil, i.provider.unavailable(keys.err)
	case keys.err != nil:
		return nil, nil, refusedToken{"its signature is not by a key that its issuer publishes", err}
	case errors.As(err, &expired):
		return nil, nil, refusedToken{"it has expired", err}
	default:
		return nil, nil, refusedToken{"it is not meant for Devpilot, or not signed as it must be", err}
	}
	var claims map[string]json.RawMessage
	if err := id.Claims(&claims); err != nil {
		return nil, nil, refusedToken{"its claims cannot be read", err}
	}
	now := i.provider.now()
	switch _, event := claims["events"]; {
	case id.Issuer != i.settings.Issuer: // the library forgives one issuer
		return nil, nil, refusedToken{"it is of another issuer", nil}
	case id.Subject == "" || len(id.Subject) > 255:
		return nil, nil, refusedToken{"it does not say whose it is", nil}
	case id.IssuedAt.After(now.Add(skew)):
		return nil, nil, refusedToken{"it was issued in the future", nil}
	case id.IssuedAt.Unix() <= 0 || id.Expiry.Sub(id.IssuedAt) > maxTokenLife:
		return nil, nil, refusedToken{"it lives for more than a day, or does not say since when", nil}
	case event:
		return nil, nil, refusedToken{"it tells of an event and is nobody's credential", nil}
	}
	return claims, id, nil
}

// keySet is the issuer's, read when a token names a key that is not there, and anew when it is old.
func (i *issuer) keySet(ctx context.Context, from string) *oidc.RemoteKeySet {
	i.mu.Lock()
	defer i.mu.Unlock()
	if now := i.provider.now(); i.keys == nil || i.from != from || now.Sub(i.since) >= keysAge {
		client := *i.provider.client
		client.Transport = &sparing{RoundTripper: client.Transport, limit: rate.NewLimiter(rate.Every(keysEvery), keysBurst)}
		i.keys, i.from, i.since = oidc.NewRemoteKeySet(oidc.ClientContext(ctx, &client), from), from, now
	}
	return i.keys
}

// grant is what the first rule that matches gives.
func (i *issuer) grant(claims map[string]json.RawMessage, id *oidc.IDToken) (caller.Caller, bool) {
	at := slices.IndexFunc(i.settings.Rules, func(r TokenRule) bool { return r.matches(claims) })
	if at < 0 {
		return caller.Caller{}, false
	}
	rule := i.settings.Rules[at]
	label := i.settings.Name
	if said := textsIn(claims[i.settings.LabelClaim]); len(said) > 0 {
		label += ": " + line(said[0])
	}
	return caller.Caller{
		Kind: identity.SubjectOIDCToken, Subject: "oidc:" + i.settings.ID + ":" + line(id.Subject), Label: label, Workspace: i.settings.Workspace,
		Role: rule.scope.Role(), Scope: rule.scope, Apps: identity.LimitedTo(rule.Apps...), Expire: id.Expiry,
	}, true
}
