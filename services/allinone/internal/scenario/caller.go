package scenario

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"time"
)

// object is a JSON object as a caller without generated types sees it.
type object = map[string]any

const (
	callTimeout = time.Minute            // of one call
	waitTimeout = 3 * time.Minute        // for one thing to come about
	pause       = 100 * time.Millisecond // between two looks at it
)

// caller is a person of the story in a browser of their own.
type caller struct {
	base string
	http *http.Client
}

// refusal is an answer that is no success.
type refusal struct {
	method, path   string
	status, again  int
	reason, detail string
}

// Error implements error.
func (r *refusal) Error() string {
	return fmt.Sprintf("%s %s: %d %s: %s", r.method, r.path, r.status, r.reason, r.detail)
}

// enter signs a person in as the console does, by way of the identity provider.
func enter(ctx context.Context, base, person string) (*caller, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, fmt.Errorf("make a cookie jar: %w", err)
	}
	c := &caller{base: base, http: &http.Client{Jar: jar, Timeout: callTimeout, Transport: &http.Transport{Proxy: nil}}}
	begun, err := c.do(ctx, http.MethodPost, "/sign-in/"+Provider, object{"next": "/v1/me"})
	if err != nil {
		return nil, err
	}
	to, _ := begun["authorizeUrl"].(string)
	if _, err := c.visit(ctx, to+"&as="+person, nil); err != nil {
		return nil, err
	}
	if _, err := c.do(ctx, http.MethodGet, "/v1/me", nil); err != nil {
		return nil, fmt.Errorf("sign %s in: %w", person, err)
	}
	return c, nil
}

// visit opens a page, or sends a form, and returns the address where that ended.
func (c *caller) visit(ctx context.Context, address string, form url.Values) (*url.URL, error) {
	method, body := http.MethodGet, io.Reader(http.NoBody)
	if form != nil {
		method, body = http.MethodPost, strings.NewReader(form.Encode())
	}
	req, err := http.NewRequestWithContext(ctx, method, address, body)
	if err != nil {
		return nil, fmt.Errorf("visit a page: %w", err)
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("visit a page: %w", err)
	}
	return resp.Request.URL, errors.Join(drain(resp.Body), resp.Body.Close())
}

func drain(r io.Reader) error {
	_, err := io.Copy(io.Discard, io.LimitReader(r, 1<<20))
	return err
}

// do sends a request and returns the answer. One that asks to be tried again is followed.
func (c *caller) do(ctx context.Context, method, path string, body any) (object, error) {
	var out object
	err := await(ctx, method+" "+path, func() error {
		var err error
		out, err = c.try(ctx, method, path, body)
		var no *refusal
		if errors.As(err, &no) && no.again > 0 && (no.status == http.StatusServiceUnavailable || no.status == http.StatusTooManyRequests) {
			return err
		}
		if err != nil {
			return final{err}
		}
		return nil
	})
	return out, err
}

func (c *caller) try(ctx context.Context, method, path string, body any) (object, error) {
	var raw []byte
	if body != nil {
		var err error
		if raw, err = json.Marshal(body); err != nil {
			return nil, fmt.Errorf("%s %s: %w", method, path, err)
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	raw, err = io.ReadAll(io.LimitReader(resp.Body, 8<<20))
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	out := object{}
	if resp.StatusCode/100 == 2 {
		if len(raw) > 0 {
			err = json.Unmarshal(raw, &out)
		}
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", method, path, err)
		}
		return out, nil
	}
	no := &refusal{method: method, path: path, status: resp.StatusCode}
	if json.Unmarshal(raw, &out) == nil {
		no.reason, _ = out["reason"].(string)
		no.detail, _ = out["detail"].(string)
		if again, ok := out["retryAfterSeconds"].(float64); ok {
			no.again = int(again)
		}
	}
	return nil, no
}

// final is an error that waiting does not mend.
type final struct{ error }

// Unwrap returns what is final.
func (f final) Unwrap() error { return f.error }

// await looks until there is no error; its text says what is waited for.
func await(ctx context.Context, what string, look func() error) error {
	ctx, cancel := context.WithTimeout(ctx, waitTimeout)
	defer cancel()
	for {
		err := look()
		var end final
		if err == nil || errors.As(err, &end) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited for %s: %w: %w", what, ctx.Err(), err)
		case <-time.After(pause):
		}
	}
}

// at walks into a JSON value by names.
func at(v any, names ...string) any {
	for _, n := range names {
		o, _ := v.(object)
		v = o[n]
	}
	return v
}
