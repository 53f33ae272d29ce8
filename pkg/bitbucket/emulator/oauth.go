package emulator

import (
	"crypto/subtle"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Routes of OAuth.
const (
	pathAuthorize   = "/site/oauth2/authorize"
	pathAccessToken = "/site/oauth2/access_token"
)

// oauthError is a token endpoint error; its texts are the wire values of BITBUCKET.md#token-errors. Status is 400.
type oauthError struct {
	code, description string
}

func errBadClient() *oauthError {
	return &oauthError{"unauthorized_client", "Invalid OAuth client credentials"}
}

func (err *oauthError) response() response {
	return response{status: http.StatusBadRequest, body: obj{"error": err.code, "error_description": err.description}}
}

func (e *Emulator) addOAuthRoutes(table *routes) {
	table.add(route{method: "GET", pattern: pathAuthorize, serve: e.serveAuthorize})
	table.add(route{method: "POST", pattern: pathAuthorize, serve: e.serveConsent})
	table.add(route{method: "POST", pattern: pathAccessToken, delayed: true, serve: func(w http.ResponseWriter, r *http.Request, _ params) {
		w.Header().Set("Cache-Control", "no-store")
		e.send(w, e.tokenAnswer(w, r))
	}})
}

// tokenAnswer serves the token endpoint: Basic client authentication, a form body, one of two grant types.
func (e *Emulator) tokenAnswer(w http.ResponseWriter, r *http.Request) response {
	key, secret, hasBasic := r.BasicAuth()
	if !hasBasic {
		e.journal.count(func(c *Counters) { c.ClientRefused++ })
		return (&oauthError{"unauthorized_client", "Requests must be authenticated using OAuth client credentials"}).response()
	}
	e.mu.RLock()
	consumer, options := e.consumer, e.switches.Tokens
	e.mu.RUnlock()
	if !sameClient(consumer, key, secret) {
		e.journal.count(func(c *Counters) { c.ClientRefused++ })
		return errBadClient().response()
	}
	if consumer.CallbackURL == "" {
		return (&oauthError{"invalid_request", "No callback uri defined for the OAuth client."}).response()
	}
	form := readForm(w, r)
	var pair TokenPair
	var failed *oauthError
	grantType := form.Get("grant_type")
	switch grantType {
	case "authorization_code":
		pair, failed = e.exchangeCode(form.Get("code"), form.Get("redirect_uri"))
	case "refresh_token":
		pair, failed = e.refreshGrant(form.Get("refresh_token"))
	case "client_credentials":
		failed = &oauthError{"invalid_grant", `Cannot use client_credentials with a consumer marked as "public". Mark it as private to use this grant type.`}
	default:
		failed = &oauthError{"invalid_grant", "Unsupported grant type: None"}
	}
	if failed != nil {
		return failed.response()
	}
	return ok(obj{
		"access_token":     pair.AccessToken,
		"refresh_token":    pair.RefreshToken,
		"token_type":       "bearer",
		"expires_in":       int(options.AccessTTL / time.Second),
		options.ScopeField: strings.Join(pair.Scopes, " "),
		"state":            grantType, // a historic oddity: not the OAuth state (BITBUCKET.md#token-endpoint)
	})
}

func sameClient(consumer Consumer, key, secret string) bool {
	sameKey := subtle.ConstantTimeCompare([]byte(consumer.Key), []byte(key))
	return sameKey&subtle.ConstantTimeCompare([]byte(consumer.Secret), []byte(secret)) == 1
}

// readForm parses a form-encoded body and nothing else: parameters in the query do not count, JSON is not understood.
func readForm(w http.ResponseWriter, r *http.Request) url.Values {
	mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || mediaType != "application/x-www-form-urlencoded" {
		return url.Values{}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return url.Values{}
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return url.Values{}
	}
	return form
}
