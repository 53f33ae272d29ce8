package hosting_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"devpilot.io/bitbucket/services/deployer/internal/engine/hosting"
)

func TestServe_pages(t *testing.T) {
	h := newHouse(t)
	for name, text := range map[string]string{
		"public/index.html": "<h1>home</h1>", "public/docs/index.html": "docs", "public/app.js": "let a", "public/a b:c/index.html": "spaced",
		"public/logo.png": "\x89PNG\r\n\x1a\n", "public/README": "plain words", "public/page": "<!doctype html><p>x", "public/empty/x.txt": "x",
		"public/.well-known/security.txt": "Contact: mailto:security@example.com", "public/empty.txt": "", "public/data.JSON": "{}", "beside.txt": "beside",
		"public/x.svg": "<svg/>", "public/x.unknownext": "\x00\x01\x02", "public/x.css": "a{}",
	} {
		h.write(t, 1, name, text)
	}
	for _, tc := range []struct {
		target      string
		status      int
		body, ctype string
	}{
		{"/", 200, "<h1>home</h1>", "text/html; charset=utf-8"},
		{"/?a=b", 200, "<h1>home</h1>", "text/html; charset=utf-8"},
		{"/index.html", 200, "<h1>home</h1>", "text/html; charset=utf-8"},
		{"/docs/", 200, "docs", "text/html; charset=utf-8"},
		{"/app.js", 200, "let a", "text/javascript; charset=utf-8"},
		{"/app%2ejs", 200, "let a", "text/javascript; charset=utf-8"},
		{"/logo.png", 200, "PNG", "image/png"},
		{"/README", 200, "plain words", "text/plain; charset=utf-8"},
		{"/page", 200, "<p>", "text/html; charset=utf-8"},
		{"/x.svg", 200, "<svg/>", "image/svg+xml"},
		{"/x.css", 200, "a{}", "text/css; charset=utf-8"},
		{"/x.unknownext", 200, "", "application/octet-stream"},
		{"/data.JSON", 200, "{}", "application/json"},
		{"/empty.txt", 200, "", "text/plain; charset=utf-8"},
		{"/.well-known/security.txt", 200, "Contact", "text/plain; charset=utf-8"},
		{"/a%20b:c/", 200, "spaced", "text/html; charset=utf-8"},
		{"/app.js/", 404, "no such page", "text/html; charset=utf-8"},
		{"/app.js/x", 404, "no such page", "text/html; charset=utf-8"},
		{"/empty/", 404, "no such page", "text/html; charset=utf-8"},
		{"/empty", 404, "no such page", "text/html; charset=utf-8"},
		{"/missing", 404, "no such page", "text/html; charset=utf-8"},
		{"/beside.txt", 404, "no such page", "text/html; charset=utf-8"},
		{"/../beside.txt", 400, "cannot name a page", "text/html; charset=utf-8"},
	} {
		got := h.get(t, tc.target)
		got.want(t, tc.target, tc.status, tc.body)
		got.has(t, tc.target, "Content-Type: "+tc.ctype, "X-Content-Type-Options: nosniff", "Content-Length: "+fmt.Sprint(len(got.body)))
		head := h.ask(t, "HEAD", "web.default.localhost", tc.target)
		head.want(t, "HEAD "+tc.target, tc.status, "")
		head.has(t, "HEAD "+tc.target, "Content-Type: "+tc.ctype, "Content-Length: "+fmt.Sprint(len(got.body)), "Etag: "+got.header.Get("Etag"))
		if len(head.body) > 0 {
			t.Errorf("HEAD %s has a body", tc.target)
		}
	}
	h.get(t, "/").has(t, "/", "Cache-Control: public, max-age=0, must-revalidate", "X-Frame-Options: SAMEORIGIN", "X-Robots-Tag:", "X-Devpilot-Release: 1", "Accept-Ranges: bytes")
}

func TestServe_redirectsStayOnTheSite(t *testing.T) {
	h := newHouse(t)
	h.write(t, 1, "public/docs/index.html", "docs")
	h.write(t, 1, "public/x/evil.example/index.html", "x")
	h.write(t, 1, "public/javascript:alert(1)/index.html", "x")
	for target, want := range map[string]string{
		"/docs": "./docs/", "/docs?a=//b&c": "./docs/?a=//b&c", "/x/evil.example": "./evil.example/", "/javascript:alert(1)": "./javascript:alert%281%29/",
	} {
		got := h.get(t, target)
		got.want(t, target, 301, "")
		got.has(t, target, "Location: "+want, "Cache-Control: public, max-age=0, must-revalidate", "Content-Length: 0")
	}
	for _, target := range []string{"//evil.example", "//docs", "//evil.example/..", "/\\evil.example", "/%5cevil.example", "/%2fevil.example"} {
		got := h.get(t, target)
		got.want(t, target, 400, "")
		got.has(t, target, "Location:")
	}
}

func TestServe_hostsAndMethods(t *testing.T) {
	h := newHouse(t)
	h.write(t, 1, "public/index.html", "one")
	h.write(t, 2, "public/index.html", "two")
	h.write(t, 3, "elsewhere/index.html", "three")
	for _, tc := range []struct {
		host   string
		status int
		body   string
	}{
		{"web.default.localhost", 200, "one"}, {"WEB.default.localhost.:8083", 200, "one"}, {"2--web.default.localhost", 200, "two"},
		{"9--web.default.localhost", 410, "Release 9 of web is not kept"}, {"3--web.default.localhost", 404, "serve.directory"},
		{"unknown.default.localhost", 404, "Nothing is served here"}, {"private.default.localhost", 404, "Nothing is served here"},
		{"web.other.localhost", 404, "Nothing is served here"},
		{"localhost", 404, "number--app.workspace.localhost"}, {"127.0.0.1:8083", 404, "form app.workspace.localhost"}, {"[::1]:80", 404, "app.workspace.localhost"},
		{"evil.example", 404, "app.workspace.localhost"}, {"", 404, "app.workspace.localhost"},
	} {
		h.ask(t, "GET", tc.host, "/").want(t, tc.host, tc.status, tc.body)
	}
	h.ask(t, "GET", "2--web.default.localhost", "/").has(t, "numbered", "X-Robots-Tag: noindex", "X-Devpilot-Release: 2")
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "PROPFIND"} {
		got := h.ask(t, method, "web.default.localhost", "/")
		got.want(t, method, 405, "read-only")
		got.has(t, method, "Allow: GET, HEAD")
	}
	h.set(func() { h.fail = errors.New("the store is away") })
	got := h.get(t, "/")
	got.want(t, "trouble", 503, "Try again")
	got.has(t, "trouble", "Retry-After: 2", "Cache-Control: no-store")
	if bytes.Contains(got.body, []byte("store")) {
		t.Error("the page shows the error")
	}
	want := `
# HELP devpilot_deployer_live_requests_total Requests to served releases, by kind of site (live, numbered, elsewhere, none) and HTTP status.
# TYPE devpilot_deployer_live_requests_total counter
devpilot_deployer_live_requests_total{site="live",status="200"} 2
devpilot_deployer_live_requests_total{site="none",status="404"} 8
devpilot_deployer_live_requests_total{site="none",status="405"} 7
devpilot_deployer_live_requests_total{site="none",status="410"} 1
devpilot_deployer_live_requests_total{site="none",status="503"} 1
devpilot_deployer_live_requests_total{site="numbered",status="200"} 2
devpilot_deployer_live_requests_total{site="numbered",status="404"} 1
`
	if err := testutil.GatherAndCompare(h.registry, strings.NewReader(want), "devpilot_deployer_live_requests_total"); err != nil {
		t.Error(err)
	}
}

func TestServe_rollbackIsVisibleAtOnce(t *testing.T) {
	h := newHouse(t)
	for release, text := range map[int]string{1: "one", 2: "two"} {
		path := h.write(t, release, "public/index.html", text)
		h.write(t, release, "public/same.css", "a{}")
		when := time.Now().Add(time.Duration(release-3) * time.Hour)
		if err := os.Chtimes(path, when, when); err != nil {
			t.Fatal(err)
		}
	}
	h.set(func() { h.current = 2 })
	two, css := h.get(t, "/"), h.get(t, "/same.css")
	two.want(t, "release 2", 200, "two")
	h.set(func() { h.current = 1 })
	h.get(t, "/", "If-None-Match: "+two.header.Get("Etag")).want(t, "by ETag", 200, "one")
	h.get(t, "/", "If-Modified-Since: "+two.header.Get("Last-Modified")).want(t, "by an older date", 200, "one")
	h.get(t, "/same.css", "If-None-Match: "+css.header.Get("Etag")).want(t, "what did not change", 304, "")
	h.set(func() { h.current = 2 })
	h.get(t, "/", "If-None-Match: "+two.header.Get("Etag")).want(t, "forward again", 304, "")
}

func TestServe_conditionsAndRanges(t *testing.T) {
	h := newHouse(t)
	text := strings.Repeat("0123456789", 1000)
	h.write(t, 1, "public/data.txt", text)
	first := h.get(t, "/data.txt")
	tag, date := first.header.Get("Etag"), first.header.Get("Last-Modified")
	if len(tag) != 24 || tag[0] != '"' {
		t.Errorf("the ETag %s is not strong", tag)
	}
	for _, tc := range []struct {
		name    string
		headers []string
		status  int
		body    string // exactly
		rng     string
	}{
		{"known", []string{"If-None-Match: " + tag}, 304, "", ""},
		{"known, weakened by a proxy", []string{"If-None-Match: W/" + tag}, 304, "", ""},
		{"among others", []string{`If-None-Match: "a", ` + tag}, 304, "", ""},
		{"any", []string{"If-None-Match: *"}, 304, "", ""},
		{"another", []string{`If-None-Match: "a"`, "If-Modified-Since: " + date}, 200, text, ""},
		{"same date", []string{"If-Modified-Since: " + date}, 304, "", ""},
		{"later date", []string{"If-Modified-Since: " + time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)}, 200, text, ""},
		{"garbage date", []string{"If-Modified-Since: yesterday"}, 200, text, ""},
		{"must be another", []string{`If-Match: "a"`}, 412, "", ""},
		{"must be this", []string{"If-Match: " + tag}, 200, text, ""},
		{"range", []string{"Range: bytes=5-9"}, 206, "56789", "bytes 5-9/10000"},
		{"range on", []string{"Range: bytes=9995-"}, 206, "56789", "bytes 9995-9999/10000"},
		{"suffix", []string{"Range: bytes=-3"}, 206, "789", "bytes 9997-9999/10000"},
		{"range of the plain file, coding or not", []string{"Range: bytes=5-9", "Accept-Encoding: gzip, zstd"}, 206, "56789", "bytes 5-9/10000"},
		{"beyond", []string{"Range: bytes=10000-"}, 416, "", "bytes */10000"},
		{"garbage range", []string{"Range: bytes=a-b"}, 416, "", ""},
		{"range if the same", []string{"Range: bytes=0-1", "If-Range: " + tag}, 206, "01", "bytes 0-1/10000"},
		{"range if the same date", []string{"Range: bytes=0-1", "If-Range: " + date}, 206, "01", "bytes 0-1/10000"},
		{"range, but another", []string{"Range: bytes=0-1", `If-Range: "a"`}, 200, text, ""},
		{"range, but weak", []string{"Range: bytes=0-1", "If-Range: W/" + tag}, 200, text, ""},
		{"more than the file", []string{"Range: bytes=0-,0-,0-"}, 200, text, ""},
	} {
		got := h.get(t, "/data.txt", tc.headers...)
		got.want(t, tc.name, tc.status, "")
		got.has(t, tc.name, "Content-Range: "+tc.rng)
		if tc.status < 400 && string(got.body) != tc.body {
			t.Errorf("%s: body %.40q, want %.40q", tc.name, got.body, tc.body)
		}
		if tc.status == 304 {
			got.has(t, tc.name, "Etag: "+tag, "Cache-Control: public, max-age=0, must-revalidate", "Vary: Accept-Encoding", "Content-Type:", "Content-Length:")
		}
	}
	several := h.get(t, "/data.txt", "Range: bytes=0-2,9997-")
	several.want(t, "several", 206, "")
	_, params, err := mime.ParseMediaType(several.header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	parts := multipart.NewReader(bytes.NewReader(several.body), params["boundary"])
	for _, want := range []string{"012", "789"} {
		part, err := parts.NextPart()
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(part); err != nil || string(body) != want {
			t.Errorf("part %q, %v, want %q", body, err, want)
		}
	}
}

func TestServe_notFoundPageAndFallback(t *testing.T) {
	h := newHouse(t)
	h.write(t, 1, "public/index.html", "the app")
	h.write(t, 1, "public/404.html", "<p>our own 404")
	h.write(t, 1, "public/_headers", "/*\n  Cache-Control: immutable\n  X-Site: yes\n")
	got := h.get(t, "/missing", `If-None-Match: *`, "Range: bytes=0-1")
	got.want(t, "404.html", 404, "<p>our own 404")
	got.has(t, "404.html", "Cache-Control: public, max-age=0, must-revalidate", "X-Site: yes", "Content-Type: text/html; charset=utf-8", "Content-Length: 14", "Etag:")
	h.ask(t, "HEAD", "web.default.localhost", "/missing").has(t, "HEAD", "Content-Length: 14")

	h.set(func() { h.fallback = "index.html" })
	got = h.get(t, "/users/jane.doe")
	got.want(t, "fallback", 200, "the app")
	h.get(t, "/users/7", "If-None-Match: "+got.header.Get("Etag")).want(t, "fallback again", 304, "")
	h.get(t, "/assets/gone.js").want(t, "a missing script", 404, "our own 404")
	h.get(t, "/.env").want(t, "a hidden name", 200, "the app")
	h.set(func() { h.fallback = "not-there.html" })
	h.get(t, "/users/7").want(t, "missing fallback", 404, "our own 404")
	h.set(func() { h.fallback = "../../../../etc/passwd" })
	h.get(t, "/users/7").want(t, "hostile fallback", 404, "our own 404")
}

// Whether the fallback stands in for a path is decided by what is there and by who asks, never by a
// name that looks like a file's, nor by the machine's table of media types.
func TestServe_fallbackForNavigations(t *testing.T) {
	h := newHouse(t)
	h.write(t, 1, "public/index.html", "the app")
	h.write(t, 1, "public/app.js", "let a")
	h.set(func() { h.fallback = "index.html" })
	page := "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
	routes := []string{"/domain/bitbucket.org", "/u/first.last", "/v1.2", "/files/report.pdf", "/assets/gone.js", "/u/jane@example.com", "/a/b.ts", "/x.ics"}
	for _, path := range routes {
		h.get(t, path, page).want(t, path+" over http", 200, "the app")
		h.get(t, path, "Accept: text/html", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document").want(t, path, 200, "the app")
		got := h.get(t, path, "Accept: */*", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: script")
		got.want(t, path+" as a script", 404, "")
		got.has(t, path, "Vary: Accept, Sec-Fetch-Mode")
		h.get(t, path, "Accept: image/avif,image/webp", "Sec-Fetch-Mode: no-cors").want(t, path+" as an image", 404, "")
		h.get(t, path, "Accept: text/css").want(t, path+" as a style, over http", 404, "")
		h.get(t, path, "Accept: application/json", "Sec-Fetch-Mode: cors").want(t, path+" by a script", 404, "")
	}
	// Programs that take anything get the page, but for files of the kinds that we know.
	for path, status := range map[string]int{"/domain/bitbucket.org": 200, "/u/first.last": 200, "/v1.2": 200, "/users/7": 200, "/assets/gone.js": 404, "/files/report.PDF": 404} {
		h.get(t, path).want(t, path, status, "")
		h.get(t, path, "Accept: */*").want(t, path, status, "")
	}
	h.get(t, "/app.js", page, "Sec-Fetch-Mode: navigate").want(t, "a file that is there", 200, "let a")
}

// What a site says of its files does not hold for what stands in for one that is missing.
func TestServe_fallbackHasItsOwnCacheRule(t *testing.T) {
	h := newHouse(t)
	h.write(t, 1, "public/index.html", "the app")
	h.write(t, 1, "public/docs/index.html", "docs")
	h.write(t, 1, "public/404.html", "none")
	h.write(t, 1, "public/_headers", `
/assets/*
  Cache-Control: public, max-age=31536000, immutable
  Expires: Fri, 01 Jan 2100 00:00:00 GMT
  Content-Type: application/json
  Content-Disposition: attachment
  X-Route: assets
/docs
  CDN-Cache-Control: max-age=31536000
`)
	h.set(func() { h.fallback = "index.html" })
	for what, mode := range map[string]string{"fallback": "navigate", "404": "no-cors"} {
		got := h.get(t, "/assets/gone.1f2e.js", "Sec-Fetch-Mode: "+mode)
		got.has(t, what, "Cache-Control: public, max-age=0, must-revalidate", "Expires:", "Content-Disposition:", "X-Route: assets")
		if mode == "navigate" {
			got.want(t, what, 200, "the app")
			got.has(t, what, "Content-Type: text/html; charset=utf-8")
		}
	}
	h.get(t, "/docs").has(t, "redirect", "Cdn-Cache-Control:", "Location: ./docs/")
	h.write(t, 1, "public/_headers", "/index.html\n  Cache-Control: no-store\n/assets/*\n  Cache-Control: immutable\n")
	h.get(t, "/assets/gone", "Sec-Fetch-Mode: navigate").has(t, "the fallback's own", "Cache-Control: no-store")
}

func TestServe_headersFile(t *testing.T) {
	h := newHouse(t)
	h.write(t, 1, "public/index.html", "home")
	h.write(t, 1, "public/assets/a.1f2e.js", strings.Repeat("let a;", 400))
	path := h.write(t, 1, "public/_headers", `
/*
  X-Frame-Options: DENY
  X-Robots-Tag: all
  Set-Cookie: a=b
  Vary: Accept-Language
  Content-Length: 1
/assets/*
  ! Cache-Control
  Cache-Control: public, max-age=31536000, immutable
/assets/*.js
  Content-Type: text/plain
`)
	home := h.get(t, "/")
	home.want(t, "home", 200, "home")
	home.has(t, "home", "X-Frame-Options: DENY", "X-Robots-Tag: all", "Set-Cookie:", "Cache-Control: public, max-age=0, must-revalidate", "Vary: Accept-Language, Accept-Encoding")
	h.get(t, "/assets/a.1f2e.js", "Accept-Encoding: gzip").has(t, "asset", "Cache-Control: public, max-age=31536000, immutable",
		"Content-Type: text/plain", "Content-Encoding: gzip", "X-Content-Type-Options: nosniff")
	h.ask(t, "GET", "1--web.default.localhost", "/").has(t, "numbered", "X-Robots-Tag: noindex")
	h.get(t, "/_headers").want(t, "the file itself", 404, "")
	h.get(t, "/missing").has(t, "our page", "X-Frame-Options: DENY", "Cache-Control: no-store")

	if err := os.WriteFile(path, []byte("/*\n  X-New: 1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	h.get(t, "/").has(t, "changed in place", "X-New: 1", "X-Frame-Options: SAMEORIGIN")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(h.dir, "1", "public", "index.html"), path); err != nil {
		t.Fatal(err)
	}
	h.get(t, "/").has(t, "a link is no headers file", "X-New:")
}

func TestServe_aFileThatChangesIsCutOff(t *testing.T) {
	const fileSize = 6 << 20 // more than a sender's socket holds
	for name, change := range map[string]func(path string) error{
		"removed":       os.Remove, // by retention: the download goes on
		"truncated":     func(path string) error { return os.Truncate(path, 10) },
		"grown":         func(path string) error { return os.Truncate(path, 2*fileSize) },
		"other content": func(path string) error { return os.WriteFile(path, bytes.Repeat([]byte("b"), fileSize), 0o644) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			path := h.write(t, 1, "public/big.bin", strings.Repeat("a", fileSize))
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+h.addr+"/big.bin", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Host = "web.default.localhost"
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: smallBuffer}}
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if err := change(path); err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			if whole := len(body) == fileSize; whole != (err == nil) || whole != (name == "removed") {
				t.Errorf("%d bytes came, %v", len(body), err)
			}
			if n := len(body) - bytes.Count(body, []byte("a")); n > 0 {
				t.Errorf("%d bytes are from another state of the file", n)
			}
		})
	}
}

// smallBuffer connects with little room for what was sent and not yet read.
func smallBuffer(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return conn, conn.(*net.TCPConn).SetReadBuffer(16 << 10)
}

func TestNew_saysWhatIsWrong(t *testing.T) {
	if _, err := hosting.New(hosting.Config{Host: "localhost"}); err == nil || !strings.Contains(err.Error(), "Sites") {
		t.Errorf("without sites: %v", err)
	}
	if _, err := hosting.New(hosting.Config{Sites: &releases{}, Host: "localhost:80"}); err == nil || !strings.Contains(err.Error(), "host") {
		t.Errorf("with a port: %v", err)
	}
}
