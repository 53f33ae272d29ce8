package auth_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/pkg/engine"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	"devpilot.io/bitbucket/services/auth"
)

const publicURL = "http://devpilot.test:8080"

// timeout is how long anything may take that ends by itself: the machine may be busy.
const timeout = time.Minute

// stack is everything around the auth processes: stores, keys, and Bitbucket behind a gate.
type stack struct {
	t        *testing.T
	nats     *testkit.NATSServer
	natsDir  string
	redis    *testkit.RedisServer
	keyset   *seal.Keyset
	keys     *identity.Keys
	site     bitbucket.Site
	control  *emulator.Control
	emulator *emulator.Emulator
	gate     *gate
	logs     *testkit.Logs
	logger   *slog.Logger // the processes'; logs.Logger, or silent where there is too much to say
	ahead    atomic.Int64 // how much later it is for our processes than for Bitbucket
}

// gate stands between the processes and the emulator. After the emulator has answered a refresh,
// and before the answer goes out, onRefresh is called with the name of the process that asked.
type gate struct {
	next http.Handler
	mu   sync.Mutex
	// onRefresh may block; false loses the answer.
	onRefresh func(process string) bool
	// onExchange is called before a code is exchanged.
	onExchange func()
	// hide are fields that the token endpoint sends under a name that nobody knows.
	hide []string
	// noScopeHeader takes X-OAuth-Scopes from the answers of the API.
	noScopeHeader bool
}

const processHeader = "X-Test-Process"

func (g *gate) set(f func(g *gate)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f(g)
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	hook, hide, exchange, noScopes := g.onRefresh, g.hide, g.onExchange, g.noScopeHeader
	g.mu.Unlock()
	if r.URL.Path != "/site/oauth2/access_token" {
		if noScopes {
			w = scopeless{w}
		}
		g.next.ServeHTTP(w, r)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	form, _ := url.ParseQuery(string(body))
	if form.Get("grant_type") == "authorization_code" && exchange != nil {
		exchange()
	}
	rec := httptest.NewRecorder()
	g.next.ServeHTTP(rec, r)
	if form.Get("grant_type") == "refresh_token" && hook != nil && !hook(r.Header.Get(processHeader)) {
		panic(http.ErrAbortHandler)
	}
	for k, v := range rec.Header() {
		w.Header()[k] = v
	}
	answer := rec.Body.Bytes()
	for _, field := range hide {
		answer = bytes.ReplaceAll(answer, []byte(`"`+field+`"`), []byte(`"hidden_`+field+`"`))
		w.Header().Del("Content-Length")
	}
	w.WriteHeader(rec.Code)
	_, _ = w.Write(answer)
}

// scopeless drops one header.
type scopeless struct{ http.ResponseWriter }

func (s scopeless) WriteHeader(status int) {
	s.Header().Del("X-OAuth-Scopes")
	s.ResponseWriter.WriteHeader(status)
}

// newStack is a stack of its own for a test that runs beside others.
func newStack(t *testing.T, opts emulator.Options) *stack {
	t.Helper()
	t.Parallel()
	return newStackAlone(t, opts)
}

func newStackAlone(t *testing.T, opts emulator.Options) *stack {
	t.Helper()
	s := &stack{t: t, natsDir: testkit.FastDir(t), redis: testkit.Redis(t), keyset: testkit.Keyset(t), keys: testkit.Keys(t), logs: testkit.Logger(t)}
	s.logger = s.logs.Logger
	s.nats = testkit.NATSWith(t, engine.NATSConfig{StoreDir: s.natsDir, CanaryInterval: -1})
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	opts.SiteURL = "http://" + listener.Addr().String()
	if opts.Scenario == "" {
		opts.Scenario = "sample"
	}
	if opts.DataDir == "" {
		opts.DataDir = testkit.FastDir(t)
	}
	opts.Consumer.CallbackURL = publicURL + "/oauth/bitbucket/callback"
	if s.emulator, err = emulator.New(opts); err != nil {
		t.Fatal(err)
	}
	s.gate = &gate{next: s.emulator.Handler()}
	server := &http.Server{Handler: s.gate, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() {
		_ = server.Close()
		if err := s.emulator.Close(); err != nil {
			t.Errorf("close the emulator: %v", err)
		}
	})
	s.control = s.emulator.Control()
	s.site, err = bitbucket.NewSite(s.emulator.SiteURL(), s.emulator.APIURL())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *stack) config() auth.Config {
	c := emulator.DefaultConsumer()
	return auth.Config{
		PublicURL: publicURL, Site: s.site, ClientID: c.Key, ClientSecret: seal.NewSecret(c.Secret),
		Timing: auth.Timing{Scan: 50 * time.Millisecond, Stagger: time.Millisecond},
	}
}

// instance is one auth process in this one, with connections of its own.
type instance struct {
	*auth.Service
	name     string
	gateway  authv1.AuthServiceClient // for calls on behalf of users
	repo     authv1.AuthServiceClient // for calls of the repo service
	grpc     *testkit.GRPCServer
	registry *prometheus.Registry
	nc       *nats.Conn
	stop     func() error // ends Run; nil on a clean end
}

// named adds the process's name to its requests, for the gate.
type named struct {
	name string
	base http.RoundTripper
}

func (n named) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set(processHeader, n.name)
	return n.base.RoundTrip(r)
}

func (s *stack) start(name string, change ...func(*auth.Config)) *instance {
	s.t.Helper()
	nc, js := s.nats.Connect()
	i := s.launch(name, nc, js, change...)
	testkit.Eventually(s.t, timeout, func() error { return i.Ready(s.t.Context()) })
	return i
}

// launchDisconnected starts a process while NATS is away.
func (s *stack) launchDisconnected(name string) *instance {
	s.t.Helper()
	nc, js, err := stream.Connect(s.nats.URL(), name, nats.RetryOnFailedConnect(true))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(nc.Close)
	return s.launch(name, nc, js)
}

// launch does not wait for readiness.
func (s *stack) launch(name string, nc *nats.Conn, js jetstream.JetStream, change ...func(*auth.Config)) *instance {
	s.t.Helper()
	cfg := s.config()
	for _, f := range change {
		f(&cfg)
	}
	i := &instance{name: name, registry: prometheus.NewRegistry(), nc: nc}
	transport := bitbucket.NewTransport()
	s.t.Cleanup(transport.CloseIdleConnections)
	var err error
	i.Service, err = auth.New(cfg, auth.Deps{
		Logger: s.logger, JS: js, Redis: s.redis.Client(), Keyset: s.keyset, Registerer: i.registry,
		HTTPClient: &http.Client{Transport: named{name, transport}},
		Now:        func() time.Time { return time.Now().Add(time.Duration(s.ahead.Load())) },
	})
	if err != nil {
		s.t.Fatal(err)
	}
	i.grpc = testkit.ServeGRPC(s.t, testkit.GRPCConfig{
		Service: "auth", Keys: s.keys, Policy: auth.Policy, Logger: s.logger,
		Register: func(r grpc.ServiceRegistrar) { i.Register(r) },
	})
	i.gateway, i.repo = authv1.NewAuthServiceClient(i.grpc.Dial("gateway")), authv1.NewAuthServiceClient(i.grpc.Dial("repo"))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- i.Run(ctx) }()
	i.stop = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(timeout):
			return fmt.Errorf("auth process %s did not stop", name)
		}
	})
	s.t.Cleanup(func() {
		if err := i.stop(); err != nil && !s.t.Failed() {
			s.t.Logf("stopping %s: %v", name, err)
		}
	})
	return i
}

func (s *stack) as(workspace string, role identity.Role, subject string) context.Context {
	return testkit.As(s.t.Context(), s.t, s.keys, identity.Identity{Subject: subject, Workspace: workspace, Role: role})
}

func (s *stack) admin(workspace string) context.Context {
	return s.as(workspace, identity.RoleAdmin, "jane")
}

// begun is a connect on its way to Bitbucket.
type begun struct {
	workspace    string
	authorizeURL string
	bindings     map[string]string
}

// begin takes a connect as far as Bitbucket's consent page.
func (s *stack) begin(i *instance, workspace string) begun {
	s.t.Helper()
	return s.beginAs(i, s.admin(workspace), workspace, false)
}

// beginAs is begin as somebody, who may take apps that stop.
func (s *stack) beginAs(i *instance, ctx context.Context, workspace string, evenIfAppsStop bool) begun {
	s.t.Helper()
	c, err := i.gateway.ConnectIntegration(ctx, &authv1.ConnectIntegrationRequest{Workspace: workspace, ReturnPath: "/settings/integrations", EvenIfAppsStop: evenIfAppsStop})
	if err != nil {
		s.t.Fatal(err)
	}
	start, err := url.Parse(c.GetAuthorizeUrl())
	if err != nil {
		s.t.Fatal(err)
	}
	a, err := i.gateway.BeginAuthorization(ctx, &authv1.BeginAuthorizationRequest{Workspace: workspace, Handshake: start.Query().Get("handshake")})
	if err != nil {
		s.t.Fatal(err)
	}
	return begun{workspace, a.GetAuthorizeUrl(), map[string]string{a.GetBindingName(): a.GetBinding()}}
}

// answer presses the button at Bitbucket and returns the request that the gateway makes of the
// redirect.
func (s *stack) answer(b begun, account string, grant bool) *authv1.CompleteAuthorizationRequest {
	s.t.Helper()
	location, err := s.control.Consent(s.t.Context(), b.authorizeURL, account, grant)
	if err != nil {
		s.t.Fatal(err)
	}
	u, err := url.Parse(location)
	if err != nil {
		s.t.Fatal(err)
	}
	q := u.Query()
	return &authv1.CompleteAuthorizationRequest{
		Workspace: b.workspace, State: q.Get("state"), Code: q.Get("code"), Error: q.Get("error"), ErrorDescription: q.Get("error_description"), Bindings: b.bindings,
	}
}

// connect connects the workspace as the account, whole way.
func (s *stack) connect(i *instance, workspace, account string) *authv1.Integration {
	s.t.Helper()
	done, err := i.gateway.CompleteAuthorization(s.admin(workspace), s.answer(s.begin(i, workspace), account, true))
	if err != nil {
		s.t.Fatal(err)
	}
	return done.GetIntegration()
}

func (s *stack) get(i *instance, workspace string) *authv1.Integration {
	s.t.Helper()
	r, err := i.gateway.GetIntegration(s.as(workspace, identity.RoleMember, "member"), &authv1.GetIntegrationRequest{Workspace: workspace})
	if err != nil {
		s.t.Fatal(err)
	}
	return r.GetIntegration()
}

// expire lets both sides' clocks run until access tokens are expired.
func (s *stack) expire() {
	s.t.Helper()
	s.forward(2*time.Hour + time.Minute)
}

func (s *stack) forward(d time.Duration) {
	s.t.Helper()
	if err := s.control.AdvanceClock(s.t.Context(), d); err != nil {
		s.t.Fatal(err)
	}
	s.ahead.Add(int64(d))
}

func (s *stack) switches(f func(*emulator.Switches)) {
	s.t.Helper()
	if err := s.control.Switch(s.t.Context(), f); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stack) counters() emulator.Counters {
	s.t.Helper()
	c, err := s.control.Counters(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// works tells that the token is good at Bitbucket's API.
func (s *stack) works(token string) error {
	_, err := bitbucket.NewClient(s.site, bitbucket.ClientOptions{}).As(bitbucket.StaticToken(seal.NewSecret(token))).User(s.t.Context())
	return err
}

// issue asks for a token as the repo service, with timeout: on a busy machine a store that has
// seconds to answer may take longer.
func issue(t *testing.T, c authv1.AuthServiceClient, req *authv1.IssueTokenRequest) (*authv1.IssueTokenResponse, error) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*timeout)
	defer cancel()
	for {
		r, err := c.IssueToken(ctx, req)
		if !apierr.Has(err, apierr.ReasonStorageUnavailable) || ctx.Err() != nil {
			return r, err
		}
	}
}

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	testkit.Eventually(t, timeout, func() error {
		if !ok() {
			return fmt.Errorf("not yet")
		}
		return nil
	})
}
