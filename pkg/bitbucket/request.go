package bitbucket

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"devpilot.io/bitbucket/pkg/seal"
)

// Caps of what is read of an answer. A page of 100 branches with whole commit messages stays far
// below the first.
const (
	maxAnswerBytes = 16 << 20
	maxErrorBytes  = 64 << 10
	maxRedirects   = 3
)

// call is one REST call.
type call struct {
	method  string
	route   Route
	subject string     // for errors: whom it is about
	object  string     // for the budget: the same for all calls about one thing, as far as we can tell
	path    string     // escaped, below the API's base, without a leading slash
	query   url.Values // nil for none
	next    *url.URL   // instead of path and query: a link of a listing, already checked
	body    any        // sent as JSON; nil for none
	out     any        // decoded from a 2xx answer; nil to ignore the body
}

// budgeted is the call as the budget knows it.
func (k call) budgeted() Call {
	return Call{Resource: k.route.resource(), Route: k.route, Object: strings.ToLower(k.object)}
}

// url builds the address. The path is escaped already; parsing keeps its escapes (RawPath).
func (c *Client) url(k call) (*url.URL, error) {
	if k.next != nil {
		return k.next, nil
	}
	u, err := url.Parse(c.site.APIURL + "/" + k.path)
	if err != nil {
		return nil, fmt.Errorf("bitbucket %s: build URL: %w", k.route, err)
	}
	u.RawQuery = k.query.Encode()
	return u, nil
}

// maxTokens bounds how many tokens are tried: the one at hand may have been replaced meanwhile, and
// the one in its place be rejected too.
const maxTokens = 3

// do makes the call: budget, token, request. A 401 is reported to the source of tokens; with another
// token the call is repeated, and with the same it was about this call (BITBUCKET.md#presenting-a-token).
func (a *Account) do(ctx context.Context, k call) error {
	if a.client.broken != nil {
		return a.client.broken
	}
	release, err := a.acquire(ctx)
	if err != nil {
		return &Error{Kind: KindNetwork, Route: k.route, Subject: k.subject, cause: err}
	}
	defer release()

	token, err := a.tokens.Token(ctx, seal.Secret{})
	if err != nil {
		return fmt.Errorf("bitbucket %s: get token: %w", k.route, err)
	}
	for n := 1; ; n++ {
		err = a.attempt(ctx, k, token)
		var e *Error
		if !errors.As(err, &e) || e.Kind != KindUnauthorized || n == maxTokens {
			return err
		}
		next, tokenErr := a.tokens.Token(ctx, token)
		switch {
		case errors.Is(tokenErr, errStatic):
			return err
		case tokenErr != nil:
			return fmt.Errorf("bitbucket %s: renew token after 401: %w", k.route, tokenErr)
		case next.Equal(token):
			e.Kind = KindRefused
			return err
		}
		token = next
	}
}

// attempt spends budget and makes one request, with a span and a metric.
func (a *Account) attempt(ctx context.Context, k call, token seal.Secret) error {
	c := a.client
	if wait := c.budget.Take(ctx, k.budgeted(), a.priority, a.owner); wait > 0 {
		c.metrics.refused.WithLabelValues(string(k.route), a.priority.String()).Inc()
		return &Error{Kind: KindRateLimited, Route: k.route, Subject: k.subject, RetryAfter: wait,
			Message: "held back by Devpilot's own budget of calls"}
	}
	if m, ok := c.budget.(Meter); ok {
		m.Made(ctx, k.budgeted(), a.priority, a.owner)
	}
	ctx, span := c.tracer.Start(ctx, "bitbucket "+string(k.route), trace.WithSpanKind(trace.SpanKindClient),
		trace.WithAttributes(attribute.String("http.request.method", k.method)))
	defer span.End()

	start := c.now()
	status, err := c.roundTrips(ctx, k, token)
	took := c.now().Sub(start)

	outcome := "ok"
	if err != nil {
		kind, _ := KindOf(err)
		outcome = kind.String()
		span.SetStatus(codes.Error, outcome)
	}
	span.SetAttributes(attribute.Int("http.response.status_code", status))
	c.metrics.requests.WithLabelValues(string(k.route), outcome).Inc()
	c.metrics.refused.WithLabelValues(string(k.route), a.priority.String()) // there from the first call on, at 0
	c.metrics.duration.WithLabelValues(string(k.route)).Observe(took.Seconds())
	c.log.LogAttrs(ctx, slog.LevelDebug, "bitbucket request",
		slog.String("route", string(k.route)), slog.String("method", k.method), slog.Int("status", status),
		slog.String("outcome", outcome), slog.Int64("duration_ms", took.Milliseconds()))

	var e *Error
	if errors.As(err, &e) && e.Kind == KindRateLimited {
		c.budget.Exhausted(ctx, k.budgeted(), e.RetryAfter)
	}
	return err
}

// roundTrips sends the request and follows the redirects that may be followed.
func (c *Client) roundTrips(ctx context.Context, k call, token seal.Secret) (status int, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	target, err := c.url(k)
	if err != nil {
		return 0, err
	}
	for range maxRedirects + 1 {
		var next *url.URL
		status, next, err = c.roundTrip(ctx, k, target, token)
		if next == nil {
			return status, err
		}
		target = next
	}
	return status, c.bad(k, status, "too many redirects")
}

// roundTrip sends one request. A non-nil next is a redirect that may be followed.
func (c *Client) roundTrip(ctx context.Context, k call, target *url.URL, token seal.Secret) (status int, next *url.URL, err error) {
	req, err := newRequest(ctx, k, target, token)
	if err != nil {
		return 0, nil, err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return 0, nil, &Error{Kind: KindNetwork, Route: k.route, Subject: k.subject, cause: networkCause(ctx, err)}
	}
	defer res.Body.Close()
	defer drain(res.Body)

	switch {
	case res.StatusCode >= 300 && res.StatusCode < 400:
		next, err = c.redirect(k, target, res)
		return res.StatusCode, next, err
	case res.StatusCode < 200 || res.StatusCode >= 400:
		// What cannot be read of an error's body is merely missing from the message.
		body, _ := io.ReadAll(io.LimitReader(res.Body, maxErrorBytes))
		return res.StatusCode, nil, answerError(k.route, k.subject, res.StatusCode, res.Header, body, c.now())
	case k.out == nil:
		return res.StatusCode, nil, nil
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswerBytes+1))
	if err != nil {
		return res.StatusCode, nil, &Error{Kind: KindNetwork, Route: k.route, Subject: k.subject, Status: res.StatusCode, cause: networkCause(ctx, err)}
	}
	if len(body) > maxAnswerBytes {
		return res.StatusCode, nil, c.bad(k, res.StatusCode, "the answer is too large")
	}
	if err := json.Unmarshal(body, k.out); err != nil {
		e := c.bad(k, res.StatusCode, "the answer is not the JSON expected")
		e.cause = jsonCause(err)
		return res.StatusCode, nil, e
	}
	return res.StatusCode, nil, nil
}

func newRequest(ctx context.Context, k call, target *url.URL, token seal.Secret) (*http.Request, error) {
	var body io.Reader
	if k.body != nil {
		b, err := json.Marshal(k.body)
		if err != nil {
			return nil, fmt.Errorf("bitbucket %s: encode body: %w", k.route, err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, k.method, target.String(), body)
	if err != nil {
		return nil, fmt.Errorf("bitbucket %s: build request: %w", k.route, err)
	}
	// The header is the only place where Bitbucket takes tokens (BITBUCKET.md#presenting-a-token), and the
	// only one that no log of URLs shows.
	req.Header.Set("Authorization", "Bearer "+token.Reveal())
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", UserAgent)
	if k.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return req, nil
}

// redirect decides whether a redirect may be followed: only a GET, only to the API's own origin
// (a renamed repository may answer 301, BITBUCKET.md#renames). The token is never sent
// anywhere else.
func (c *Client) redirect(k call, from *url.URL, res *http.Response) (*url.URL, error) {
	switch res.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
	default:
		return nil, c.bad(k, res.StatusCode, "an unexpected redirect")
	}
	if k.method != http.MethodGet {
		return nil, c.bad(k, res.StatusCode, "a redirect of a call that changes something")
	}
	location, err := from.Parse(res.Header.Get("Location"))
	if err != nil || res.Header.Get("Location") == "" {
		return nil, c.bad(k, res.StatusCode, "a redirect without a usable address")
	}
	location.Fragment = ""
	if !c.site.OnAPI(location) {
		return nil, c.bad(k, res.StatusCode, "a redirect to another origin")
	}
	return location, nil
}

func (c *Client) bad(k call, status int, what string) *Error {
	return &Error{Kind: KindBadResponse, Route: k.route, Subject: k.subject, Status: status, cause: errors.New(what)}
}

// networkCause keeps what matters of a transport error. The URL is cut off: it says nothing that
// the route does not, and query strings hold what people searched for.
func networkCause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var ue *url.Error
	if errors.As(err, &ue) {
		return ue.Err
	}
	return err
}

// jsonCause describes a decoding error without quoting the document.
func jsonCause(err error) error {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return fmt.Errorf("invalid JSON at byte %d", syntax.Offset)
	}
	var typed *json.UnmarshalTypeError
	if errors.As(err, &typed) {
		return fmt.Errorf("field %q is a %s", typed.Field, strings.SplitN(typed.Value, " ", 2)[0])
	}
	return errors.New("invalid JSON")
}

// drain lets the connection be used again; a body that does not end is cut by closing it.
func drain(body io.Reader) { _, _ = io.CopyN(io.Discard, body, 64<<10) }
