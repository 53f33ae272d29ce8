package signin

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/services/gateway/internal/tenant"
)

const (
	providerTimeout = 10 * time.Second // of one call
	maxAnswer       = 1 << 20          // bytes of one answer
	discoverEvery   = time.Hour        // how old a provider's description becomes
	failurePause    = 5 * time.Second  // between two tries to read a description
	// skew is how much a provider's clock may differ from ours.
	skew = time.Minute
	// Bounds of what is kept of claims.
	maxClaim  = 200  // characters of a claim that is kept
	maxGroups = 1000 // groups of a person that count
)

// algorithms are those that we take: a signature by a key of the provider. "none", and those with a shared
// secret, are not among them, whatever a provider says that it can do.
var algorithms = []string{
	oidc.RS256, oidc.RS384, oidc.RS512, oidc.ES256, oidc.ES384, oidc.ES512, oidc.PS256, oidc.PS384, oidc.PS512, oidc.EdDSA,
}

// Provider is one provider. It is safe for concurrent use.
type Provider struct {
	settings ProviderSettings
	redirect string
	client   *http.Client
	now      func() time.Time

	mu     sync.Mutex
	known  *oidc.Provider
	facts  facts
	readAt time.Time
	// failed and failedAt are the last failure: who comes right after it is told so, and waits for nobody.
	failed   error
	failedAt time.Time
}

// facts are what go-oidc does not keep of a provider's description.
type facts struct {
	EndSession string   `json:"end_session_endpoint"`
	Keys       string   `json:"jwks_uri"`
	Algorithms []string `json:"id_token_signing_alg_values_supported"`
	// IssParameter says that answers name the issuer (RFC 9207).
	IssParameter bool `json:"authorization_response_iss_parameter_supported"`
}

func newProvider(s ProviderSettings, publicURL string, now func() time.Time) *Provider {
	return &Provider{
		settings: s, redirect: strings.TrimSuffix(publicURL, "/") + callbackPath(s.ID), now: now,
		client: &http.Client{Timeout: providerTimeout, Transport: bounded{http.DefaultTransport}},
	}
}

// bounded ends answers that are out of all proportion.
type bounded struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err //nolint:wrapcheck // part of http.Client
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxAnswer), resp.Body}
	return resp, nil
}

// unavailable is a provider that does not answer as it should: our trouble, not the visitor's.
func (p *Provider) unavailable(err error) error {
	return apierr.Newf(apierr.ReasonProviderUnavailable, "%s does not answer as it should, so nobody can sign in there now. Try again in a moment.", p.settings.Name).
		With(apierr.WithCause(err))
}

// discover reads the provider's description, again after a while. One that was read before serves while
// the provider is away.
func (p *Provider) discover(ctx context.Context) (*oidc.Provider, facts, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known != nil && p.now().Sub(p.readAt) < discoverEvery {
		return p.known, p.facts, nil
	}
	if p.failed != nil && p.now().Sub(p.failedAt) < failurePause {
		if p.known == nil {
			return nil, facts{}, p.unavailable(p.failed)
		}
		return p.known, p.facts, nil
	}
	// The keys are read by this context later: it has the client, and no end.
	known, err := oidc.NewProvider(oidc.ClientContext(context.WithoutCancel(ctx), p.client), p.settings.Issuer)
	var f facts
	if err == nil {
		err = known.Claims(&f)
	}
	if err == nil {
		p.known, p.facts, p.readAt, p.failed = known, f, p.now(), nil
		return known, f, nil
	}
	p.failed, p.failedAt = err, p.now()
	if p.known == nil {
		return nil, facts{}, p.unavailable(err)
	}
	return p.known, p.facts, nil
}

func (p *Provider) oauth(known *oidc.Provider) *oauth2.Config {
	return &oauth2.Config{
		ClientID: p.settings.ClientID, ClientSecret: p.settings.secret.Reveal(), Endpoint: known.Endpoint(), RedirectURL: p.redirect,
		Scopes: append([]string{oidc.ScopeOpenID}, p.settings.Scopes...),
	}
}

func (p *Provider) context(ctx context.Context) context.Context {
	return oidc.ClientContext(ctx, p.client)
}

// verifier checks tokens by the provider's keys of today. Its clock is late by what clocks may differ.
func (p *Provider) verifier(ctx context.Context, known *oidc.Provider, f facts) *oidc.IDTokenVerifier {
	return known.VerifierContext(p.context(ctx), &oidc.Config{
		ClientID: p.settings.ClientID, SupportedSigningAlgs: allowedOf(f),
		Now: func() time.Time { return p.now().Add(-skew) },
	})
}

// allowedOf are the algorithms that we take and the provider says that it uses.
func allowedOf(f facts) []string {
	allowed := slices.DeleteFunc(slices.Clone(algorithms), func(a string) bool { return len(f.Algorithms) > 0 && !slices.Contains(f.Algorithms, a) })
	if len(allowed) == 0 {
		return []string{oidc.RS256}
	}
	return allowed
}

// authorizeURL is where the browser goes.
func (p *Provider) authorizeURL(ctx context.Context, state, nonce, verifier string) (string, error) {
	known, _, err := p.discover(ctx)
	if err != nil {
		return "", err
	}
	options := []oauth2.AuthCodeOption{oidc.Nonce(nonce), oauth2.S256ChallengeOption(verifier)}
	if slices.Contains(p.settings.Scopes, oidc.ScopeOfflineAccess) {
		options = append(options, oauth2.AccessTypeOffline) // Google's word for the same
	}
	return p.oauth(known).AuthCodeURL(state, options...), nil
}

// claims are what a provider says of somebody.
type claims struct {
	Subject           string  `json:"sub"`
	Name              string  `json:"name"`
	PreferredUsername string  `json:"preferred_username"`
	Email             string  `json:"email"`
	EmailVerified     boolish `json:"email_verified"`
	SessionID         string  `json:"sid"`
	AuthorizedParty   string  `json:"azp"`

	groups []string
}

// boolish is a boolean that some providers write as a string.
type boolish bool

// UnmarshalJSON implements json.Unmarshaler.
func (b *boolish) UnmarshalJSON(raw []byte) error {
	*b = string(raw) == "true" || string(raw) == `"true"`
	return nil
}

// answer is what a provider gave.
type answer struct {
	claims  claims
	refresh seal.Secret
	idToken seal.Secret // only where the provider wants to see it at sign-out
}

// refused is an answer that is not to be believed, or a no. The text is for the log.
type refused struct{ error }

// exchange turns the code into who the person is.
func (p *Provider) exchange(ctx context.Context, code, nonce, verifier string) (answer, error) {
	known, f, err := p.discover(ctx)
	if err != nil {
		return answer{}, err
	}
	token, err := p.oauth(known).Exchange(p.context(ctx), code, oauth2.VerifierOption(verifier))
	if err != nil {
		return answer{}, p.sorted(err)
	}
	return p.read(ctx, known, f, token, &nonce)
}

// renew asks again who the person is, by the refresh token.
func (p *Provider) renew(ctx context.Context, refresh seal.Secret) (answer, error) {
	known, f, err := p.discover(ctx)
	if err != nil {
		return answer{}, err
	}
	token, err := p.oauth(known).TokenSource(p.context(ctx), &oauth2.Token{RefreshToken: refresh.Reveal()}).Token()
	if err != nil {
		var no *oauth2.RetrieveError
		if errors.As(err, &no) && no.ErrorCode == "invalid_request" && no.Response.StatusCode == http.StatusBadRequest {
			// Of the request nothing but the token differs from those that were answered: dex says this of one that it
			// does not know. RFC 6749 has invalid_grant for it.
			return answer{}, refused{refusal(no)}
		}
		return answer{}, p.sorted(err)
	}
	return p.read(ctx, known, f, token, nil)
}

// sorted tells a no of the token endpoint from trouble. The library's error has the provider's answer in it,
// which may hold what is nobody's business: only the code is kept.
func (p *Provider) sorted(err error) error {
	var no *oauth2.RetrieveError
	if !errors.As(err, &no) {
		return p.unavailable(err)
	}
	if no.ErrorCode == "invalid_grant" {
		return refused{refusal(no)}
	}
	return p.unavailable(refusal(no)) // of our credentials, or of its own
}

func refusal(no *oauth2.RetrieveError) error {
	return fmt.Errorf("the token endpoint answered %d %s", no.Response.StatusCode, no.ErrorCode)
}

// read verifies what came with the token. nonce is nil for a renewal, whose ID token may have none.
func (p *Provider) read(ctx context.Context, known *oidc.Provider, f facts, token *oauth2.Token, nonce *string) (answer, error) {
	a := answer{refresh: seal.NewSecret(token.RefreshToken)}
	var all map[string]json.RawMessage
	raw, _ := token.Extra("id_token").(string)
	switch {
	case raw != "":
		id, err := p.verifier(ctx, known, f).Verify(ctx, raw)
		if err != nil {
			return answer{}, refused{fmt.Errorf("the ID token: %w", err)}
		}
		if err := errors.Join(id.Claims(&a.claims), id.Claims(&all)); err != nil {
			return answer{}, refused{fmt.Errorf("the claims: %w", err)}
		}
		if err := p.hold(id, a.claims, nonce); err != nil {
			return answer{}, refused{err}
		}
		if f.EndSession != "" {
			a.idToken = seal.NewSecret(raw)
		}
	case nonce != nil:
		return answer{}, refused{errors.New("the answer has no ID token")}
	}
	if err := p.more(ctx, known, token, &a.claims, &all); err != nil {
		return answer{}, err
	}
	a.claims.groups = groupsIn(all[p.settings.GroupsClaim])
	if a.claims.Subject == "" || len(a.claims.Subject) > 255 { // OpenID Connect Core 1.0 section 2
		return answer{}, refused{errors.New("the answer says nobody's sub")}
	}
	return a, nil
}

// hold checks what the library leaves to its callers.
func (p *Provider) hold(id *oidc.IDToken, c claims, nonce *string) error {
	switch {
	case id.Issuer != p.settings.Issuer:
		return fmt.Errorf("the ID token is of %q", id.Issuer)
	case len(id.Audience) != 1 && c.AuthorizedParty != p.settings.ClientID, c.AuthorizedParty != "" && c.AuthorizedParty != p.settings.ClientID:
		return errors.New("the ID token is for somebody else too")
	case id.IssuedAt.After(p.now().Add(skew)):
		return errors.New("the ID token was issued in the future")
	case nonce != nil && (*nonce == "" || id.Nonce != *nonce):
		return errors.New("the ID token has another nonce")
	}
	return nil
}

// more asks the userinfo endpoint for what the ID token does not say: some providers keep it small.
func (p *Provider) more(ctx context.Context, known *oidc.Provider, token *oauth2.Token, c *claims, all *map[string]json.RawMessage) error {
	_, grouped := (*all)[p.settings.GroupsClaim]
	if known.UserInfoEndpoint() == "" || c.Subject != "" && c.Email != "" && (grouped || !p.wantsGroups()) {
		return nil
	}
	info, err := known.UserInfo(p.context(ctx), oauth2.StaticTokenSource(token))
	if err != nil {
		return p.unavailable(err)
	}
	var said claims
	var extra map[string]json.RawMessage
	if err := errors.Join(info.Claims(&said), info.Claims(&extra)); err != nil {
		return refused{fmt.Errorf("userinfo: %w", err)}
	}
	if said.Subject == "" || c.Subject != "" && said.Subject != c.Subject { // section 5.3.2
		return refused{errors.New("userinfo speaks of somebody else")}
	}
	c.Subject, c.Name, c.PreferredUsername = said.Subject, cmp.Or(c.Name, said.Name), cmp.Or(c.PreferredUsername, said.PreferredUsername)
	if c.Email == "" {
		c.Email, c.EmailVerified = said.Email, said.EmailVerified
	}
	if !grouped {
		if *all == nil {
			*all = map[string]json.RawMessage{}
		}
		(*all)[p.settings.GroupsClaim] = extra[p.settings.GroupsClaim]
	}
	return nil
}

func (p *Provider) wantsGroups() bool {
	return slices.ContainsFunc(p.settings.Rules, func(r Rule) bool { return r.Group != "" })
}

// groupsIn reads a list of names, or one name.
func groupsIn(raw json.RawMessage) []string {
	var many []string
	if json.Unmarshal(raw, &many) == nil {
		return many[:min(len(many), maxGroups)]
	}
	var one string
	if json.Unmarshal(raw, &one) == nil && one != "" {
		return []string{one}
	}
	return nil
}

// person is who the claims are of, with the roles that the rules give.
func (p *Provider) person(c claims) tenant.Person {
	label := cmp.Or(line(c.Name), line(c.PreferredUsername), line(c.Email), line(c.Subject))
	return tenant.Person{
		Issuer: p.settings.Issuer, ProviderSubject: c.Subject, Provider: p.settings.ID, Label: label,
		Email: line(c.Email), EmailVerified: bool(c.EmailVerified), Grants: p.settings.grants(c), Operator: p.settings.operates(c),
	}
}

// line is a claim as it may be shown: one line, not too long.
func line(s string) string {
	s = strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "")))
	runes := []rune(s)
	return string(runes[:min(len(runes), maxClaim)])
}
