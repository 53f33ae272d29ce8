package devpilot

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"time"
)

// What New sets where nothing else is said.
const (
	DefaultAttempts     = 4                // how often a call is tried in all
	DefaultLongestPause = 30 * time.Second // no pause before a repeat is longer: the call fails instead
	// callTimeout bounds one try of a call that is no stream.
	callTimeout = 2 * time.Minute
	// maxAnswer bounds an answer that is read as a whole.
	maxAnswer = 64 << 20
)

// Client speaks with one Devpilot. It is safe for concurrent use.
type Client struct {
	base         string
	key          string
	agent        string
	http         *http.Client
	attempts     int
	longestPause time.Duration
}

// Option changes what New makes.
type Option func(*Client)

// WithKey has the client send an API key, or the admin token.
func WithKey(key string) Option { return func(c *Client) { c.key = key } }

// WithHTTPClient has the client send by h, such as one with proxies or certificates of its own. It must have
// no timeout, which would end streams.
func WithHTTPClient(h *http.Client) Option { return func(c *Client) { c.http = h } }

// WithUserAgent names the program.
func WithUserAgent(name string) Option { return func(c *Client) { c.agent = name } }

// WithAttempts says how often a call is tried in all, and how long a pause between may be.
func WithAttempts(n int, longestPause time.Duration) Option {
	return func(c *Client) { c.attempts, c.longestPause = n, longestPause }
}

// New makes a client of the Devpilot at an address such as https://devpilot.example.com. It sends nothing yet.
func New(address string, options ...Option) (*Client, error) {
	u, err := url.Parse(strings.TrimRight(address, "/"))
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("devpilot: %q is not an address like https://devpilot.example.com", address)
	}
	c := &Client{base: u.String(), agent: "devpilot-go", http: http.DefaultClient, attempts: DefaultAttempts, longestPause: DefaultLongestPause}
	for _, o := range options {
		o(c)
	}
	// A redirect is never followed: it could take the key to another host, and the API has none.
	h := *c.http
	h.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	c.http = &h
	return c, nil
}

// Address is where Devpilot is.
func (c *Client) Address() string { return c.base }

// request is a call before it is sent.
type request struct {
	method, path string
	query        url.Values
	header       http.Header
	body         any
	// repeatable says that a repeat is harmless: a read, or a POST with a requestId.
	repeatable bool
}

func (r *request) inPath(name string, value any) {
	r.path = strings.ReplaceAll(r.path, "{"+name+"}", url.PathEscape(fmt.Sprint(value)))
}

func (r *request) inQuery(name string, value any) {
	if r.query == nil {
		r.query = url.Values{}
	}
	for _, s := range texts(value) {
		r.query.Add(name, s)
	}
}

func (r *request) inHeader(name string, value any) {
	if r.header == nil {
		r.header = http.Header{}
	}
	for _, s := range texts(value) {
		r.header.Add(name, s)
	}
}

// texts are the values of a parameter: none where it is absent, several of a list.
func texts(value any) []string {
	v := reflect.ValueOf(value)
	for v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return nil
		}
		v = v.Elem()
	}
	if t, ok := v.Interface().(time.Time); ok {
		return []string{t.Format(time.RFC3339Nano)}
	}
	if v.Kind() != reflect.Slice {
		return []string{fmt.Sprint(v.Interface())}
	}
	var all []string
	for i := range v.Len() {
		all = append(all, texts(v.Index(i).Interface())...)
	}
	return all
}

// call sends a request and reads its answer.
func call[T any](ctx context.Context, c *Client, r request) (*T, error) {
	body, err := r.encoded()
	if err != nil {
		return nil, err
	}
	raw, err := repeat(ctx, c, r.repeatable, func() ([]byte, error) {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		resp, err := c.send(ctx, r, body)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
		if err != nil {
			return nil, &unanswered{err: err}
		}
		return raw, nil
	})
	if err != nil {
		return nil, err
	}
	answer := new(T)
	if err := json.Unmarshal(raw, answer); err != nil {
		return nil, fmt.Errorf("devpilot: what answers at %s is not Devpilot: check the address", c.base)
	}
	return answer, nil
}

// encoded is the body with a requestId, where that makes a repeat harmless; nil without a body. A repeat sends
// the same one.
func (r *request) encoded() ([]byte, error) {
	if r.body == nil {
		return nil, nil
	}
	raw, err := json.Marshal(r.body)
	if err != nil || r.method != http.MethodPost || !r.repeatable {
		return raw, err
	}
	fields := map[string]json.RawMessage{}
	if err := json.Unmarshal(raw, &fields); err != nil {
		return nil, err
	}
	if _, given := fields["requestId"]; given {
		return raw, nil
	}
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails (crypto/rand)
	fields["requestId"] = json.RawMessage(`"` + hex.EncodeToString(id[:]) + `"`)
	return json.Marshal(fields)
}

// send sends a request once. The error of a refusal is *Error; its body is read.
func (c *Client) send(ctx context.Context, r request, body []byte) (*http.Response, error) {
	target := c.base + r.path
	if len(r.query) > 0 {
		target += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, target, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	for name, values := range r.header {
		req.Header[name] = values
	}
	req.Header.Set("User-Agent", c.agent)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if req.Header.Get("Accept") == "" {
		req.Header.Set("Accept", "application/json")
	}
	if c.key != "" {
		req.Header.Set("Authorization", "Bearer "+c.key)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, &unanswered{err: err}
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, refusal(resp)
}
