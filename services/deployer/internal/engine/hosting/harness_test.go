package hosting_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"devpilot.io/bitbucket/services/deployer/internal/engine/hosting"
)

// releases is a Sites whose releases are directories; "current" is exchanged under the visitors' feet.
type releases struct {
	dir string // holds one directory per release

	mu       sync.Mutex
	current  int32
	serve    string
	fallback string
	fail     error
	open     int               // sites that are not closed yet
	links    map[string]string // of shared directories, which lie below dir/shared
	closed   error             // what opening them says
	now      func() time.Time
}

func (r *releases) Site(_ context.Context, workspace, app string, number int32) (hosting.Site, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.fail != nil:
		return hosting.Site{}, fmt.Errorf("releases: %w", r.fail)
	case workspace != "default" || app == "unknown":
		return hosting.Site{}, fmt.Errorf("releases: %w", hosting.ErrNotFound)
	case app == "private":
		return hosting.Site{}, hosting.ErrNotServed
	}
	site := hosting.Site{Directory: r.serve, Live: number == 0, Number: number, Fallback: r.fallback}
	if number == 0 {
		site.Number = r.current
	}
	root, err := os.OpenRoot(filepath.Join(r.dir, fmt.Sprint(site.Number)))
	if err != nil {
		return hosting.Site{}, hosting.ErrGone
	}
	site.Release, site.Version = root, fmt.Sprintf("%d@0123abc", site.Number)
	failure := r.closed
	site.Shared = hosting.Shared{Links: r.links, Open: func() (*os.Root, error) {
		if failure != nil {
			return nil, failure
		}
		return os.OpenRoot(filepath.Join(r.dir, "shared"))
	}}
	r.open++
	site.Done = func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.open--
		_ = root.Close()
	}
	return site, nil
}

func (r *releases) set(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
}

// write makes a file of a release's served directory, old enough for its digest to be remembered.
func (r *releases) write(t testing.TB, release int, name, text string) string {
	t.Helper()
	path := filepath.Join(r.dir, fmt.Sprint(release), filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// house is a running server with its releases.
type house struct {
	*releases
	addr     string
	registry *prometheus.Registry
}

func newHouse(t testing.TB) *house {
	t.Helper()
	h := &house{releases: &releases{dir: t.TempDir(), current: 1, serve: "public"}, registry: prometheus.NewPedanticRegistry()}
	server, err := hosting.New(hosting.Config{Sites: h.releases, Host: "localhost", Registerer: h.registry, Now: func() time.Time {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.now != nil {
			return h.now()
		}
		return time.Now()
	}})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.addr = listener.Addr().String()
	srv := server.HTTPServer()
	served := make(chan error, 1)
	go func() { served <- srv.Serve(listener) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("serve: %v", err)
		}
		if h.open != 0 {
			t.Errorf("%d sites were not closed", h.open)
		}
	})
	return h
}

// answer is what came back, byte for byte.
type answer struct {
	status int
	header http.Header
	body   []byte
	err    error // of reading the body
}

// ask sends a request as it stands: no client cleans the target up.
func (h *house) ask(t testing.TB, method, host, target string, headers ...string) answer {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", h.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	request := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n", method, target, host)
	for _, line := range headers {
		request += line + "\r\n"
	}
	if _, err := io.WriteString(conn, request+"\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, body, err}
}

func (h *house) get(t testing.TB, target string, headers ...string) answer {
	t.Helper()
	return h.ask(t, "GET", "web.default.localhost", target, headers...)
}

// want compares status and a part of the body ("": none is looked for).
func (a answer) want(t testing.TB, what string, status int, body string) {
	t.Helper()
	if a.err != nil || a.status != status || !bytes.Contains(a.body, []byte(body)) {
		t.Errorf("%s: status %d, %v, body %.200q, want %d with %.80q", what, a.status, a.err, a.body, status, body)
	}
}

// has compares headers given as "Name: value"; "Name:" means that it must be absent.
func (a answer) has(t testing.TB, what string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ":")
		if got := strings.Join(a.header.Values(name), ", "); got != strings.TrimSpace(value) {
			t.Errorf("%s: %s is %q, want %q", what, name, got, strings.TrimSpace(value))
		}
	}
}
