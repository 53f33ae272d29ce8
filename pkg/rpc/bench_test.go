package rpc_test

import (
	"context"
	"log/slog"
	"net"
	"testing"

	"google.golang.org/grpc"

	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/rpc"
	"devpilot.io/bitbucket/pkg/testkit"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
)

// BenchmarkCall measures one call over loopback with everything on: two tokens verified, policy,
// validation, metrics; against a server and a client of grpc alone.
func BenchmarkCall(b *testing.B) {
	keys := testkit.Keys(b)
	ctx := testkit.As(b.Context(), b, keys, identity.Identity{Workspace: "acme-inc", Role: identity.RoleAdmin})
	full, err := rpc.NewServer(rpc.ServerConfig{Service: "auth", Keys: keys, Logger: slog.New(slog.DiscardHandler),
		Policy: rpc.Policy{issueToken: {Callers: []string{"gateway"}, MinRole: identity.RoleAdmin}}})
	if err != nil {
		b.Fatal(err)
	}
	for name, server := range map[string]*grpc.Server{"chain": full, "bare": grpc.NewServer()} {
		b.Run(name, func(b *testing.B) {
			authv1.RegisterAuthServiceServer(server, &fakeAuth{issue: func(context.Context, *authv1.IssueTokenRequest) (*authv1.IssueTokenResponse, error) {
				return &authv1.IssueTokenResponse{}, nil
			}})
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			go func() { _ = server.Serve(l) }()
			defer server.Stop()
			conn, err := rpc.Dial(rpc.ClientConfig{Service: "gateway", TargetService: "auth", Target: l.Addr().String(), Keys: keys})
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close()
			for b.Loop() {
				if err := issue(ctx, conn, "acme-inc"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
