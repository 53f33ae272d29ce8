package testkit

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"

	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/rpc"
)

// GRPCConfig describes a service to serve in memory.
type GRPCConfig struct {
	Service string
	Keys    *identity.Keys
	Policy  rpc.Policy
	// Register registers the service, like the Register method of every service.
	Register func(grpc.ServiceRegistrar)
	Logger   *slog.Logger // nil: a logger of the test's own
}

// GRPCServer is a service behind an in-memory listener, with the real chain of interceptors.
type GRPCServer struct {
	cfg      GRPCConfig
	listener *bufconn.Listener
	t        testing.TB
}

// ServeGRPC serves a service in memory as the product does, interceptors, policy check and all,
// until the test ends.
func ServeGRPC(t testing.TB, cfg GRPCConfig) *GRPCServer {
	t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = Logger(t).Logger
	}
	server, err := rpc.NewServer(rpc.ServerConfig{Service: cfg.Service, Keys: cfg.Keys, Policy: cfg.Policy, Logger: cfg.Logger})
	if err != nil {
		t.Fatalf("make the gRPC server of %s: %v", cfg.Service, err)
	}
	cfg.Register(server)
	if err := rpc.CheckPolicy(server, cfg.Policy); err != nil {
		t.Fatalf("policy of %s: %v", cfg.Service, err)
	}
	s := &GRPCServer{cfg: cfg, listener: bufconn.Listen(1 << 20), t: t}
	served := make(chan error, 1)
	go func() { served <- server.Serve(s.listener) }()
	t.Cleanup(func() {
		rpc.Stop(server, 5*time.Second)
		if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Errorf("serve %s: %v", cfg.Service, err)
		}
	})
	return s
}

// callTimeout bounds calls without a deadline of their own: the machine may be busy.
const callTimeout = time.Minute

// Dial connects as the service called caller ("gateway" for calls on behalf of users, see As).
func (s *GRPCServer) Dial(caller string) *grpc.ClientConn {
	s.t.Helper()
	conn, err := rpc.Dial(rpc.ClientConfig{
		Service: caller, TargetService: s.cfg.Service, Keys: s.cfg.Keys, Logger: s.cfg.Logger,
		Timeout: callTimeout,
		Dialer:  func(ctx context.Context, _ string) (net.Conn, error) { return s.listener.DialContext(ctx) },
	})
	if err != nil {
		s.t.Fatalf("dial %s as %s: %v", s.cfg.Service, caller, err)
	}
	s.t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			s.t.Errorf("close the connection to %s: %v", s.cfg.Service, err)
		}
	})
	return conn
}
