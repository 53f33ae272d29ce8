package webhook_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"
	eventsv1 "devpilot.io/bitbucket/proto/gen/devpilot/events/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
	"devpilot.io/bitbucket/services/webhook"
)

const (
	workspace = "acme-inc"
	fullName  = "acme/web"
)

// web is the id of the emulator's repository acme/web.
var web = emulator.SeededUUID("repository", fullName)

// timeout is how long tests wait for what happens in the background.
const timeout = 30 * time.Second

// stack is webhook with everything around it: NATS, a Bitbucket, an auth service, and a front under
// which Bitbucket reaches the replicas.
type stack struct {
	t         *testing.T
	nats      *testkit.NATSServer
	js        jetstream.JetStream
	bitbucket *emulator.Server
	control   *emulator.Control
	auth      *fakeAuth
	keys      *identity.Keys
	keyset    *seal.Keyset
	logs      *testkit.Logs
	front     *httptest.Server
	publicURL string
	config    func(*webhook.Config)

	mu       sync.Mutex
	handlers []http.Handler
	turn     atomic.Int64
}

// replica is one webhook process.
type replica struct {
	*stack
	service  *webhook.Service
	people   webhookv1.WebhookServiceClient // by the gateway
	deployer webhookv1.WebhookServiceClient
	metrics  *prometheus.Registry
	stop     func()
}

// newStack is a stack of its own for a test that runs beside others.
func newStack(t *testing.T) *stack {
	t.Helper()
	t.Parallel()
	return newStackAlone(t)
}

func newStackAlone(t *testing.T) *stack {
	t.Helper()
	s := &stack{t: t, nats: testkit.NATS(t), keys: testkit.Keys(t), keyset: testkit.Keyset(t), logs: testkit.Logger(t), config: func(*webhook.Config) {}}
	s.js = s.nats.JS()
	var err error
	if s.bitbucket, err = emulator.Start("127.0.0.1:0", emulator.Options{Scenario: "sample"}); err != nil {
		t.Fatalf("start the emulator: %v", err)
	}
	t.Cleanup(func() {
		if err := s.bitbucket.Close(); err != nil {
			t.Errorf("stop the emulator: %v", err)
		}
	})
	s.control = s.bitbucket.Control()
	s.auth = &fakeAuth{stack: s}
	s.front = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.front.Close)
	s.publicURL = s.front.URL
	return s
}

// serve hands requests to the replicas in turn.
func (s *stack) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	handlers := s.handlers
	s.mu.Unlock()
	if len(handlers) == 0 {
		http.Error(w, "nobody is there", http.StatusBadGateway)
		return
	}
	handlers[int(s.turn.Add(1))%len(handlers)].ServeHTTP(w, r)
}

// start starts a replica and waits until it is ready.
func (s *stack) start() *replica {
	s.t.Helper()
	r := s.startUnready()
	testkit.Eventually(s.t, timeout, func() error { return r.service.Ready(context.Background()) })
	return r
}

func (s *stack) startUnready() *replica {
	s.t.Helper()
	_, js := s.nats.Connect()
	return s.startUnreadyOn(js)
}

// startUnreadyOn starts a replica on a connection that is there already.
func (s *stack) startUnreadyOn(js jetstream.JetStream) *replica {
	s.t.Helper()
	cfg := webhook.Config{
		PublicURL: s.publicURL, ClientID: emulator.DefaultConsumer().Key,
		Site: bitbucket.Site{SiteURL: s.bitbucket.SiteURL(), APIURL: s.bitbucket.APIURL()},
	}
	cfg.Timing.Poll = 20 * time.Millisecond
	s.config(&cfg)
	metrics := prometheus.NewRegistry()
	service, err := webhook.New(cfg, webhook.Deps{
		Logger: s.logs.Logger, JS: js, Keyset: s.keyset, Auth: s.auth, Registerer: metrics,
	})
	if err != nil {
		s.t.Fatalf("New: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- service.Run(ctx) }()
	handler := service.Handler()
	s.mu.Lock()
	s.handlers = append(s.handlers, handler)
	s.mu.Unlock()
	stop := sync.OnceFunc(func() {
		s.mu.Lock()
		for i, h := range s.handlers {
			if h == handler {
				s.handlers = append(s.handlers[:i:i], s.handlers[i+1:]...)
				break
			}
		}
		s.mu.Unlock()
		cancel()
		select {
		case err := <-done:
			if err != nil {
				s.t.Errorf("Run: %v", err)
			}
		case <-time.After(2 * time.Minute):
			s.t.Error("Run did not return")
		}
	})
	s.t.Cleanup(stop)
	server := testkit.ServeGRPC(s.t, testkit.GRPCConfig{
		Service: "webhook", Keys: s.keys, Policy: webhook.Policy, Logger: s.logs.Logger,
		Register: func(g grpc.ServiceRegistrar) { service.Register(g) },
	})
	return &replica{
		stack: s, service: service, stop: stop, metrics: metrics,
		people:   webhookv1.NewWebhookServiceClient(server.Dial("gateway")),
		deployer: webhookv1.NewWebhookServiceClient(server.Dial("deployer")),
	}
}

// as is a context of a member of the workspace.
func (s *stack) as(role identity.Role) context.Context {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	s.t.Cleanup(cancel)
	return testkit.As(ctx, s.t, s.keys, identity.Identity{Workspace: workspace, Role: role})
}

func (s *stack) admin() context.Context { return s.as(identity.RoleAdmin) }

func (s *stack) background() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	s.t.Cleanup(cancel)
	return ctx
}

// versions makes each set of watches newer than the one before.
var versions atomic.Int64

// watch has apps watch branches of a repository and waits for Bitbucket's answer.
func (r *replica) watch(name, repository string, branches ...string) *webhookv1.Webhook {
	r.t.Helper()
	w, err := r.setWatches(name, repository, branches...)
	if err != nil {
		r.t.Fatalf("SetWatches: %v", err)
	}
	return w
}

func (r *replica) setWatches(name, repository string, branches ...string) (*webhookv1.Webhook, error) {
	owner, _, _ := strings.Cut(name, "/")
	req := &webhookv1.SetWatchesRequest{
		Workspace: workspace, Repository: repository, RepositoryFullName: name, Version: versions.Add(1), Wait: true,
		BitbucketWorkspaceId: emulator.SeededUUID("workspace", owner),
	}
	for _, b := range branches {
		req.Watches = append(req.Watches, &webhookv1.Watch{App: "app-" + b, Branch: b})
	}
	resp, err := r.deployer.SetWatches(r.background(), req)
	return resp.GetWebhook(), err
}

func (r *replica) get(id string) *webhookv1.Webhook {
	r.t.Helper()
	resp, err := r.people.GetWebhook(r.as(identity.RoleMember), &webhookv1.GetWebhookRequest{Workspace: workspace, Webhook: id})
	if err != nil {
		r.t.Fatalf("GetWebhook: %v", err)
	}
	return resp.GetWebhook()
}

// eventually waits until the webhook is as check wants it.
func (r *replica) eventually(id string, check func(*webhookv1.Webhook) error) *webhookv1.Webhook {
	r.t.Helper()
	var w *webhookv1.Webhook
	testkit.Eventually(r.t, timeout, func() error {
		w = r.get(id)
		return check(w)
	})
	return w
}

func inState(want webhookv1.Webhook_State) func(*webhookv1.Webhook) error {
	return func(w *webhookv1.Webhook) error {
		if w.GetState() != want {
			return fmt.Errorf("state %v (%s: %s), want %v", w.GetState(), w.GetReason(), w.GetMessage(), want)
		}
		return nil
	}
}

func (r *replica) secret(id string) string {
	r.t.Helper()
	resp, err := r.people.RevealWebhookSecret(r.admin(), &webhookv1.RevealWebhookSecretRequest{Workspace: workspace, Webhook: id})
	if err != nil {
		r.t.Fatalf("RevealWebhookSecret: %v", err)
	}
	return resp.GetSecret()
}

func (r *replica) deliveries(id string) []*webhookv1.Delivery {
	r.t.Helper()
	resp, err := r.people.ListDeliveries(r.as(identity.RoleMember), &webhookv1.ListDeliveriesRequest{Workspace: workspace, Webhook: id, PageSize: 200})
	if err != nil {
		r.t.Fatalf("ListDeliveries: %v", err)
	}
	return resp.GetDeliveries()
}

// await waits for n deliveries, newest first.
func (r *replica) await(id string, n int) []*webhookv1.Delivery {
	r.t.Helper()
	var ds []*webhookv1.Delivery
	testkit.Eventually(r.t, timeout, func() error {
		if ds = r.deliveries(id); len(ds) != n {
			return fmt.Errorf("%d deliveries, want %d", len(ds), n)
		}
		return nil
	})
	return ds
}

func (s *stack) hooks(name string) []emulator.HookState {
	s.t.Helper()
	hooks, err := s.control.Hooks(s.background(), name)
	if err != nil {
		s.t.Fatalf("list hooks: %v", err)
	}
	return hooks
}

// wantHooks fails unless the repository has exactly n hooks with our URL, active and for pushes only.
func (s *stack) wantHooks(name, url string, n int) {
	s.t.Helper()
	found := 0
	for _, h := range s.hooks(name) {
		if h.URL == url {
			found++
			if !h.Active || len(h.Events) != 1 || h.Events[0] != "repo:push" {
				s.t.Errorf("hook %s: active %v, events %v", h.UUID, h.Active, h.Events)
			}
		}
	}
	if found != n {
		s.t.Errorf("%s has %d hooks with URL %s, want %d", name, found, url, n)
	}
}

// restartNATS brings NATS back and waits until the test's own connection has noticed.
func (s *stack) restartNATS() {
	s.t.Helper()
	s.nats.Start()
	testkit.Eventually(s.t, timeout, func() error {
		if !s.js.Conn().IsConnected() {
			return errors.New("not connected again")
		}
		return nil
	})
}

// pushEvents reads all push events from the stream.
func (s *stack) pushEvents() []*eventsv1.PushEvent {
	s.t.Helper()
	var out []*eventsv1.PushEvent
	s.messages(stream.PushesStream, func(m *jetstream.RawStreamMsg) {
		events, err := stream.PushEvents(stream.Msg{Header: m.Header, Data: m.Data})
		if err != nil {
			s.t.Fatalf("push event: %v", err)
		}
		out = append(out, events...)
	})
	return out
}

// messages reads a stream from its start.
func (s *stack) messages(name string, fn func(m *jetstream.RawStreamMsg)) {
	s.t.Helper()
	ctx := s.background()
	str, err := s.js.Stream(ctx, name)
	if err != nil {
		s.t.Fatalf("stream %s: %v", name, err)
	}
	info, err := str.Info(ctx)
	if err != nil {
		s.t.Fatalf("stream %s: %v", name, err)
	}
	for seq := info.State.FirstSeq; seq <= info.State.LastSeq; seq++ {
		m, err := str.GetMsg(ctx, seq, jetstream.WithGetMsgSubject(">")) // the next one there is
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			break
		}
		if err != nil {
			s.t.Fatalf("message %d of %s: %v", seq, name, err)
		}
		seq = m.Sequence
		fn(m)
	}
}
