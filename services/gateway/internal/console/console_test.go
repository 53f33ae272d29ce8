package console_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"

	"devpilot.io/bitbucket/services/gateway/internal/console"
	"devpilot.io/bitbucket/services/gateway/internal/pages"
)

var site = fstest.MapFS{
	"index.html":             {Data: []byte(`<script nonce="__CSP_NONCE__" src="/assets/main-1.js"></script><meta property="csp-nonce" nonce="__CSP_NONCE__">`)},
	"assets/main-1.js":       {Data: []byte("plain")},
	"assets/main-1.js.br":    {Data: []byte("brotli")},
	"assets/main-1.js.gz":    {Data: []byte("gzip")},
	"assets/style-1.css":     {Data: []byte("css")},
	"assets/odd.unknowntype": {Data: []byte("x")},
}

func newConsole(t *testing.T, files fstest.MapFS) *console.Console {
	t.Helper()
	p, err := pages.New()
	if err != nil {
		t.Fatal(err)
	}
	c, err := console.New(files, p, "http://localhost:8081")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func get(handler http.HandlerFunc, path string, header http.Header) *http.Response {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	for k, v := range header {
		r.Header[k] = v
	}
	w := httptest.NewRecorder()
	handler(w, r)
	return w.Result()
}

func body(t *testing.T, r *http.Response) string {
	t.Helper()
	content, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func TestServePage_eachAnswerHasItsOwnNonceAndNothingInline(t *testing.T) {
	t.Parallel()
	c := newConsole(t, site)
	nonce := regexp.MustCompile(`script-src 'self' 'nonce-([A-Za-z0-9+/=]{24})'`)
	seen := map[string]bool{}
	for range 3 {
		r := get(c.ServePage, "/w/default/apps", nil)
		policy := r.Header.Get("Content-Security-Policy")
		found := nonce.FindStringSubmatch(policy)
		if found == nil {
			t.Fatalf("the policy has no nonce: %s", policy)
		}
		if seen[found[1]] {
			t.Errorf("the nonce %s came twice", found[1])
		}
		seen[found[1]] = true
		page := body(t, r)
		if strings.Contains(page, "__CSP_NONCE__") || strings.Count(page, `nonce="`+found[1]+`"`) != 2 {
			t.Errorf("the page does not carry the nonce of its policy: %s", page)
		}
		if strings.Contains(policy, "unsafe") {
			t.Errorf("the policy allows something unsafe: %s", policy)
		}
		for _, want := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "img-src 'self' data: https: http://localhost:8081"} {
			if !strings.Contains(policy, want) {
				t.Errorf("the policy lacks %q: %s", want, policy)
			}
		}
		if got := r.Header.Get("Cache-Control"); got != "no-store" {
			t.Errorf("the page may be kept: %s", got)
		}
	}
}

func TestServePage_withoutABuiltConsoleSaysHowToBuildIt(t *testing.T) {
	t.Parallel()
	c := newConsole(t, fstest.MapFS{})
	if c.Built() {
		t.Error("an empty directory counts as a console")
	}
	r := get(c.ServePage, "/w/default/apps", nil)
	if page := body(t, r); r.StatusCode != http.StatusNotFound || !strings.Contains(page, "make console") {
		t.Errorf("answered %d with %s", r.StatusCode, page)
	}
}

func TestServeAsset(t *testing.T) {
	t.Parallel()
	c := newConsole(t, site)
	for _, tc := range []struct {
		name, path, accept string
		status             int
		encoding, content  string
	}{
		{"brotli where it is taken", "/assets/main-1.js", "gzip, deflate, br", 200, "br", "brotli"},
		{"gzip else", "/assets/main-1.js", "gzip", 200, "gzip", "gzip"},
		{"refused by quality", "/assets/main-1.js", "br;q=0, gzip;q=0.0", 200, "", "plain"},
		{"plain where nothing else is", "/assets/style-1.css", "br", 200, "", "css"},
		{"a name that is not there", "/assets/main-2.js", "br", 404, "", ""},
		{"a path that leads out", "/assets/../index.html", "", 404, "", ""},
		{"a kind that is not ours", "/assets/odd.unknowntype", "", 404, "", ""},
		{"a directory", "/assets/", "", 404, "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := get(c.ServeAsset, tc.path, http.Header{"Accept-Encoding": {tc.accept}})
			if r.StatusCode != tc.status || r.Header.Get("Content-Encoding") != tc.encoding {
				t.Fatalf("answered %d, %q", r.StatusCode, r.Header.Get("Content-Encoding"))
			}
			cached := strings.Contains(r.Header.Get("Cache-Control"), "immutable")
			if cached != (tc.status == 200) {
				t.Errorf("Cache-Control is %q", r.Header.Get("Cache-Control"))
			}
			if tc.status == 200 && body(t, r) != tc.content {
				t.Error("another content was sent")
			}
		})
	}
}
