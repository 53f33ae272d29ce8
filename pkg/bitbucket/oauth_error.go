package bitbucket

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"devpilot.io/bitbucket/pkg/apierr"
)

// GrantType is what was spent at the token endpoint.
type GrantType string

// The grant types that Devpilot uses.
const (
	GrantAuthorizationCode GrantType = "authorization_code"
	GrantRefreshToken      GrantType = "refresh_token"
)

// OAuthClass is what an error of the token endpoint means (BITBUCKET.md#token-errors and BITBUCKET.md#lock-out).
type OAuthClass int

// The classes.
const (
	// OAuthTransient: 429, 5xx, an answer that is not JSON, network trouble, time limits, and
	// anything that BITBUCKET.md does not name. Nothing is known about the token; keep it, back off.
	OAuthTransient OAuthClass = iota
	// OAuthRefused: Bitbucket refused the refresh token: unauthorized_client, invalid_grant, or
	// invalid_request that mentions refresh_token. With unauthorized_client that is no proof: a wrong
	// client secret and the lock-out after another connection's failed refresh answer the same.
	OAuthRefused
	// OAuthCodeRefused: the authorization code was refused, as it is unknown, used or expired. The
	// connect begins anew.
	OAuthCodeRefused
	// OAuthConsumerMisconfigured: the consumer's key, secret or callback URL is wrong. Only the
	// operator can help.
	OAuthConsumerMisconfigured
)

// String is the class in snake_case.
func (c OAuthClass) String() string {
	switch c {
	case OAuthTransient:
		return "transient"
	case OAuthRefused:
		return "refused"
	case OAuthCodeRefused:
		return "code_refused"
	case OAuthConsumerMisconfigured:
		return "consumer_misconfigured"
	}
	return "transient"
}

// OAuthError is the error of the token endpoint. It holds no token and no secret.
type OAuthError struct {
	Class       OAuthClass
	Grant       GrantType
	Status      int           // HTTP status; 0 without an answer
	Code        string        // the `error` field; "" where the answer had none
	Description string        // the `error_description` field, one line, capped
	RetryAfter  time.Duration // how long to wait, where Bitbucket said so

	cause error
}

// Transient reports whether the error says nothing about the token.
func (e *OAuthError) Transient() bool { return e.Class == OAuthTransient }

// Error is for logs.
func (e *OAuthError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "bitbucket token endpoint, %s: %s", e.Grant, e.Class)
	if e.Status != 0 {
		fmt.Fprintf(&b, " (HTTP %d)", e.Status)
	}
	if e.Code != "" {
		fmt.Fprintf(&b, ": %s", e.Code)
	}
	if e.Description != "" {
		fmt.Fprintf(&b, ": %s", e.Description)
	}
	if e.cause != nil {
		fmt.Fprintf(&b, ": %v", e.cause)
	}
	return b.String()
}

// Unwrap returns the network or context error behind it, if any.
func (e *OAuthError) Unwrap() error { return e.cause }

// As lets errors.As turn the error into its public form.
func (e *OAuthError) As(target any) bool {
	t, ok := target.(**apierr.Error)
	if ok {
		*t = e.API()
	}
	return ok
}

// API is the public form. A refused refresh becomes RECONNECT_REQUIRED here; whether one refusal is
// enough for that is the caller's decision (DESIGN.md#refusals).
func (e *OAuthError) API() *apierr.Error {
	because := apierr.WithCause(e)
	switch e.Class {
	case OAuthRefused:
		return apierr.New(apierr.ReasonReconnectRequired,
			"Bitbucket refused to renew the connection. An owner or admin must connect Bitbucket again.", because)
	case OAuthCodeRefused:
		return apierr.New(apierr.ReasonHandshakeExpired,
			"Bitbucket did not accept the answer of its own consent page any more. Start the connection again.", because)
	case OAuthConsumerMisconfigured:
		return apierr.New(apierr.ReasonConsumerRefused,
			"Bitbucket does not accept Devpilot's OAuth consumer: its key, secret or callback URL is wrong. The operator must correct the settings.", because)
	case OAuthTransient:
	}
	switch {
	case errors.Is(e.cause, context.Canceled):
		return apierr.New(apierr.ReasonCanceled, "The request was canceled.", because)
	case e.Status == http.StatusTooManyRequests:
		wait := e.RetryAfter
		if wait <= 0 {
			wait = DefaultHold
		}
		return apierr.New(apierr.ReasonBitbucketRateLimited,
			fmt.Sprintf("Bitbucket takes no more requests for tokens at the moment. Try again in %s.", humanDuration(wait)),
			because, apierr.WithRetryAfter(wait))
	default:
		return apierr.New(apierr.ReasonBitbucketUnavailable,
			"Bitbucket's sign-in service has trouble at the moment. Try again in a few minutes.", because)
	}
}

// newOAuthError reads what golang.org/x/oauth2 returned. The library's own error is not kept: it
// quotes the answer's body.
func newOAuthError(ctx context.Context, grant GrantType, err error, now time.Time) *OAuthError {
	e := &OAuthError{Class: OAuthTransient, Grant: grant}
	var answer *oauth2.RetrieveError
	if !errors.As(err, &answer) {
		e.cause = tokenCause(ctx, err)
		return e
	}
	if answer.Response != nil {
		e.Status = answer.Response.StatusCode
		e.RetryAfter = RetryAfter(answer.Response.Header, now)
	}
	e.Code = oneLine(answer.ErrorCode)
	e.Description = oneLine(answer.ErrorDescription)
	e.Class = classifyOAuth(grant, e.Status, e.Code, e.Description)
	return e
}

// classifyOAuth is the table of BITBUCKET.md#token-errors. The status only rules out: 429 and 5xx are
// transient whatever their body says, and of the others only the code counts.
func classifyOAuth(grant GrantType, status int, code, description string) OAuthClass {
	if code == "" || status == http.StatusTooManyRequests || status >= 500 || (status >= 300 && status < 400) {
		return OAuthTransient
	}
	text := strings.ToLower(description)
	if code == "invalid_client" || (code == "invalid_request" && strings.Contains(text, "callback uri")) {
		return OAuthConsumerMisconfigured
	}
	if grant == GrantRefreshToken {
		switch {
		case code == "unauthorized_client", code == "invalid_grant":
			return OAuthRefused
		case code == "invalid_request" && strings.Contains(text, "refresh_token"):
			return OAuthRefused
		}
		return OAuthTransient
	}
	if code == "unauthorized_client" {
		return OAuthConsumerMisconfigured
	}
	return OAuthCodeRefused
}

// tokenCause keeps the network error and drops what the library says about the body.
func tokenCause(ctx context.Context, err error) error {
	cause := networkCause(ctx, err)
	if strings.HasPrefix(cause.Error(), "oauth2: ") {
		return errors.New("the answer of the token endpoint cannot be used")
	}
	return cause
}
