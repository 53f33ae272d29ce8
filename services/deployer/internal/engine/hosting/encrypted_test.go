package hosting_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/pkg/transport"
)

// wire passes connections on to an address, and keeps what was said.
type wire struct {
	net.Listener

	mu   sync.Mutex
	said bytes.Buffer
}

func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.said.Write(p)
}

func (w *wire) text() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.said.String()
}

func newWire(t *testing.T, address string) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{Listener: l}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp", address)
			if err != nil {
				_ = from.Close()
				continue
			}
			go func() { _, _ = io.Copy(io.MultiWriter(to, w), from); _ = to.Close() }()
			go func() { _, _ = io.Copy(io.MultiWriter(from, w), to); _ = from.Close() }()
		}
	}()
	return w
}

func certificateOf(t *testing.T, service string, authority *transport.Authority) *transport.Certificate {
	t.Helper()
	c, err := transport.Open(transport.Config{
		Files:   testkit.Certificate(t, t.TempDir(), service, time.Hour, authority, authority),
		Service: service, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// served is a worker of server "b" that has the release.
func served(t *testing.T, certificate *transport.Certificate) *worker {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "index.html"), []byte("of b"), 0o600); err != nil {
		t.Fatal(err)
	}
	return newWorkerWith(t, "b", place{dir: dir}, certificate)
}

// TestForward_isEncrypted: where the service has a certificate, nothing that a visitor of another server's release is
// told goes over the network in plain text, and both workers show that they are workers. Visitors say plain HTTP at
// the same address.
func TestForward_isEncrypted(t *testing.T) {
	authority := testkit.Authority(t)
	own := certificateOf(t, "deployer", authority)
	b := served(t, own)
	over := newWire(t, b.address)
	a := newWorkerWith(t, "a", place{elsewhere: "b"}, own)
	a.peers["b"] = []string{over.Addr().String()}
	for range 3 {
		if r := get(t, a.address); r.status != 200 || r.text != "of b" {
			t.Fatalf("%d %q", r.status, r.text)
		}
	}
	if said := over.text(); said == "" || strings.Contains(said, "of b") || strings.Contains(said, "HTTP/1.1") || strings.Contains(said, "live.example") {
		t.Errorf("in plain text, or not at all: %q", said)
	}
	if r := get(t, b.address); r.status != 200 || r.text != "of b" {
		t.Errorf("a visitor's plain request: %d %q", r.status, r.text)
	}

	// During a change to certificates some workers have none yet.
	without := newWorker(t, "a", place{elsewhere: "b"})
	without.scheme, without.peers["b"] = "https://", []string{b.address}
	if r := get(t, without.address); r.status != 200 || r.text != "of b" {
		t.Errorf("from a worker without a certificate: %d %q", r.status, r.text)
	}
	plain := served(t, nil)
	a.mu.Lock()
	a.scheme, a.peers["b"] = "http://", []string{plain.address}
	a.mu.Unlock()
	if r := get(t, a.address); r.status != 200 || r.text != "of b" {
		t.Errorf("from a worker that announces no encryption: %d %q", r.status, r.text)
	}
}

// TestForward_onlyToAndFromWorkers: whoever has another certificate is neither believed nor answered.
func TestForward_onlyToAndFromWorkers(t *testing.T) {
	authority := testkit.Authority(t)
	own := certificateOf(t, "deployer", authority)
	for name, other := range map[string]*transport.Certificate{
		"another service":   certificateOf(t, "repo", authority),
		"another authority": certificateOf(t, "deployer", testkit.Authority(t)),
	} {
		impostor := served(t, other)
		a := newWorkerWith(t, "a", place{elsewhere: "b"}, own)
		a.peers["b"] = []string{impostor.address}
		if r := get(t, a.address); r.status != 503 || strings.Contains(r.text, "of b") {
			t.Errorf("%s answers for the other server: %d %q", name, r.status, r.text)
		}
		if n := impostor.asked.Load(); n != 0 {
			t.Errorf("%s was told %d requests", name, n)
		}

		b := served(t, own)
		config := other.ClientConfig("deployer")
		config.InsecureSkipVerify = true //nolint:gosec // it is the server's check that is tried
		config.VerifyConnection = nil
		if c, err := tls.Dial("tcp", b.address, config); err == nil {
			_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: web.default.live.example\r\n\r\n")
			if answer, _ := io.ReadAll(c); bytes.Contains(answer, []byte("of b")) {
				t.Errorf("%s was answered", name)
			}
			_ = c.Close()
		}
		if n := b.asked.Load(); n != 0 {
			t.Errorf("%d requests of %s were taken", n, name)
		}
	}
}

// TestListener_whoSaysNothingHoldsUpNobody: a connection is looked at where it is served, not where all are accepted.
func TestListener_whoSaysNothingHoldsUpNobody(t *testing.T) {
	b := served(t, certificateOf(t, "deployer", testkit.Authority(t)))
	for range 3 {
		silent, err := net.Dial("tcp", b.address)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = silent.Close() }()
	}
	if r := get(t, b.address); r.status != 200 || r.text != "of b" {
		t.Errorf("%d %q", r.status, r.text)
	}
}
