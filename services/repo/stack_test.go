package repo_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	repov1 "devpilot.io/bitbucket/proto/gen/devpilot/repo/v1"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/redisx"
	"devpilot.io/bitbucket/pkg/rpc"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/repo"
)

func TestMain(m *testing.M) { testkit.Main(m, func() error { return goleak.Find() }) }

const workspace = "acme-inc"

// stack is the service with everything around it: Bitbucket, Redis and the auth service. Calls go
// through the real interceptors.
type stack struct {
	t        testing.TB
	emulator *emulator.Server
	control  *emulator.Control
	redis    *testkit.RedisServer
	redisURL string // also while Redis is stopped
	auth     *fakeAuth
	keys     *identity.Keys
	keyset   *seal.Keyset
	clock    *clock
	logs     *testkit.Logs
}

// newStack is a stack of the test's own. Tests run one after the other: a call to Redis has 400 ms,
// which a test that lists ten thousand repositories beside them would take from the others.
func newStack(t testing.TB, scenario string) *stack {
	t.Helper()
	logs := testkit.Logger(t)
	server, err := emulator.Start("127.0.0.1:0", emulator.Options{Scenario: scenario, DataDir: testkit.FastDir(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Errorf("close emulator: %v", err)
		}
	})
	s := &stack{
		t: t, emulator: server, control: server.Control(), redis: testkit.Redis(t), keys: testkit.Keys(t), keyset: testkit.Keyset(t),
		clock: &clock{at: time.Now()}, logs: logs,
	}
	s.redisURL = s.redis.URL()
	s.auth = &fakeAuth{control: s.control, site: server.SiteURL(), api: server.APIURL(), connections: map[string]*connection{}}
	s.auth.connect(t, workspace, "jane-dev")
	return s
}

// replica is one process of the service.
type replica struct {
	repov1.RepoServiceClient                          // as the gateway, for a member of the workspace: see stack.ctx
	deployer                 repov1.RepoServiceClient // as the deployer
	server                   *testkit.GRPCServer
	stop                     func()
}

// replica starts one more process of the service.
func (s *stack) replica() *replica {
	s.t.Helper()
	client, err := redisx.ConnectWithin(s.redisURL, 30*time.Second)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = client.Close() })
	authServer := testkit.ServeGRPC(s.t, testkit.GRPCConfig{
		Service: "auth", Keys: s.keys, Policy: allMethods(authv1.AuthService_ServiceDesc, "repo"), Logger: s.logs.Logger,
		Register: func(r grpc.ServiceRegistrar) { authv1.RegisterAuthServiceServer(r, s.auth) },
	})
	transport := &http.Transport{Proxy: nil, MaxIdleConnsPerHost: 32}
	s.t.Cleanup(transport.CloseIdleConnections)
	service, err := repo.New(
		repo.Config{SiteURL: s.emulator.SiteURL(), APIURL: s.emulator.APIURL(), ClientID: emulator.DefaultConsumer().Key},
		repo.Deps{
			Logger: s.logs.Logger, Redis: client, Keyset: s.keyset, Auth: authv1.NewAuthServiceClient(authServer.Dial("repo")),
			Now: s.clock.now, HTTPClient: &http.Client{Transport: transport},
		})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- service.Run(ctx) }()
	var once sync.Once
	stop := func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				s.t.Errorf("Run: %v", err)
			}
		})
	}
	s.t.Cleanup(stop)
	if err := service.Ready(ctx); err != nil {
		s.t.Fatalf("Ready: %v", err)
	}
	server := testkit.ServeGRPC(s.t, testkit.GRPCConfig{
		Service: "repo", Keys: s.keys, Policy: repo.Policy, Register: service.Register, Logger: s.logs.Logger,
	})
	return &replica{
		RepoServiceClient: repov1.NewRepoServiceClient(server.Dial("gateway")),
		deployer:          repov1.NewRepoServiceClient(server.Dial("deployer")),
		server:            server, stop: stop,
	}
}

// allMethods lets the callers call every method of a service, without a user.
func allMethods(d grpc.ServiceDesc, callers ...string) rpc.Policy {
	p := rpc.Policy{}
	for _, m := range d.Methods {
		p["/"+d.ServiceName+"/"+m.MethodName] = rpc.Rule{Callers: callers}
	}
	return p
}

// ctx is a call of the gateway for a member of the workspace.
func (s *stack) ctx() context.Context { return s.as(identity.RoleMember, workspace) }

func (s *stack) as(role identity.Role, ws string) context.Context {
	ctx := context.Background()
	if t, ok := s.t.(interface{ Context() context.Context }); ok {
		ctx = t.Context()
	}
	return testkit.As(ctx, s.t, s.keys, identity.Identity{Role: role, Workspace: ws})
}

// list asks for the first page of up to a thousand.
func (s *stack) list(r *replica, change ...func(*repov1.ListRepositoriesRequest)) *repov1.ListRepositoriesResponse {
	s.t.Helper()
	resp, err := s.tryList(r, change...)
	if err != nil {
		s.t.Fatalf("ListRepositories: %v", err)
	}
	return resp
}

func (s *stack) tryList(r *replica, change ...func(*repov1.ListRepositoriesRequest)) (*repov1.ListRepositoriesResponse, error) {
	req := &repov1.ListRepositoriesRequest{Workspace: workspace, PageSize: 1000}
	for _, c := range change {
		c(req)
	}
	return r.ListRepositories(s.ctx(), req)
}

func query(q string) func(*repov1.ListRepositoriesRequest) {
	return func(r *repov1.ListRepositoriesRequest) { r.Query = q }
}

func refresh(r *repov1.ListRepositoriesRequest) { r.Refresh = true }

func pageOf(size int32, token string) func(*repov1.ListRepositoriesRequest) {
	return func(r *repov1.ListRepositoriesRequest) { r.PageSize, r.PageToken = size, token }
}

func names(resp *repov1.ListRepositoriesResponse) []string {
	var all []string
	for _, r := range resp.GetRepositories() {
		all = append(all, r.GetFullName())
	}
	return all
}

func reasons(resp *repov1.ListRepositoriesResponse) []string {
	var all []string
	for _, f := range resp.GetPartialFailures() {
		all = append(all, f.GetBitbucketWorkspace()+" "+f.GetReason())
	}
	return all
}

// do fails the test when a command to the emulator fails.
func (s *stack) do(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// calls counts REST calls since the counters were reset, by route name.
func (s *stack) calls() (total int, routes map[string]int) {
	s.t.Helper()
	counters, err := s.control.Counters(context.Background())
	s.do(err)
	routes = map[string]int{}
	for route, n := range counters.Routes {
		if len(route) > 8 && route[4:8] == "/2.0" || len(route) > 9 && route[5:9] == "/2.0" {
			routes[route] = n
			total += n
		}
	}
	return total, routes
}

func (s *stack) resetCalls() {
	s.t.Helper()
	s.do(s.control.ResetCounters(context.Background()))
}

// clock all but stands still, but for what a test adds: how long a busy machine takes is no matter. No
// two readings see the same time.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(time.Microsecond)
	return c.at
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// fakeAuth is the auth service as far as repo uses it. Its tokens are the emulator's.
type fakeAuth struct {
	authv1.UnimplementedAuthServiceServer
	control   *emulator.Control
	site, api string

	mu          sync.Mutex
	connections map[string]*connection
	connects    int
	issued      int
	renewed     int
	err         error // instead of a token
	narrowedTo  []string
}

// narrow narrows the workspaces to Bitbucket workspaces.
func (a *fakeAuth) narrow(ids ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.narrowedTo = ids
}

type connection struct{ id, account, token string }

// connect makes a new connection of the workspace.
func (a *fakeAuth) connect(t testing.TB, ws, account string) {
	t.Helper()
	pair, err := a.control.IssueTokens(context.Background(), account)
	if err != nil {
		t.Fatal(err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.connects++
	a.connections[ws] = &connection{id: fmt.Sprintf("connection-%d", a.connects), account: account, token: pair.AccessToken}
}

func (a *fakeAuth) disconnect(ws string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.connections, ws)
}

func (a *fakeAuth) fail(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.err = err
}

// accepted asks as auth does whether Bitbucket takes a token that it answered 401 for.
func (a *fakeAuth) accepted(ctx context.Context, token string) (bool, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.api+"/user", http.NoBody)
	if err != nil {
		return false, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return false, err
	}
	return res.StatusCode == http.StatusOK, res.Body.Close()
}

// IssueToken hands out the connection's token, a new one where the old is rejected everywhere.
func (a *fakeAuth) IssueToken(ctx context.Context, req *authv1.IssueTokenRequest) (*authv1.IssueTokenResponse, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.issued++
	if a.err != nil {
		return nil, a.err
	}
	c, ok := a.connections[req.GetWorkspace()]
	if !ok {
		return nil, apierr.New(apierr.ReasonNotConnected, "Bitbucket is not connected.")
	}
	if sum := sha256.Sum256([]byte(c.token)); string(sum[:]) == string(req.GetRejectedTokenSha256()) {
		if good, err := a.accepted(ctx, c.token); err != nil || good {
			return a.response(c), err
		}
		pair, err := a.control.IssueTokens(ctx, c.account)
		if err != nil {
			return nil, err
		}
		a.renewed++
		c.token = pair.AccessToken
	}
	return a.response(c), nil
}

func (a *fakeAuth) response(c *connection) *authv1.IssueTokenResponse {
	return &authv1.IssueTokenResponse{
		AccessToken: c.token, ConnectionId: c.id, SiteUrl: a.site, ApiUrl: a.api, ExpireTime: timestamppb.New(time.Now().Add(2 * time.Hour)),
		NarrowedTo: a.narrowedTo,
	}
}
