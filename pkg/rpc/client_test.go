package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/rpc"
	"devpilot.io/bitbucket/pkg/testkit"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// bare serves on a real port without any of our interceptors: what a client must expect from a
// broken network or a foreign proxy.
func bare(t *testing.T, auth authv1.AuthServiceServer) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	authv1.RegisterAuthServiceServer(s, auth)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return l.Addr().String()
}

func dial(t *testing.T, target string) *grpc.ClientConn {
	t.Helper()
	conn, err := rpc.Dial(rpc.ClientConfig{Service: "repo", TargetService: "auth", Target: target, Keys: testkit.Keys(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func TestClient_retriesUnavailableOnIdempotentMethodsOnly(t *testing.T) {
	var issued, connected atomic.Int32
	auth := &fakeAuth{
		issue: func(context.Context, *authv1.IssueTokenRequest) (*authv1.IssueTokenResponse, error) {
			if issued.Add(1) < 3 {
				return nil, status.Error(codes.Unavailable, "try again")
			}
			return &authv1.IssueTokenResponse{}, nil
		},
		connect: func(context.Context, *authv1.ConnectIntegrationRequest) (*authv1.ConnectIntegrationResponse, error) {
			connected.Add(1)
			return nil, status.Error(codes.Unavailable, "try again")
		},
	}
	conn := dial(t, bare(t, auth))
	if err := issue(t.Context(), conn, "acme-inc"); err != nil || issued.Load() != 3 {
		t.Errorf("idempotent: %v after %d attempts", err, issued.Load())
	}
	_, err := authv1.NewAuthServiceClient(conn).ConnectIntegration(t.Context(), &authv1.ConnectIntegrationRequest{Workspace: "acme-inc"})
	if !apierr.Has(err, apierr.ReasonServiceUnavailable) || connected.Load() != 1 {
		t.Errorf("not idempotent: %v after %d attempts", err, connected.Load())
	}
}

func TestClient_retriesNothingButUnavailable(t *testing.T) {
	var n atomic.Int32
	conn := dial(t, bare(t, &fakeAuth{issue: func(context.Context, *authv1.IssueTokenRequest) (*authv1.IssueTokenResponse, error) {
		n.Add(1)
		return nil, status.Error(codes.Internal, "x")
	}}))
	if err := issue(t.Context(), conn, "acme-inc"); !apierr.Has(err, apierr.ReasonInternal) || n.Load() != 1 {
		t.Errorf("%v after %d attempts", err, n.Load())
	}
}

// An answer that a handler gave is final: else a Bitbucket outage would be multiplied at every hop.
func TestClient_doesNotRetryWhatAHandlerAnswered(t *testing.T) {
	n := newNode(t, open())
	var calls atomic.Int32
	n.answer(func(context.Context) error {
		calls.Add(1)
		return apierr.New(apierr.ReasonBitbucketUnavailable, "Bitbucket does not answer.")
	})
	if err := issue(t.Context(), n.as("repo"), "acme-inc"); !apierr.Has(err, apierr.ReasonBitbucketUnavailable) || calls.Load() != 1 {
		t.Errorf("%v after %d calls", err, calls.Load())
	}
}

func TestClient_deadNeighbourIsServiceUnavailable(t *testing.T) {
	address := fmt.Sprint("127.0.0.1:", testkit.FreePort(t))
	conn := dial(t, address)
	err := issue(t.Context(), conn, "acme-inc")
	if e := apierr.From(err); e.Reason() != apierr.ReasonServiceUnavailable || strings.Contains(e.Message(), address) || !strings.Contains(e.Message(), `"auth"`) {
		t.Errorf("unary: %v", err)
	}
	if err := read(t.Context(), conn, "acme-inc"); !apierr.Has(err, apierr.ReasonServiceUnavailable) {
		t.Errorf("stream: %v", err)
	}
}

func TestClient_refusedIdentityIsOurFaultNotTheUsers(t *testing.T) {
	n := newNode(t, open())
	stranger := testkit.Keys(t)
	conn := n.as("repo", func(c *rpc.ClientConfig) { c.Keys = stranger })
	kinds(t, func(t *testing.T, call func(context.Context, *grpc.ClientConn, string) error) {
		err := call(t.Context(), conn, "acme-inc")
		if !apierr.Has(err, apierr.ReasonInternal) || !strings.Contains(err.Error(), "refused our identity") {
			t.Errorf("%v", err)
		}
	})
}

func TestClient_defaultDeadline(t *testing.T) {
	n := newNode(t, open())
	var left time.Duration
	n.answer(func(ctx context.Context) error {
		d, _ := ctx.Deadline()
		left = time.Until(d)
		return nil
	})
	if err := issue(t.Context(), n.as("repo"), "acme-inc"); err != nil || left > rpc.DefaultTimeout || left < rpc.DefaultTimeout/2 {
		t.Errorf("%v, %s left", err, left)
	}
	n.answer(func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
	conn := n.as("repo", func(c *rpc.ClientConfig) { c.Timeout = 100 * time.Millisecond })
	if err := issue(t.Context(), conn, "acme-inc"); !apierr.Has(err, apierr.ReasonTimeout) {
		t.Errorf("%v", err)
	}
}

func TestClient_ownCancelIsCanceled(t *testing.T) {
	n := newNode(t, open())
	entered := make(chan struct{})
	n.answer(func(ctx context.Context) error { close(entered); <-ctx.Done(); return ctx.Err() })
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-entered; cancel() }()
	if err := issue(ctx, n.as("repo"), "acme-inc"); !apierr.Has(err, apierr.ReasonCanceled) {
		t.Errorf("%v", err)
	}
}

func TestClient_tooLargeMessages(t *testing.T) {
	n := newNode(t, open())
	_, err := authv1.NewAuthServiceClient(n.as("repo")).IssueToken(t.Context(), &authv1.IssueTokenRequest{
		Workspace: "acme-inc", RejectedTokenSha256: make([]byte, rpc.MaxMessage+1),
	})
	if !apierr.Has(err, apierr.ReasonPayloadTooLarge) {
		t.Errorf("%v", err)
	}
}

func TestClient_listOfAddressesSpreadsAndSurvivesADeadReplica(t *testing.T) {
	var a, b atomic.Int32
	count := func(c *atomic.Int32) *fakeAuth {
		return &fakeAuth{issue: func(context.Context, *authv1.IssueTokenRequest) (*authv1.IssueTokenResponse, error) {
			c.Add(1)
			return &authv1.IssueTokenResponse{}, nil
		}}
	}
	dead := fmt.Sprint("127.0.0.1:", testkit.FreePort(t))
	conn := dial(t, bare(t, count(&a))+", "+dead+","+bare(t, count(&b)))
	testkit.Eventually(t, 10*time.Second, func() error {
		if err := issue(t.Context(), conn, "acme-inc"); err != nil {
			t.Errorf("a call failed because one of three replicas is dead: %v", err)
		}
		if a.Load() == 0 || b.Load() == 0 {
			return errors.New("one replica was never asked")
		}
		return nil
	})
}

func TestClient_streamEndsWithEOF(t *testing.T) {
	n := newNode(t, open())
	s, err := deployerv1.NewDeployerServiceClient(n.as("repo")).ReadLog(t.Context(), &deployerv1.ReadLogRequest{Workspace: "acme-inc", App: "web", Number: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("%v", err)
	}
}
