package rpc_test

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/rpc"
	"devpilot.io/bitbucket/pkg/testkit"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// fakeAuth and fakeDeployer answer as the test says: one unary call that is idempotent, one that is
// not, one stream.
type fakeAuth struct {
	authv1.UnimplementedAuthServiceServer
	issue   func(context.Context, *authv1.IssueTokenRequest) (*authv1.IssueTokenResponse, error)
	connect func(context.Context, *authv1.ConnectIntegrationRequest) (*authv1.ConnectIntegrationResponse, error)
}

func (f *fakeAuth) IssueToken(ctx context.Context, r *authv1.IssueTokenRequest) (*authv1.IssueTokenResponse, error) {
	return f.issue(ctx, r)
}

func (f *fakeAuth) ConnectIntegration(ctx context.Context, r *authv1.ConnectIntegrationRequest) (*authv1.ConnectIntegrationResponse, error) {
	return f.connect(ctx, r)
}

type fakeDeployer struct {
	deployerv1.UnimplementedDeployerServiceServer
	readLog func(*deployerv1.ReadLogRequest, grpc.ServerStreamingServer[deployerv1.ReadLogResponse]) error
}

func (f *fakeDeployer) ReadLog(r *deployerv1.ReadLogRequest, s grpc.ServerStreamingServer[deployerv1.ReadLogResponse]) error {
	return f.readLog(r, s)
}

const (
	issueToken = authv1.AuthService_IssueToken_FullMethodName
	connect    = authv1.AuthService_ConnectIntegration_FullMethodName
	readLog    = deployerv1.DeployerService_ReadLog_FullMethodName
)

// node is one server in memory that serves both fakes under the name "auth".
type node struct {
	t        *testing.T
	keys     *identity.Keys
	logs     *testkit.Logs
	registry *prometheus.Registry
	auth     *fakeAuth
	deployer *fakeDeployer
	server   *grpc.Server
	listener *bufconn.Listener
	dialed   int
	mu       sync.Mutex
}

func newNode(t *testing.T, policy rpc.Policy) *node {
	t.Helper()
	n := &node{t: t, keys: testkit.Keys(t), logs: testkit.Logger(t), registry: prometheus.NewRegistry(), auth: &fakeAuth{}, deployer: &fakeDeployer{}}
	n.auth.issue = func(context.Context, *authv1.IssueTokenRequest) (*authv1.IssueTokenResponse, error) {
		return &authv1.IssueTokenResponse{}, nil
	}
	n.auth.connect = func(context.Context, *authv1.ConnectIntegrationRequest) (*authv1.ConnectIntegrationResponse, error) {
		return &authv1.ConnectIntegrationResponse{}, nil
	}
	n.deployer.readLog = func(_ *deployerv1.ReadLogRequest, s grpc.ServerStreamingServer[deployerv1.ReadLogResponse]) error {
		return s.Send(&deployerv1.ReadLogResponse{})
	}
	var err error
	n.server, err = rpc.NewServer(rpc.ServerConfig{Service: "auth", Keys: n.keys, Policy: policy, Logger: n.logs.Logger, Registerer: n.registry})
	if err != nil {
		t.Fatal(err)
	}
	authv1.RegisterAuthServiceServer(n.server, n.auth)
	deployerv1.RegisterDeployerServiceServer(n.server, n.deployer)
	n.listener = bufconn.Listen(1 << 20)
	served := make(chan error, 1)
	go func() { served <- n.server.Serve(n.listener) }()
	t.Cleanup(func() {
		rpc.Stop(n.server, 5*time.Second)
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return n
}

func (n *node) dial(ctx context.Context, _ string) (net.Conn, error) {
	n.mu.Lock()
	n.dialed++
	n.mu.Unlock()
	return n.listener.DialContext(ctx)
}

// as connects as one of our services.
func (n *node) as(service string, change ...func(*rpc.ClientConfig)) *grpc.ClientConn {
	n.t.Helper()
	cfg := rpc.ClientConfig{Service: service, TargetService: "auth", Keys: n.keys, Logger: n.logs.Logger, Dialer: n.dial, Registerer: n.registry}
	for _, f := range change {
		f(&cfg)
	}
	conn, err := rpc.Dial(cfg)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// raw connects as somebody who has none of our interceptors.
func (n *node) raw() *grpc.ClientConn {
	n.t.Helper()
	conn, err := grpc.NewClient("passthrough:///raw", grpc.WithContextDialer(n.dial), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// open is a policy under which every service may call all of the three methods.
func open() rpc.Policy {
	all := rpc.Rule{Callers: testkit.Services}
	return rpc.Policy{issueToken: all, connect: all, readLog: all}
}

func issue(ctx context.Context, conn *grpc.ClientConn, workspace string) error {
	_, err := authv1.NewAuthServiceClient(conn).IssueToken(ctx, &authv1.IssueTokenRequest{Workspace: workspace})
	return err
}

func read(ctx context.Context, conn *grpc.ClientConn, workspace string) error {
	s, err := deployerv1.NewDeployerServiceClient(conn).ReadLog(ctx, &deployerv1.ReadLogRequest{Workspace: workspace, App: "web", Number: 1})
	if err != nil {
		return err
	}
	_, err = s.Recv()
	return err
}

// kinds runs a test for the unary call and for the stream: the chain must be the same.
func kinds(t *testing.T, f func(t *testing.T, call func(context.Context, *grpc.ClientConn, string) error)) {
	t.Run("unary", func(t *testing.T) { f(t, issue) })
	t.Run("stream", func(t *testing.T) { f(t, read) })
}

func member(ctx context.Context, t *testing.T, n *node, workspace string, role identity.Role) context.Context {
	return testkit.As(ctx, t, n.keys, identity.Identity{Subject: "user-1", Workspace: workspace, Role: role})
}
