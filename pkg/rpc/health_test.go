package rpc_test

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/rpc"
	"devpilot.io/bitbucket/pkg/testkit"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// full serves the fakes on a real port with all of our interceptors.
func full(t *testing.T, keys *identity.Keys, auth *fakeAuth, change ...func(*rpc.ServerConfig)) string {
	t.Helper()
	cfg := rpc.ServerConfig{Service: "auth", Keys: keys, Policy: open(), Logger: testkit.Logger(t).Logger}
	for _, f := range change {
		f(&cfg)
	}
	server, err := rpc.NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	authv1.RegisterAuthServiceServer(server, auth)
	deployerv1.RegisterDeployerServiceServer(server, &fakeDeployer{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		rpc.Stop(server, 5*time.Second)
		if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Errorf("serve: %v", err)
		}
	})
	return l.Addr().String()
}

// counting answers calls of both kinds and counts them.
func counting(n *atomic.Int32) *fakeAuth {
	return &fakeAuth{
		issue: func(context.Context, *authv1.IssueTokenRequest) (*authv1.IssueTokenResponse, error) {
			n.Add(1)
			return &authv1.IssueTokenResponse{}, nil
		},
		connect: func(context.Context, *authv1.ConnectIntegrationRequest) (*authv1.ConnectIntegrationResponse, error) {
			n.Add(1)
			return &authv1.ConnectIntegrationResponse{}, nil
		},
	}
}

func connectOnce(ctx context.Context, conn *grpc.ClientConn) error {
	_, err := authv1.NewAuthServiceClient(conn).ConnectIntegration(ctx, &authv1.ConnectIntegrationRequest{Workspace: "acme-inc"})
	return err
}

// A replica that says that it does not serve gets no calls, and gets them again once it serves.
func TestClient_callsReplicasThatSayTheyServe(t *testing.T) {
	t.Parallel()
	keys := testkit.Keys(t)
	var a, b atomic.Int32
	turned := health.NewServer()
	rpc.SetServing(turned, true)
	conn, err := rpc.Dial(rpc.ClientConfig{
		Service: "gateway", TargetService: "auth", Keys: keys,
		Target: full(t, keys, counting(&a)) + "," + full(t, keys, counting(&b), func(c *rpc.ServerConfig) { c.Health = turned }),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	both := func() error {
		if err := connectOnce(t.Context(), conn); err != nil {
			t.Fatal(err)
		}
		if a.Load() == 0 || b.Load() == 0 {
			return errors.New("one replica was never asked")
		}
		return nil
	}
	testkit.Eventually(t, 20*time.Second, both)
	rpc.SetServing(turned, false)
	// The news takes a moment; from then on nothing more comes.
	quiet := func() error {
		before := b.Load()
		for range 10 {
			if err := connectOnce(t.Context(), conn); err != nil {
				t.Fatalf("a call failed because one of two replicas does not serve: %v", err)
			}
		}
		if b.Load() != before {
			return errors.New("the replica that does not serve is called")
		}
		return nil
	}
	testkit.Eventually(t, 20*time.Second, quiet)
	a.Store(0)
	b.Store(0)
	rpc.SetServing(turned, true)
	testkit.Eventually(t, 20*time.Second, both)
}

// A service that is not open yet answers nothing, not even where its handler would: an idempotent call finds the replica
// that is, and one that is not idempotent has not begun.
func TestServer_keepsCallsOutUntilItIsOpen(t *testing.T) {
	t.Parallel()
	keys := testkit.Keys(t)
	var a, b atomic.Int32
	var ready atomic.Bool
	closed := full(t, keys, counting(&a), func(c *rpc.ServerConfig) { c.Open = ready.Load })
	alone, err := rpc.Dial(rpc.ClientConfig{Service: "gateway", TargetService: "auth", Keys: keys, Target: closed})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = alone.Close() })
	for name, err := range map[string]error{"idempotent": issue(t.Context(), alone, "acme-inc"), "not": connectOnce(t.Context(), alone), "stream": read(t.Context(), alone, "acme-inc")} {
		if !apierr.Has(err, apierr.ReasonServiceUnavailable) || a.Load() != 0 {
			t.Errorf("%s: %v, %d calls came in", name, err, a.Load())
		}
	}
	conn, err := rpc.Dial(rpc.ClientConfig{Service: "gateway", TargetService: "auth", Keys: keys, Target: closed + "," + full(t, keys, counting(&b))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	for range 8 { // more would use up what may be tried again
		if err := issue(t.Context(), conn, "acme-inc"); err != nil {
			t.Fatalf("beside a replica that is open: %v", err)
		}
	}
	if b.Load() != 8 || a.Load() != 0 {
		t.Errorf("%d calls came to the open replica and %d to the other", b.Load(), a.Load())
	}
	ready.Store(true)
	if err := connectOnce(t.Context(), alone); err != nil || a.Load() != 1 {
		t.Errorf("once open: %v, %d calls", err, a.Load())
	}
}
