package devpilot

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

// The pauses between repeats: the first, and the longest that grows by itself.
const (
	firstPause = 250 * time.Millisecond
	lastPause  = 15 * time.Second
)

// Error is a call that Devpilot refused. Its text is a sentence for people, with what to do next.
type Error struct{ Problem Problem }

func (e *Error) Error() string { return e.Problem.Detail }

// Reason is what went wrong, for programs.
func (e *Error) Reason() Reason { return e.Problem.Reason }

// Known tells a reason that this client knows from one that came later.
func (r Reason) Known() bool { return retries[r] != "" }

// Is says whether an error is a refusal with the reason.
func Is(err error, r Reason) bool {
	var e *Error
	return errors.As(err, &e) && e.Problem.Reason == r
}

// unanswered is a call that nobody answered.
type unanswered struct{ err error }

func (u *unanswered) Error() string { return "devpilot: no answer: " + u.err.Error() }
func (u *unanswered) Unwrap() error { return u.err }

// Unanswered says whether an error is that nobody answered, so that it is not known whether the call was heard.
func Unanswered(err error) bool {
	var u *unanswered
	return errors.As(err, &u)
}

// pause is for how long to wait before a repeat; ok is false where none can help.
func pause(err error, attempt int) (d time.Duration, ok bool) {
	var e *Error
	if !errors.As(err, &e) {
		return backoff(attempt), Unanswered(err)
	}
	var said time.Duration
	if e.Problem.RetryAfterSeconds != nil {
		said = time.Duration(*e.Problem.RetryAfterSeconds) * time.Second
	}
	switch retries[e.Problem.Reason] {
	case "after":
		return said, e.Problem.RetryAfterSeconds != nil
	case "backoff":
		return max(backoff(attempt), said), true
	}
	return 0, false
}

// backoff is the pause before an attempt is repeated: it doubles, and differs between callers.
func backoff(attempt int) time.Duration {
	d := min(firstPause<<min(attempt, 10), lastPause)
	return time.Duration(float64(d) * (0.75 + rand.Float64()/2)) //nolint:gosec // spreads callers, keeps no secret
}

// repeat tries a call, again where that is harmless and can help.
func repeat(ctx context.Context, c *Client, harmless bool, try func() ([]byte, error)) ([]byte, error) {
	attempts := 1
	if harmless {
		attempts = c.attempts
	}
	for attempt := 0; ; attempt++ {
		raw, err := try()
		if err == nil || ctx.Err() != nil {
			return raw, err
		}
		d, ok := pause(err, attempt)
		if !ok || attempt+1 >= attempts || d > c.longestPause {
			return nil, err
		}
		if err := wait(ctx, d); err != nil {
			return nil, err
		}
	}
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// reasonOf is what an answer without a problem document means.
func reasonOf(status int) Reason {
	switch status {
	case http.StatusUnauthorized:
		return ReasonUnauthenticated
	case http.StatusForbidden:
		return ReasonPermissionDenied
	case http.StatusMethodNotAllowed:
		return ReasonMethodNotAllowed
	case http.StatusRequestTimeout:
		return ReasonTimeout
	case http.StatusPreconditionFailed:
		return ReasonEtagMismatch
	case http.StatusRequestEntityTooLarge:
		return ReasonPayloadTooLarge
	case http.StatusUnsupportedMediaType:
		return ReasonUnsupportedMediaType
	case http.StatusTooManyRequests:
		return ReasonRateLimited
	case http.StatusInternalServerError:
		return ReasonInternal
	case http.StatusNotImplemented:
		return ReasonUnimplemented
	}
	switch {
	case status > http.StatusInternalServerError:
		return ReasonServiceUnavailable
	case status >= http.StatusBadRequest && status != http.StatusNotFound:
		return ReasonInvalidArgument
	}
	return ReasonNotFound
}

// refusal is what a call was refused with; a server in between may have answered something else.
func refusal(resp *http.Response) *Error {
	e := &Error{Problem: Problem{
		Type: "about:blank", Title: http.StatusText(resp.StatusCode), Reason: reasonOf(resp.StatusCode), RequestID: resp.Header.Get("X-Request-Id"),
		Detail: "What answers there is not Devpilot, or something before it (" + resp.Status + "). Check the address.",
	}}
	if e.Problem.Reason == ReasonServiceUnavailable {
		e.Problem.Detail = "Devpilot is not there (" + resp.Status + "). Try again in a moment."
	}
	if seconds, err := strconv.ParseInt(resp.Header.Get("Retry-After"), 10, 32); err == nil && seconds >= 0 { // a date instead is not obeyed
		e.Problem.RetryAfterSeconds = new(int(seconds))
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	var said Problem
	if err == nil && json.Unmarshal(raw, &said) == nil && said.Reason != "" {
		e.Problem = said
	}
	e.Problem.Status = resp.StatusCode
	return e
}
