package bitbucket

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/oauth2"

	"devpilot.io/bitbucket/pkg/seal"
)

// tokenTimeout bounds one request to the token endpoint (DESIGN.md#a-token-that-never-races: 15 s at most).
const tokenTimeout = 15 * time.Second

// OAuth is one consumer at one site. It is safe for concurrent use. It never retries: codes and
// rotated refresh tokens can be spent only once, and a failed refresh may lock out the other
// connections of the consumer (BITBUCKET.md#lock-out).
type OAuth struct {
	site    Site
	config  oauth2.Config
	http    *http.Client
	now     func() time.Time
	metrics *metrics
}

// OAuthOption changes how an OAuth is made.
type OAuthOption func(*OAuth)

// WithHTTPClient sets the client whose Transport is used.
func WithHTTPClient(h *http.Client) OAuthOption {
	return func(o *OAuth) { o.http.Transport = plainClient(h).Transport }
}

// WithNow sets the clock that expiry times are counted from.
func WithNow(now func() time.Time) OAuthOption { return func(o *OAuth) { o.now = now } }

// WithRegisterer adds metrics; it may be the one of a [Client].
func WithRegisterer(reg prometheus.Registerer) OAuthOption {
	return func(o *OAuth) { o.metrics = newMetrics(reg) }
}

// NewOAuth makes the consumer's side of the flow. callbackURL is exactly the one that is registered
// at Bitbucket: it is compared in whole (BITBUCKET.md#authorize).
func NewOAuth(site Site, clientID string, secret seal.Secret, callbackURL string, opts ...OAuthOption) *OAuth {
	o := &OAuth{
		site: site,
		config: oauth2.Config{
			ClientID:     clientID,
			ClientSecret: secret.Reveal(),
			RedirectURL:  callbackURL,
			Endpoint: oauth2.Endpoint{
				AuthURL:  site.AuthorizeEndpoint(),
				TokenURL: site.TokenEndpoint(),
				// Never detected: the library would repeat a failed request in the other style
				// and spend the code or the refresh token twice (BITBUCKET.md#token-endpoint).
				AuthStyle: oauth2.AuthStyleInHeader,
			},
		},
		http: plainClient(nil),
		now:  time.Now,
	}
	for _, opt := range opts {
		opt(o)
	}
	if o.metrics == nil {
		o.metrics = newMetrics(nil)
	}
	o.http.Timeout = tokenTimeout
	o.http.Transport = agentTransport{o.http.Transport}
	return o
}

// Site is the site of the consumer.
func (o *OAuth) Site() Site { return o.site }

// ClientID is the consumer's key.
func (o *OAuth) ClientID() string { return o.config.ClientID }

// CallbackURL is the one registered at Bitbucket.
func (o *OAuth) CallbackURL() string { return o.config.RedirectURL }

// NewVerifier makes a PKCE code verifier (RFC 7636); its challenge goes to [OAuth.AuthorizeURL].
func NewVerifier() string { return oauth2.GenerateVerifier() }

// Challenge is the S256 challenge of a verifier.
func Challenge(verifier string) string { return oauth2.S256ChallengeFromVerifier(verifier) }

// AuthorizeURL is the page on which the user consents. pkceChallenge is [Challenge] of the verifier
// handed to [OAuth.Exchange]; empty leaves PKCE out. No scope is sent: the consumer's boxes decide
// (BITBUCKET.md#consumers).
func (o *OAuth) AuthorizeURL(state, pkceChallenge string) string {
	var opts []oauth2.AuthCodeOption
	if pkceChallenge != "" {
		opts = append(opts, oauth2.SetAuthURLParam("code_challenge", pkceChallenge),
			oauth2.SetAuthURLParam("code_challenge_method", "S256"))
	}
	return o.config.AuthCodeURL(state, opts...)
}

// Grant is what the token endpoint answers.
type Grant struct {
	AccessToken  seal.Secret
	RefreshToken seal.Secret // after a refresh that returned none, the one that was spent; it is still good then
	// Expiry is counted from before the request was sent. Zero means that Bitbucket did not say:
	// such a token counts as expired.
	Expiry time.Time
	Scopes []string // sorted; empty where Bitbucket did not say
}

// ValidFor reports whether the access token lives at least that long after now. An unknown expiry
// is an expired one.
func (g Grant) ValidFor(now time.Time, life time.Duration) bool {
	return !g.AccessToken.IsZero() && !g.Expiry.IsZero() && !g.Expiry.Before(now.Add(life))
}

// Exchange spends an authorization code. verifier is the PKCE code verifier, empty if none was used.
// The error is always an *[OAuthError].
func (o *OAuth) Exchange(ctx context.Context, code, verifier string) (Grant, error) {
	var opts []oauth2.AuthCodeOption
	if verifier != "" {
		opts = append(opts, oauth2.VerifierOption(verifier))
	}
	start := o.now()
	token, err := o.config.Exchange(o.context(ctx), code, opts...)
	if err != nil {
		e := newOAuthError(ctx, GrantAuthorizationCode, err, start)
		o.count(start, e.Class.String())
		return Grant{}, e
	}
	o.count(start, "ok")
	return grant(token, start), nil
}

// Refresh spends a refresh token. The error is always an *[OAuthError]. A lost answer after
// Bitbucket has rotated the token is OAuthTransient like any network trouble.
func (o *OAuth) Refresh(ctx context.Context, refreshToken seal.Secret) (Grant, error) {
	start := o.now()
	token, err := o.config.TokenSource(o.context(ctx), &oauth2.Token{RefreshToken: refreshToken.Reveal()}).Token()
	if err != nil {
		e := newOAuthError(ctx, GrantRefreshToken, err, start)
		o.count(start, e.Class.String())
		return Grant{}, e
	}
	o.count(start, "ok")
	return grant(token, start), nil
}

func (o *OAuth) context(ctx context.Context) context.Context {
	return context.WithValue(ctx, oauth2.HTTPClient, o.http)
}

// count adds one request to the metrics.
func (o *OAuth) count(start time.Time, outcome string) {
	o.metrics.requests.WithLabelValues(string(RouteToken), outcome).Inc()
	o.metrics.duration.WithLabelValues(string(RouteToken)).Observe(o.now().Sub(start).Seconds())
}

func grant(t *oauth2.Token, start time.Time) Grant {
	g := Grant{AccessToken: seal.NewSecret(t.AccessToken), RefreshToken: seal.NewSecret(t.RefreshToken)}
	if t.ExpiresIn > 0 {
		g.Expiry = start.Add(time.Duration(t.ExpiresIn) * time.Second).UTC()
	}
	// The field was called scopes until May 2026 and is called scope since (BITBUCKET.md#token-endpoint).
	g.Scopes = scopes(t.Extra("scope"))
	if len(g.Scopes) == 0 {
		g.Scopes = scopes(t.Extra("scopes"))
	}
	return g
}

// scopes reads a list of scopes: text with spaces (or commas, as the X-OAuth-Scopes header has
// them), or a JSON list.
func scopes(v any) []string {
	var list []string
	switch v := v.(type) {
	case string:
		list = strings.FieldsFunc(v, func(r rune) bool { return r == ' ' || r == ',' || r == '\t' })
	case []any:
		for _, x := range v {
			if s, ok := x.(string); ok && s != "" {
				list = append(list, s)
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// agentTransport names us to Bitbucket.
type agentTransport struct{ base http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (t agentTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Set("User-Agent", UserAgent)
	req.Header.Set("Accept", "application/json")
	return t.base.RoundTrip(req)
}
