package rpc_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"devpilot.io/bitbucket/pkg/rpc"
	"devpilot.io/bitbucket/pkg/testkit"
)

// limited serves the health of a server over TCP, with so many connections at a time.
func limited(t *testing.T, connections int) (address string) {
	t.Helper()
	server, err := rpc.NewServer(rpc.ServerConfig{Service: "auth", Keys: testkit.Keys(t), Policy: rpc.Policy{}, Logger: testkit.Logger(t).Logger})
	if err != nil {
		t.Fatal(err)
	}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- rpc.Serve(server, l, connections) }()
	t.Cleanup(func() {
		rpc.Stop(server, 5*time.Second)
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return l.Addr().String()
}

func healthOf(t *testing.T, address string) grpc_health_v1.HealthClient {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: time.Minute}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return grpc_health_v1.NewHealthClient(conn)
}

// Somebody opens more connections than a server takes, and says nothing or half of something over them. A
// service is called all the same, once those were given up.
func TestServe_halfOpenConnectionsAreGivenUp(t *testing.T) {
	t.Parallel()
	const most = 8
	address := limited(t, most)
	for i := range most + 2 {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if i%2 == 1 {
			_, _ = c.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM"))
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	resp, err := healthOf(t, address).Check(ctx, &grpc_health_v1.HealthCheckRequest{}, grpc.WaitForReady(true))
	if err != nil || resp.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Fatalf("beside half-open connections: %v, %v", resp, err)
	}
}

// Metadata of a call is bounded: it is read before it is known who calls.
func TestServer_largeMetadataIsRefused(t *testing.T) {
	t.Parallel()
	client := healthOf(t, limited(t, 8))
	for size, ok := range map[int]bool{32 << 10: true, 128 << 10: false} {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "x-large", strings.Repeat("x", size))
		_, err := client.Check(ctx, &grpc_health_v1.HealthCheckRequest{})
		if (err == nil) != ok {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}
