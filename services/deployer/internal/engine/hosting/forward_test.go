package hosting_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"devpilot.io/bitbucket/pkg/transport"
	"devpilot.io/bitbucket/services/deployer/internal/engine/hosting"
)

// place is one app's release, or where it is.
type place struct {
	dir       string
	elsewhere string
}

// worker is one server's worker, which serves app "web" of workspace "default".
type worker struct {
	address string
	metrics *prometheus.Registry
	asked   atomic.Int32 // requests that reached it

	mu    sync.Mutex
	web   place
	peers map[string][]string

	scheme string // of what the others announce
}

// Site implements hosting.Sites.
func (w *worker) Site(_ context.Context, workspace, app string, number int32) (hosting.Site, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case workspace != "default" || app != "web":
		return hosting.Site{}, hosting.ErrNotFound
	case w.web.elsewhere != "":
		return hosting.Site{}, &hosting.ElsewhereError{Server: w.web.elsewhere}
	}
	root, err := os.OpenRoot(w.web.dir)
	return hosting.Site{Release: root, Live: number == 0, Number: max(number, 1)}, err
}

func (w *worker) addresses(server string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := slices.Clone(w.peers[server])
	for i := range all {
		all[i] = w.scheme + all[i]
	}
	return all
}

func (w *worker) forwarded(result string) float64 {
	n, err := testutil.GatherAndCount(w.metrics, "devpilot_deployer_live_forwarded_total")
	if err != nil || n == 0 {
		return 0
	}
	families, err := w.metrics.Gather()
	if err != nil {
		return -1
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "devpilot_deployer_live_forwarded_total" && m.GetLabel()[0].GetValue() == result {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

func newWorker(t *testing.T, server string, web place) *worker {
	t.Helper()
	return newWorkerWith(t, server, web, nil)
}

// newWorkerWith makes one that has a certificate, and takes it that the others have; nil: none has.
func newWorkerWith(t *testing.T, server string, web place, certificate *transport.Certificate) *worker {
	t.Helper()
	w := &worker{web: web, metrics: prometheus.NewRegistry(), peers: map[string][]string{}, scheme: "http://"}
	if certificate != nil {
		w.scheme = "https://"
	}
	s, err := hosting.New(hosting.Config{Sites: w, Host: "live.example", Server: server, Addresses: w.addresses, Certificate: certificate, Registerer: w.metrics})
	if err != nil {
		t.Fatal(err)
	}
	handler := s.Handler()
	web2 := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.asked.Add(1)
		handler.ServeHTTP(rw, r)
	}))
	web2.Config.ErrorLog = s.HTTPServer().ErrorLog
	web2.Listener = s.Listener(web2.Listener)
	web2.Start()
	t.Cleanup(web2.Close)
	w.address = web2.Listener.Addr().String()
	return w
}

// pair is a worker of "a" without the release, and one of "b" that has it.
func pair(t *testing.T, files map[string]string) (a, b *worker) {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b = newWorker(t, "b", place{dir: dir})
	a = newWorker(t, "a", place{elsewhere: "b"})
	a.peers["b"] = []string{b.address}
	return a, b
}

type reply struct {
	status int
	text   string
	header http.Header
}

// ask sends a request as it stands, first line and headers; whole tells whether the answer was.
func ask(t *testing.T, address, request string) (r reply, whole bool) {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := fmt.Fprintf(conn, "%s\r\nConnection: close\r\n\r\n", strings.ReplaceAll(request, "\n", "\r\n")); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return reply{}, false
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, string(body), resp.Header}, err == nil
}

func get(t *testing.T, address string, headers ...string) reply {
	t.Helper()
	r, _ := ask(t, address, strings.Join(append([]string{"GET / HTTP/1.1\nHost: web.default.live.example"}, headers...), "\n"))
	return r
}

// TestForward_twoThatDisagreeDoNotLoop: each of two workers holds that the other one has the release.
func TestForward_twoThatDisagreeDoNotLoop(t *testing.T) {
	a, b := pair(t, nil)
	b.web = place{elsewhere: "a"}
	b.peers["a"] = []string{a.address}
	r := get(t, a.address)
	if r.status != http.StatusServiceUnavailable || r.header.Get("Retry-After") == "" || !strings.Contains(r.text, "moving to another server") {
		t.Errorf("%d %q", r.status, r.text)
	}
	if a.asked.Load() != 1 || b.asked.Load() != 1 || a.forwarded("misdirected") != 1 {
		t.Errorf("%d and %d requests, counted %v", a.asked.Load(), b.asked.Load(), a.forwarded("misdirected"))
	}
	// One that holds itself to be another server, as one whose address was given to two.
	a.web, a.peers["c"] = place{elsewhere: "c"}, []string{a.address}
	if r := get(t, a.address); r.status != http.StatusBadGateway || a.asked.Load() != 3 {
		t.Errorf("%d %q after %d requests", r.status, r.text, a.asked.Load())
	}
}

// TestForward_whatAVisitorSaysDecidesNothing: neither host, nor target, nor what workers say to each other.
func TestForward_whatAVisitorSaysDecidesNothing(t *testing.T) {
	a, b := pair(t, map[string]string{"index.html": "of b"})
	var strangers atomic.Int32
	stranger := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { strangers.Add(1) }))
	t.Cleanup(stranger.Close)
	other := stranger.Listener.Addr().String()
	const host = "\nHost: web.default.live.example"
	for name, c := range map[string]struct {
		request string
		status  int
	}{
		"as it is":                  {"GET / HTTP/1.1" + host, 200},
		"forwarded headers":         {"GET / HTTP/1.1" + host + "\nX-Forwarded-Host: other.default.live.example\nForwarded: host=" + other + "\nX-Forwarded-For: 10.0.0.1", 200},
		"to its own server":         {"GET / HTTP/1.1" + host + "\nX-Devpilot-Forwarded-To: a", 421},
		"to the other":              {"GET / HTTP/1.1" + host + "\nX-Devpilot-Forwarded-To: b", 421},
		"to an address":             {"GET / HTTP/1.1" + host + "\nX-Devpilot-Forwarded-To: " + other, 421},
		"hidden by Connection":      {"GET / HTTP/1.1" + host + "\nConnection: X-Devpilot-Forwarded-To", 200},
		"an answer":                 {"GET / HTTP/1.1" + host + "\nX-Devpilot-Answered-By: b", 200},
		"another host":              {"GET / HTTP/1.1\nHost: " + other, 404},
		"another app":               {"GET / HTTP/1.1\nHost: secret.default.live.example", 404},
		"another workspace":         {"GET / HTTP/1.1\nHost: web.other.live.example", 404},
		"an absolute target":        {"GET http://" + other + "/ HTTP/1.1" + host, 404},
		"an absolute target of its": {"GET http://user:word@web.default.live.example/ HTTP/1.1\nHost: " + other, 200},
		"two slashes":               {"GET //" + other + "/ HTTP/1.1" + host, 400},
		"an authority":              {"CONNECT " + other + " HTTP/1.1" + host, 405},
		"an upgrade":                {"GET / HTTP/1.1" + host + "\nUpgrade: websocket\nConnection: Upgrade", 200},
		"a body":                    {"GET / HTTP/1.1" + host + "\nContent-Length: 2\n\nxy", 200},
		"another method":            {"POST / HTTP/1.1" + host + "\nContent-Length: 0", 405},
	} {
		r, _ := ask(t, a.address, c.request)
		if r.status != c.status || r.status == 200 && r.text != "of b" {
			t.Errorf("%s: %d %q, want %d", name, r.status, r.text, c.status)
		}
		for key := range r.header {
			if r.status != 421 && strings.HasPrefix(key, "X-Devpilot-") && key != "X-Devpilot-Release" {
				t.Errorf("%s: a visitor is told %s", name, key)
			}
		}
	}
	if strangers.Load() != 0 {
		t.Errorf("%d requests went to an address that a visitor chose", strangers.Load())
	}
	if r := get(t, b.address, "X-Devpilot-Forwarded-To: b"); r.status != 200 || r.text != "of b" {
		t.Errorf("what the other worker has itself: %d %q", r.status, r.text)
	}
}

// TestForward_passesOnWhatASiteNeeds, and keeps what is between a visitor and the host.
func TestForward_passesOnWhatASiteNeeds(t *testing.T) {
	a, _ := pair(t, nil)
	got := make(chan *http.Request, 1)
	peer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got <- r
		w.Header().Set("X-Devpilot-Answered-By", "b")
	}))
	t.Cleanup(peer.Close)
	a.peers["b"] = []string{peer.Listener.Addr().String()}
	r, _ := ask(t, a.address, "GET /a%20b/?x=1;y&%zz HTTP/1.1\nHost: WEB.default.live.example:8083\nRange: bytes=1-2\nIf-Range: \"x\"\nAccept-Encoding: br\nCookie: session=secret\n"+
		"Authorization: Bearer secret\nProxy-Authorization: Basic secret\nX-Forwarded-For: 192.0.2.9\nX-Forwarded-Host: evil\nX-Forwarded-Proto: gopher\nForwarded: for=evil")
	if r.status != 200 {
		t.Fatalf("%d %q", r.status, r.text)
	}
	in := <-got
	if in.Host != "WEB.default.live.example:8083" || in.RequestURI != "/a%20b/?x=1;y&%zz" {
		t.Errorf("%s %s", in.Host, in.RequestURI)
	}
	for key, want := range map[string]string{
		"Range": "bytes=1-2", "If-Range": `"x"`, "Accept-Encoding": "br", "X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": "WEB.default.live.example:8083", "X-Forwarded-Proto": "http",
		"Cookie": "", "Authorization": "", "Proxy-Authorization": "", "Forwarded": "", "X-Devpilot-Forwarded-To": "b",
	} {
		if have := strings.Join(in.Header.Values(key), ", "); have != want {
			t.Errorf("%s: %q, want %q", key, have, want)
		}
	}
}

// TestForward_anyWorkerOfTheServerDoes: the dead ones are left out, and who is not a worker of that server is
// not believed.
func TestForward_anyWorkerOfTheServerDoes(t *testing.T) {
	a, b := pair(t, map[string]string{"index.html": "of b"})
	dead := deadAddress(t)
	impostor := newWorker(t, "x", place{dir: t.TempDir()})
	liar := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "not yours") }))
	t.Cleanup(liar.Close)
	a.peers["b"] = []string{dead, liar.Listener.Addr().String(), b.address}
	for range 6 {
		if r := get(t, a.address); r.status != 200 || r.text != "of b" {
			t.Errorf("%d %q", r.status, r.text)
		}
	}
	for name, c := range map[string]struct {
		addresses []string
		status    int
		result    string
	}{
		"nobody":         {nil, 503, "away"},
		"dead":           {[]string{dead}, 503, "away"},
		"a stranger":     {[]string{liar.Listener.Addr().String()}, 502, "stranger"},
		"another server": {[]string{impostor.address}, 502, "stranger"},
	} {
		a.mu.Lock()
		a.peers["b"] = c.addresses
		a.mu.Unlock()
		before := a.forwarded(c.result)
		r := get(t, a.address)
		if r.status != c.status || r.header.Get("Retry-After") == "" || r.header.Get("Cache-Control") != "no-store" || strings.Contains(r.text, "127.0.0.1") || strings.Contains(r.text, "not yours") {
			t.Errorf("%s: %d %v %q", name, r.status, r.header, r.text)
		}
		if a.forwarded(c.result) != before+1 {
			t.Errorf("%s is not counted as %s", name, c.result)
		}
	}
}

// TestForward_cutAnswersAreCut: who gets half a page must see that it is half.
func TestForward_cutAnswersAreCut(t *testing.T) {
	a, _ := pair(t, nil)
	peer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Devpilot-Answered-By", "b")
		w.Header().Set("Content-Length", "1000000")
		_, _ = w.Write(make([]byte, 100_000))
		panic(http.ErrAbortHandler)
	}))
	t.Cleanup(peer.Close)
	a.peers["b"] = []string{peer.Listener.Addr().String()}
	if r, whole := ask(t, a.address, "GET / HTTP/1.1\nHost: web.default.live.example"); whole || r.status != 200 {
		t.Errorf("%d, %d bytes, whole %v", r.status, len(r.text), whole)
	}
	if a.forwarded("broken") != 1 {
		t.Error("not counted")
	}
}

// deadAddress is one at which nobody listens.
func deadAddress(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func TestCheckAddress(t *testing.T) {
	for _, good := range []string{"10.0.0.7:8083", "127.0.0.1:1", "worker-1:8083", "worker-1.workers.devpilot.svc.cluster.local:65535", "[2001:db8::1]:80", "Worker.example.:80"} {
		if err := hosting.CheckAddress(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{
		"", "worker", ":8083", "0.0.0.0:8083", "[::]:8083", "worker:0", "worker:http", "worker:65536", "worker:-1", "worker:+80", "worker:080", "http://worker:80", "worker:80/path", "user@worker:80",
		"a b:80", "worker:80:90", "224.0.0.1:80", "255.255.255.255:80", "worker..x:80", "under_score:80", "2001:db8::1:80", "worker:80?x", "x\n:80",
	} {
		if err := hosting.CheckAddress(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestAddressOf(t *testing.T) {
	for listens, want := range map[string]string{"127.0.0.1:8083": "127.0.0.1:8083", "[::ffff:10.0.0.7]:80": "10.0.0.7:80", "[2001:db8::1]:80": "[2001:db8::1]:80"} {
		l, err := net.ResolveTCPAddr("tcp", listens)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := hosting.AddressOf(l); got != want || err != nil {
			t.Errorf("%s: %s %v, want %s", listens, got, err, want)
		}
	}
	for _, wildcard := range []net.IP{net.IPv4zero, net.IPv6zero, nil} {
		got, err := hosting.AddressOf(&net.TCPAddr{IP: wildcard, Port: 8083})
		if err != nil || hosting.CheckAddress(got) != nil || !strings.HasSuffix(got, ":8083") {
			t.Errorf("%v: %q %v", wildcard, got, err)
		}
	}
	if _, err := hosting.AddressOf(&net.UnixAddr{Name: "/run/x"}); err == nil {
		t.Error("a path is taken for an address")
	}
}
