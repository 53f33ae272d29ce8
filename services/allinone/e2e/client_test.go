package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"devpilot.io/bitbucket/pkg/testkit"
)

// object is a JSON object as a caller without generated types sees it.
type object = map[string]any

// problem is an application/problem+json answer.
type problem struct {
	Status            int    `json:"status"`
	Title             string `json:"title"`
	Detail            string `json:"detail"`
	Reason            string `json:"reason"`
	RetryAfterSeconds int    `json:"retryAfterSeconds"`
	RequestID         string `json:"requestId"`
	Fields            []struct {
		Name string `json:"name"`
	} `json:"fields"`
}

// api is a caller of the public REST API: a browser with a cookie jar, or a script with a key.
type api struct {
	t      testing.TB
	base   string
	bearer string
	http   *http.Client
}

func newBrowser(t testing.TB, base string) *api {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &api{t: t, base: base, http: &http.Client{Jar: jar, Timeout: timeout}}
}

// with is the same caller in another test.
func (a *api) with(t testing.TB) *api {
	b := *a
	b.t = t
	return &b
}

// do sends a request and decodes a 2xx answer into out; any other answer comes back as a problem.
func (a *api) do(method, path string, body, out any) *problem {
	a.t.Helper()
	p, err := a.try(method, path, body, out)
	if err != nil {
		a.t.Fatalf("%s %s: %v", method, path, err)
	}
	return p
}

// try is do for callers that expect the server to be away.
func (a *api) try(method, path string, body, out any) (*problem, error) {
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		r = bytes.NewReader(b)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, a.base+path, r)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if a.bearer != "" {
		req.Header.Set("Authorization", "Bearer "+a.bearer)
	}
	resp, err := a.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 == 2 {
		asDescribed(a.t, method, path, raw)
		if out != nil {
			if err := json.Unmarshal(raw, out); err != nil {
				return nil, fmt.Errorf("answer %q: %w", raw, err)
			}
		}
		return nil, nil
	}
	p := &problem{}
	if err := json.Unmarshal(raw, p); err != nil || p.Reason == "" {
		return nil, fmt.Errorf("status %d is not a problem document: %q", resp.StatusCode, raw)
	}
	return p, nil
}

// must is do for calls that have to succeed.
func (a *api) must(method, path string, body any) object {
	a.t.Helper()
	out := object{}
	if p := a.do(method, path, body, &out); p != nil {
		a.t.Fatalf("%s %s: %d %s: %s", method, path, p.Status, p.Reason, p.Detail)
	}
	return out
}

// get is must for reads. An answer that asks to try again is followed, as clients are told to: Redis,
// for one, has 400 ms to answer, which a machine with dozens of products on it may miss.
func (a *api) get(path string) object {
	a.t.Helper()
	out := object{}
	testkit.Eventually(a.t, timeout, func() error {
		switch p := a.do(http.MethodGet, path, nil, &out); {
		case p == nil:
			return nil
		case p.Status == http.StatusServiceUnavailable && p.RetryAfterSeconds > 0:
			return fmt.Errorf("GET %s: %s: %s", path, p.Reason, p.Detail)
		default:
			a.t.Fatalf("GET %s: %d %s: %s", path, p.Status, p.Reason, p.Detail)
			return nil
		}
	})
	return out
}

// refused is do for calls that have to be refused with a reason.
func (a *api) refused(method, path string, body any, reason string) *problem {
	a.t.Helper()
	p := a.do(method, path, body, nil)
	if p == nil || p.Reason != reason {
		a.t.Fatalf("%s %s: got %+v, want reason %s", method, path, p, reason)
	}
	if p.Detail == "" || p.RequestID == "" {
		a.t.Fatalf("%s %s: a problem without words or request id: %+v", method, path, p)
	}
	return p
}

// signIn opens a browser session with the admin token.
func (a *api) signIn(token string) *api {
	a.t.Helper()
	a.must(http.MethodPost, "/v1/session", object{"token": token})
	return a
}

var (
	formAction = regexp.MustCompile(`<form[^>]*action="([^"]*)"`)
	formButton = regexp.MustCompile(`<button[^>]*name="account" value="([^"]+)"`)
)

// connect connects a workspace through the consent page, as a person would, pressing the button
// named by decision ("grant" or "cancel"), and answers the URL where the browser ended.
func (a *api) connect(workspace, decision string) *url.URL {
	a.t.Helper()
	_, at := a.decide(a.begin(workspace), decision)
	return at
}

// begin begins a connect and returns the page to open.
func (a *api) begin(workspace string) string {
	a.t.Helper()
	path := "/v1/workspaces/" + workspace + "/integrations/bitbucket:connect"
	begun := object{}
	// Redis has 400 ms to answer, which it may miss on a machine with dozens of products on it. The
	// answer then asks to try again, as a person would.
	testkit.Eventually(a.t, timeout, func() error {
		p := a.do(http.MethodPost, path, object{"returnPath": "/v1/info"}, &begun)
		switch {
		case p == nil:
			return nil
		case p.Reason == "SERVICE_UNAVAILABLE":
			return errors.New(p.Detail)
		}
		a.t.Fatalf("POST %s: %d %s: %s", path, p.Status, p.Reason, p.Detail)
		return nil
	})
	address, _ := begun["authorizeUrl"].(string)
	return address
}

// decide opens the page and presses buttons until Bitbucket has its decision.
func (a *api) decide(address, decision string) (string, *url.URL) {
	a.t.Helper()
	page, at := a.open(address)
	for range 3 { // the page that asks which account comes before the one that asks for consent
		m := formAction.FindStringSubmatch(page)
		if strings.HasPrefix(at.String(), a.base) || page == "" { // back with us, or told not to go there
			break
		}
		if m == nil {
			a.t.Fatalf("Bitbucket shows no form but %s", page)
		}
		action, err := at.Parse(html.UnescapeString(m[1]))
		if err != nil {
			a.t.Fatal(err)
		}
		form := url.Values{"action": {decision}}
		if strings.Contains(page, `value="`+jane+`"`) && formButton.MatchString(page) {
			form = url.Values{"account": {jane}}
		}
		page, at = a.post(action, form)
	}
	return page, at
}

// callback grants access and returns the address that Bitbucket sends the browser back to, without
// following it.
func (a *api) callback(start string) *url.URL {
	a.t.Helper()
	b, client := *a, *a.http
	var callback *url.URL
	client.CheckRedirect = func(req *http.Request, _ []*http.Request) error {
		if strings.HasSuffix(req.URL.Path, "/oauth/bitbucket/callback") {
			callback = req.URL
			return http.ErrUseLastResponse
		}
		return nil
	}
	b.http = &client
	b.decide(start, "grant")
	if callback == nil {
		a.t.Fatal("Bitbucket did not send the browser back")
	}
	return callback
}

func (a *api) open(address string) (string, *url.URL) {
	a.t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, address, nil)
	if err != nil {
		a.t.Fatal(err)
	}
	return a.page(req)
}

func (a *api) post(to *url.URL, form url.Values) (string, *url.URL) {
	a.t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, to.String(), strings.NewReader(form.Encode()))
	if err != nil {
		a.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return a.page(req)
}

func (a *api) page(req *http.Request) (string, *url.URL) {
	a.t.Helper()
	resp, err := a.http.Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	return string(b), resp.Request.URL
}

// log reads a deployment's whole log as records, following it to its end.
func (a *api) log(workspace, app string, number int) (records []object, end object) {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet,
		fmt.Sprintf("%s/v1/workspaces/%s/apps/%s/deployments/%d/log?follow=true", a.base, workspace, app, number), nil)
	if err != nil {
		a.t.Fatal(err)
	}
	if a.bearer != "" {
		req.Header.Set("Authorization", "Bearer "+a.bearer)
	}
	resp, err := a.http.Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	defer resp.Body.Close()
	scan := bufio.NewScanner(resp.Body)
	scan.Buffer(nil, 1<<20)
	for scan.Scan() {
		if len(bytes.TrimSpace(scan.Bytes())) == 0 {
			continue
		}
		rec := object{}
		if err := json.Unmarshal(scan.Bytes(), &rec); err != nil {
			a.t.Fatalf("log line %q: %v", scan.Text(), err)
		}
		if e, ok := rec["end"].(map[string]any); ok {
			return records, e
		}
		if _, ok := rec["line"]; ok {
			records = append(records, rec)
		}
	}
	a.t.Fatalf("the log ended without its end record: %v", scan.Err())
	return nil, nil
}

// dig reads a nested value; nil where a part is absent.
func dig(o any, path ...string) any {
	for _, p := range path {
		m, ok := o.(map[string]any)
		if !ok {
			return nil
		}
		o = m[p]
	}
	return o
}
