package allinone

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/test/bufconn"

	"devpilot.io/bitbucket/pkg/rpc"
	"devpilot.io/bitbucket/pkg/testkit"
)

// A product that says it is ready is called at once: it is not before its services know that they may call
// each other. What happens to a connection later is told by the calls over it.
func TestReachable_onceEveryServiceKnowsThatTheOthersServe(t *testing.T) {
	keys, logs := testkit.Keys(t), testkit.Logger(t)
	door := health.NewServer()
	rpc.SetServing(door, false)
	server, err := rpc.NewServer(rpc.ServerConfig{Service: "auth", Keys: keys, Policy: rpc.Policy{}, Logger: logs.Logger, Health: door})
	if err != nil {
		t.Fatal(err)
	}
	l := bufconn.Listen(1 << 16)
	go func() { _ = server.Serve(l) }()
	defer rpc.Stop(server, time.Second)
	conn, err := rpc.Dial(rpc.ClientConfig{
		Service: "gateway", TargetService: "auth", Keys: keys,
		Dialer: func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	p := &Product{conns: []*grpc.ClientConn{conn}}

	if err := p.reachable(t.Context()); err == nil || !strings.Contains(err.Error(), "not reached") {
		t.Fatalf("before anything is connected: %v", err)
	}
	for conn.GetState() != connectivity.TransientFailure { // it has heard that the other one does not serve
		if !conn.WaitForStateChange(t.Context(), conn.GetState()) {
			t.Fatal("the connection stays as it is")
		}
	}
	if err := p.reachable(t.Context()); err == nil {
		t.Fatal("a service that does not serve counts as reached")
	}
	rpc.SetServing(door, true)
	testkit.Eventually(t, time.Minute, func() error { return p.reachable(t.Context()) })
	rpc.SetServing(door, false)
	if err := p.reachable(t.Context()); err != nil {
		t.Errorf("later: %v", err)
	}
}
