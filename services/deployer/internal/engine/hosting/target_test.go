package hosting_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"devpilot.io/bitbucket/services/deployer/internal/engine/hosting"
)

// FuzzTarget: no request line gets what is beside the served directory or hidden in it, a redirect to
// elsewhere, or an error of the server.
func FuzzTarget(f *testing.F) {
	r := &releases{dir: f.TempDir(), current: 1, serve: "public"}
	for _, name := range []string{"secret.txt", "public/.env", "public/.git/config", "public/_headers"} {
		r.write(f, 1, name, "# "+secret)
	}
	r.write(f, 1, "public/index.html", "home")
	r.write(f, 1, "public/docs/index.html", "docs")
	for name, target := range map[string]string{"up": "..", "env": ".env", "docs/up": "../.."} {
		if err := os.Symlink(target, filepath.Join(r.dir, "1/public", name)); err != nil {
			f.Fatal(err)
		}
	}
	server, err := hosting.New(hosting.Config{Sites: r, Host: "localhost"})
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{
		"/", "/docs", "/docs?x", "//evil.example", "/up/secret.txt", "/docs/up/secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt", "/.env", "/%2eenv", "/env", "/.git/config",
		"/docs/../../secret.txt", "/docs/%2e%2e/%2e%2e/secret.txt", "/./.env", "/docs//..//.env", "/_headers", "/%5fheaders", "/\\..\\secret.txt", "/docs/up", "*", "/.well-known/../.env",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil || u.Host != "" {
			return
		}
		w := httptest.NewRecorder()
		server.Handler().ServeHTTP(w, &http.Request{Method: http.MethodGet, URL: u, Host: "web.default.localhost", Header: http.Header{}})
		if strings.Contains(w.Body.String(), secret) || w.Code >= 500 {
			t.Errorf("%q: status %d, body %q", target, w.Code, w.Body)
		}
		if location := w.Header().Get("Location"); location != "" {
			to, err := u.Parse(location)
			if err != nil || to.Host != "" || !strings.HasPrefix(location, "./") {
				t.Errorf("%q leads to %q", target, location)
			}
		}
	})
}

func TestServe_oneLinePerRequest(t *testing.T) {
	r := &releases{dir: t.TempDir(), current: 4, serve: "."}
	r.write(t, 7, "a.txt", "seven")
	var log bytes.Buffer
	server, err := hosting.New(hosting.Config{Sites: r, Host: "localhost", Logger: slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://7--web.default.localhost/a.txt?token="+secret, nil)
	server.Handler().ServeHTTP(httptest.NewRecorder(), req)
	var line map[string]any
	if err := json.Unmarshal(log.Bytes(), &line); err != nil {
		t.Fatalf("%v in %s", err, &log)
	}
	for key, want := range map[string]any{
		"level": "DEBUG", "workspace": "default", "app": "web", "deployment": 7.0, "path": "/a.txt", "http_method": "GET", "http_status": 200.0, "bytes": 5.0, "cut": false,
	} {
		if line[key] != want {
			t.Errorf("%s is %v, want %v", key, line[key], want)
		}
	}
	if strings.Contains(log.String(), secret) {
		t.Error("the query is in the log")
	}
}
