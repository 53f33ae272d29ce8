package emulator

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Options says what to emulate. Only SiteURL is required by New (Start fills it in).
type Options struct {
	// SiteURL is the origin under which browser, git and API reach the emulator, e.g. "http://localhost:8081".
	SiteURL string
	// DataDir holds state and git repositories. Empty: a temporary directory that Close removes.
	DataDir string
	// Consumer is the one OAuth consumer. A zero Consumer becomes DefaultConsumer.
	Consumer Consumer
	// Scenario seeds an empty emulator: see Scenarios. Empty: nothing but what Control makes.
	Scenario string
	// Logger may be nil (nothing is logged).
	Logger *slog.Logger
	// Now may be nil (time.Now). Control.AdvanceClock moves on top of it.
	Now func() time.Time
	// Tokens says how tokens behave. The zero value means what Bitbucket announced for 2026 (withDefaults); once any field is set all are taken as
	// written, except that zero Length, AccessTTL, IdleExpiry, CodeTTL, LockOutFor and ScopeField get their defaults.
	Tokens TokenOptions
	// DeliveryTransport sends webhook deliveries; nil is a transport without proxy.
	DeliveryTransport http.RoundTripper
	// DeliveryTimeout is how long an endpoint has to answer; zero is Bitbucket's 10 s.
	DeliveryTimeout time.Duration
}

// Consumer is an OAuth consumer (BITBUCKET.md#consumers). Scopes are those ticked on the consumer: they, not the
// authorize request, decide what is granted.
type Consumer struct {
	Key         string   `json:"key"`
	Secret      string   `json:"-"`
	CallbackURL string   `json:"callback_url"`
	Name        string   `json:"name"`
	Scopes      []string `json:"scopes"`
}

// DefaultConsumer is used where Options name none. It exists on loopback only and guards nothing.
func DefaultConsumer() Consumer {
	return Consumer{
		Key:    "emulatorConsumerKey0000000000001",
		Secret: "emulatorConsumerSecret-" + strings.Repeat("0", 53),
		Name:   "Devpilot",
		Scopes: []string{"account", "email", "repository", "webhook"},
	}
}

// TokenOptions are the switches of BITBUCKET.md#token-endpoint, BITBUCKET.md#refresh, BITBUCKET.md#token-errors and BITBUCKET.md#lock-out.
type TokenOptions struct {
	// Rotate makes every refresh answer with a new refresh token; the used one dies after Grace.
	Rotate bool `json:"rotate"`
	// Grace is how long a used refresh token goes on working after its first use: 0 or about 10 minutes.
	Grace time.Duration `json:"grace"`
	// IdleExpiry kills a refresh token that was not used for so long (90 days).
	IdleExpiry time.Duration `json:"idle_expiry"`
	// GrantTTL kills a whole grant so long after consent, as if its owner had revoked it. 0: never.
	GrantTTL time.Duration `json:"grant_ttl"`
	// ScopeField is the name of the field with the granted scopes: "scope" or, as before May 2026, "scopes".
	ScopeField string `json:"scope_field"`
	// Length is the number of characters of a token, at least 43 (2,700).
	Length int `json:"length"`
	// AccessTTL is the life of an access token (2 h).
	AccessTTL time.Duration `json:"access_ttl"`
	// CodeTTL is the life of an authorization code (10 min).
	CodeTTL time.Duration `json:"code_ttl"`
	// LockOut makes the token endpoint refuse valid refresh tokens of the consumer too, for LockOutFor (3 min) after
	// a refresh with a dead one (BITBUCKET.md#lock-out).
	LockOut    bool          `json:"lock_out"`
	LockOutFor time.Duration `json:"lock_out_for"`
	// SharedGrants lets a new grant of an account replace the older grants of that account to the consumer, as if
	// they shared one chain of refresh tokens. Off: they rotate independently. Which is true is open (12.15).
	SharedGrants bool `json:"shared_grants"`
	// RevokeAccess makes a refresh revoke the grant's older access tokens, RevokeAccessAfter later (0: at once). On
	// Atlassian's platform it is 10 minutes (BITBUCKET.md#refresh). Off: they live on to their end.
	RevokeAccess      bool          `json:"revoke_access"`
	RevokeAccessAfter time.Duration `json:"revoke_access_after"`
	// Families makes the use of a refresh token past its grace kill the whole grant, as on Atlassian's platform.
	Families bool `json:"families"`
	// DeadTokenError is the error for a dead refresh token: "unauthorized_client" (new backend, the default),
	// "invalid_request" (old backend) or "invalid_grant" (RFC 6749).
	DeadTokenError string `json:"dead_token_error"`
	// OldExpiredWording answers expired access tokens in the wording before 2026 (BITBUCKET.md#presenting-a-token).
	OldExpiredWording bool `json:"old_expired_wording"`
}

// withDefaults fills in what Bitbucket announced for 2026: rotation with no grace, long tokens, lock-out off.
func (o TokenOptions) withDefaults() TokenOptions {
	if o == (TokenOptions{}) {
		o.Rotate = true
	}
	setDefault(&o.IdleExpiry, 90*24*time.Hour)
	setDefault(&o.ScopeField, "scope")
	setDefault(&o.Length, 2700)
	setDefault(&o.AccessTTL, 2*time.Hour)
	setDefault(&o.CodeTTL, 10*time.Minute)
	setDefault(&o.LockOutFor, 3*time.Minute)
	setDefault(&o.DeadTokenError, "unauthorized_client")
	return o
}

func (o TokenOptions) validate() error {
	if o.ScopeField != "scope" && o.ScopeField != "scopes" {
		return fmt.Errorf("scope_field must be scope or scopes, not %q", o.ScopeField)
	}
	if o.Length < 43 {
		return fmt.Errorf("token length must be at least 43 characters, not %d", o.Length)
	}
	if !slices.Contains([]string{"unauthorized_client", "invalid_request", "invalid_grant"}, o.DeadTokenError) {
		return fmt.Errorf("dead_token_error %q is none of unauthorized_client, invalid_request, invalid_grant", o.DeadTokenError)
	}
	return nil
}

// Switches change how the emulator behaves while it runs; Control.Switch sets them.
type Switches struct {
	// Latency delays every answer of the REST API and the token endpoint.
	Latency time.Duration `json:"latency"`
	Tokens  TokenOptions  `json:"tokens"`
	// RateLimit is off while Budget is 0.
	RateLimit RateLimit `json:"rate_limit"`
	// OmitSize leaves "size" out of pages; OpaquePages makes "page" in next links an opaque text (BITBUCKET.md#pages).
	OmitSize    bool `json:"omit_size"`
	OpaquePages bool `json:"opaque_pages"`
	// HookURLs says which webhook URLs are accepted: "public" (Bitbucket), "loopback" (public ones and loopback) or
	// "any". The default is loopback where the emulator itself is on loopback, else public.
	HookURLs string `json:"hook_urls"`
	// ObjectHookErrors answers invalid webhooks with "fields" as an object, the older style of BITBUCKET.md#webhook-errors.
	ObjectHookErrors bool `json:"object_hook_errors"`
	// MaxHooks limits the webhooks of a repository, for new ones; 0: no limit.
	MaxHooks int `json:"max_hooks"`
	// SkipConsent sends who granted the same scopes before straight to the callback.
	SkipConsent bool `json:"skip_consent"`
	// RefuseAnySHA1 makes git refuse to fetch commits that no ref points at.
	RefuseAnySHA1 bool `json:"refuse_any_sha1"`
}

// RateLimit is a budget per rolling window (BITBUCKET.md#budgets), one for /2.0/repositories/* and one for webhooks.
type RateLimit struct {
	Budget int           `json:"budget"`
	Window time.Duration `json:"window"`
	// Per is "consumer" (the default) or "user".
	Per string `json:"per"`
	// Text answers in bare text instead of JSON.
	Text bool `json:"text"`
	// RetryAfter adds a Retry-After header, which Bitbucket is not known to send.
	RetryAfter bool `json:"retry_after"`
}

func (o *Options) check() (*url.URL, error) {
	if o.SiteURL == "" {
		return nil, errors.New("emulator: Options.SiteURL is missing")
	}
	site, err := url.Parse(strings.TrimRight(o.SiteURL, "/"))
	if err != nil || (site.Scheme != "http" && site.Scheme != "https") || site.Host == "" || site.Path != "" {
		return nil, fmt.Errorf("emulator: site URL %q is not an http or https origin", o.SiteURL)
	}
	o.SiteURL = site.String()
	if o.Consumer.Key == "" {
		callback := o.Consumer.CallbackURL
		o.Consumer = DefaultConsumer()
		o.Consumer.CallbackURL = callback
	}
	if o.Consumer.Secret == "" {
		return nil, errors.New("emulator: the consumer has a key but no secret")
	}
	if o.Consumer.Scopes == nil {
		o.Consumer.Scopes = DefaultConsumer().Scopes
	}
	setDefault(&o.Consumer.Name, "Devpilot")
	setDefault(&o.DeliveryTimeout, 10*time.Second)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.DeliveryTransport == nil {
		o.DeliveryTransport = &http.Transport{Proxy: nil, MaxIdleConnsPerHost: 8, IdleConnTimeout: 30 * time.Second}
	}
	o.Tokens = o.Tokens.withDefaults()
	return site, o.Tokens.validate()
}

// isLoopbackHost reports whether host (no port) is this machine by name or address.
func isLoopbackHost(host string) bool {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return ip != nil && ip.IsLoopback()
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
