package testkit

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/engine"
	"devpilot.io/bitbucket/pkg/stream"
)

// startTimeout bounds the start of any engine.
const startTimeout = 30 * time.Second

// NATSServer is an embedded NATS server with JetStream on a temporary directory and a TCP listener
// on a free loopback port.
type NATSServer struct {
	*engine.NATS
	t testing.TB
}

// NATS starts an embedded server for one test. Its canary is off, so that nothing but the test
// itself stops or restarts it.
func NATS(t testing.TB) *NATSServer {
	t.Helper()
	return NATSWith(t, engine.NATSConfig{CanaryInterval: -1})
}

// NATSWith is NATS with settings of the test's own; StoreDir and Listen are filled in when empty.
func NATSWith(t testing.TB, cfg engine.NATSConfig) *NATSServer {
	t.Helper()
	if cfg.StoreDir == "" {
		cfg.StoreDir = FastDir(t)
	}
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:0"
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	n, err := engine.StartNATS(ctx, cfg)
	if err != nil {
		t.Fatalf("start NATS: %v", err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Errorf("stop NATS: %v", err)
		}
	})
	return &NATSServer{NATS: n, t: t}
}

// URL is the nats:// URL of the server; it stays the same over Stop, Start and Restart.
func (s *NATSServer) URL() string { return s.ClientURL() }

// Connect opens a connection of its own over TCP, as services do, closed with the test.
func (s *NATSServer) Connect() (*nats.Conn, jetstream.JetStream) {
	s.t.Helper()
	return connect(s.t, s.URL())
}

// JS is Connect without the connection.
func (s *NATSServer) JS() jetstream.JetStream {
	s.t.Helper()
	_, js := s.Connect()
	return js
}

// Start brings the server back after Stop.
func (s *NATSServer) Start() {
	s.t.Helper()
	s.do("start", s.NATS.Start)
}

// Restart stops the server and starts it again on the same port and store.
func (s *NATSServer) Restart() {
	s.t.Helper()
	s.do("restart", s.NATS.Restart)
}

func (s *NATSServer) do(what string, f func(context.Context) error) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	if err := f(ctx); err != nil {
		s.t.Fatalf("%s NATS: %v", what, err)
	}
}

// JS starts an embedded server and connects to it: for tests that need no more.
func JS(t testing.TB) jetstream.JetStream {
	t.Helper()
	return NATS(t).JS()
}

func connect(t testing.TB, url string) (*nats.Conn, jetstream.JetStream) {
	t.Helper()
	nc, js, err := stream.Connect(url, "test")
	if err != nil {
		t.Fatalf("connect to NATS: %v", err)
	}
	t.Cleanup(nc.Close)
	return nc, js
}
