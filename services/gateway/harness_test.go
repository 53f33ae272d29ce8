package gateway_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/redis/go-redis/v9"
	"google.golang.org/grpc"

	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/redisx"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/gateway"
)

const adminToken = "the-admin-token-of-this-test-0123456789"

// clock is a clock that tests move.
type clock struct {
	mu  sync.Mutex
	off time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.off)
}

func (c *clock) forward(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off += d
}

// gate is a gateway with its neighbours faked, served over real HTTP.
type gate struct {
	t      *testing.T
	url    string
	svc    *gateway.Service
	logs   *testkit.Logs
	nats   *testkit.NATSServer
	js     jetstream.JetStream
	keyset *seal.Keyset
	keys   *identity.Keys
	clock  *clock
	cfg    gateway.Config
	redis  *testkit.RedisServer // only where requests of programs are bounded
	conns  map[string]*grpc.ClientConn

	auth, repo, webhook, deployer *fake
}

type option func(*gateway.Config)

// start serves a gateway of the test's own; tests that do run beside each other.
func start(t *testing.T, opts ...option) *gate {
	t.Helper()
	t.Parallel()
	g := &gate{t: t, nats: testkit.NATS(t), logs: testkit.Logger(t), keys: testkit.Keys(t), keyset: testkit.Keyset(t), clock: &clock{}, conns: map[string]*grpc.ClientConn{}}
	_, g.js = g.nats.Connect()
	g.auth, g.conns["auth"] = serveFake(t, g.keys, g.logs.Logger, "auth")
	g.repo, g.conns["repo"] = serveFake(t, g.keys, g.logs.Logger, "repo")
	g.webhook, g.conns["webhook"] = serveFake(t, g.keys, g.logs.Logger, "webhook")
	g.deployer, g.conns["deployer"] = serveFake(t, g.keys, g.logs.Logger, "deployer")
	g.svc, g.url = g.replica(opts...)
	return g
}

// replica serves one more gateway on the same stores.
func (g *gate) replica(opts ...option) (*gateway.Service, string) {
	t := g.t
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := gateway.Config{
		PublicURL: "http://" + l.Addr().String(), Listen: l.Addr().String(), AdminToken: seal.NewSecret(adminToken),
		Version: "test", BitbucketSiteURL: "https://bitbucket.org", Heartbeat: 50 * time.Millisecond,
	}
	for _, o := range opts {
		o(&cfg)
	}
	g.cfg = cfg
	var counts redis.UniversalClient
	if cfg.ProgramRequestsPerMinute > 0 {
		if g.redis == nil {
			g.redis = testkit.Redis(t)
		}
		if counts, err = redisx.ConnectWithin(g.redis.URL(), 20*time.Second); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = counts.Close() }) // it holds nothing
	}
	svc, err := gateway.New(cfg, gateway.Deps{
		Logger: g.logs.Logger, JS: g.js, Keyset: g.keyset, Keys: g.keys, Now: g.clock.now, Redis: counts,
		Console: fstest.MapFS{}, // the plain pages, whether or not the console was built
		Auth:    g.conns["auth"], Repo: g.conns["repo"], Webhook: g.conns["webhook"], Deployer: g.conns["deployer"],
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- svc.Run(ctx) }()
	server := httptest.NewUnstartedServer(svc.Handler())
	_ = server.Listener.Close()
	server.Listener = l
	server.Start()
	t.Cleanup(func() {
		svc.Drain()
		server.Close()
		cancel()
		select {
		case err := <-done:
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("run: %v", err)
			}
		case <-time.After(2 * time.Minute):
			t.Error("the service did not stop")
		}
	})
	testkit.Eventually(t, 20*time.Second, func() error { return svc.Ready(ctx) })
	return svc, server.URL
}

// client is somebody who calls.
type client struct {
	g      *gate
	http   *http.Client
	bearer string
	cookie string // sent as it is
	base   string
}

// anybody has no credentials; redirects are not followed.
func (g *gate) anybody() *client {
	return &client{g: g, base: g.url, http: &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       2 * time.Minute,
	}}
}

func (g *gate) withToken(token string) *client {
	c := g.anybody()
	c.bearer = token
	return c
}

// browser has a cookie jar.
func (g *gate) browser() *client {
	jar, err := cookiejar.New(nil)
	if err != nil {
		g.t.Fatal(err)
	}
	c := g.anybody()
	c.http.Jar = jar
	return c
}

// signedIn is a browser of the local owner.
func (g *gate) signedIn() *client {
	g.t.Helper()
	c := g.browser()
	c.post("/v1/session", map[string]any{"token": adminToken}).want(http.StatusOK)
	return c
}

// key is a client with a new API key of a role.
func (g *gate) key(workspace, role string) *client {
	g.t.Helper()
	var out struct {
		Secret string `json:"secret"`
	}
	g.withToken(adminToken).post("/v1/workspaces/"+workspace+"/apiKeys", map[string]any{"label": role, "role": role}).want(http.StatusOK).into(&out)
	return g.withToken(out.Secret)
}

// workspace makes one, owned by the local owner.
func (g *gate) workspace(id string) {
	g.t.Helper()
	g.withToken(adminToken).post("/v1/workspaces", map[string]any{"workspaceId": id}).want(http.StatusOK)
}

// cookies of the browser.
func (c *client) cookies() []*http.Cookie {
	u, err := url.Parse(c.base)
	if err != nil {
		c.g.t.Fatal(err)
	}
	return c.http.Jar.Cookies(u)
}

// answer is a response that was read.
type answer struct {
	t      *testing.T
	what   string
	status int
	header http.Header
	body   []byte
	raw    *http.Response
	req    *http.Request
}

type change func(*http.Request)

func with(name, value string) change { return func(r *http.Request) { r.Header.Set(name, value) } }

func withHost(host string) change { return func(r *http.Request) { r.Host = host } }

func (c *client) do(method, path string, body io.Reader, changes ...change) *answer {
	c.g.t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), method, c.base+path, body)
	if err != nil {
		c.g.t.Fatal(err)
	}
	if c.bearer != "" {
		req.Header.Set("Authorization", "Bearer "+c.bearer)
	}
	if c.cookie != "" {
		req.Header.Set("Cookie", c.cookie)
	}
	for _, f := range changes {
		f(req)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		c.g.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		c.g.t.Fatalf("%s %s: read: %v", method, path, err)
	}
	return &answer{t: c.g.t, what: method + " " + path, status: resp.StatusCode, header: resp.Header, body: raw, raw: resp, req: req}
}

func (c *client) get(path string, changes ...change) *answer {
	c.g.t.Helper()
	return c.do(http.MethodGet, path, nil, changes...)
}

func (c *client) post(path string, body any, changes ...change) *answer {
	c.g.t.Helper()
	return c.send(http.MethodPost, path, body, changes...)
}

// send encodes the body, unless it is text already.
func (c *client) send(method, path string, body any, changes ...change) *answer {
	c.g.t.Helper()
	if text, ok := body.(string); ok {
		return c.do(method, path, strings.NewReader(text), changes...)
	}
	raw, err := json.Marshal(body)
	if err != nil {
		c.g.t.Fatal(err)
	}
	return c.do(method, path, bytes.NewReader(raw), changes...)
}

func (a *answer) want(status int) *answer {
	a.t.Helper()
	if a.status != status {
		a.t.Fatalf("%s: status %d, not %d: %s", a.what, a.status, status, a.body)
	}
	return a
}

func (a *answer) into(v any) {
	a.t.Helper()
	if err := json.Unmarshal(a.body, v); err != nil {
		a.t.Fatalf("%s: %v in %s", a.what, err, a.body)
	}
}

type problem struct {
	Type, Title, Detail, Reason, RequestID string
	Status                                 int
	RetryAfterSeconds                      int
	Fields                                 []struct{ Name, Message string }
}

// problem checks the form of a failure and its reason.
func (a *answer) problem(status int, reason string) problem {
	a.t.Helper()
	a.want(status)
	var p problem
	a.into(&p)
	if ct := a.header.Get("Content-Type"); ct != "application/problem+json" {
		a.t.Errorf("%s: content type %q", a.what, ct)
	}
	if p.Reason != reason {
		a.t.Errorf("%s: reason %q, not %q: %s", a.what, p.Reason, reason, a.body)
	}
	if p.Status != status || p.Title == "" || p.Detail == "" || p.RequestID == "" || p.Fields == nil || !strings.HasSuffix(p.Type, reason) {
		a.t.Errorf("%s: incomplete problem %s", a.what, a.body)
	}
	if p.RequestID != a.header.Get("X-Request-Id") {
		a.t.Errorf("%s: request id %q in the body, %q in the header", a.what, p.RequestID, a.header.Get("X-Request-Id"))
	}
	if a.header.Get("Cache-Control") != "no-store" {
		a.t.Errorf("%s: Cache-Control %q", a.what, a.header.Get("Cache-Control"))
	}
	return p
}
