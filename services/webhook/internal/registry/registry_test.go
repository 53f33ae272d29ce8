package registry

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/testkit"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
	"devpilot.io/bitbucket/services/webhook/internal/cache"
	"devpilot.io/bitbucket/services/webhook/internal/natsstore"
)

const (
	ws   = "acme-inc"
	repo = "85d08b4e-571d-44e9-a507-fa476535aa98"
)

// fakeBitbucket has the hooks of one repository. It keeps state, and can be made to wait.
type fakeBitbucket struct {
	mu      sync.Mutex
	hooks   []bitbucket.Hook
	made    int
	calls   int
	secrets map[string]string
	// listing, when set, is called at the start of each listing, without the lock.
	listing func(ctx context.Context) error
	created func() // after a create
	user    error  // of asking for the account
}

func (f *fakeBitbucket) User(context.Context) (bitbucket.User, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return bitbucket.User{}, f.user
}

func (f *fakeBitbucket) Hooks(ctx context.Context, _ bitbucket.Ref) ([]bitbucket.Hook, error) {
	f.mu.Lock()
	listing := f.listing
	f.calls++
	f.mu.Unlock()
	if listing != nil {
		if err := listing(ctx); err != nil {
			return nil, err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]bitbucket.Hook(nil), f.hooks...), nil
}

func (f *fakeBitbucket) CreateHook(_ context.Context, _ bitbucket.Ref, in bitbucket.HookInput) (bitbucket.Hook, error) {
	f.mu.Lock()
	f.made++
	h := bitbucket.Hook{UUID: fmt.Sprintf("00000000-0000-4000-8000-%012d", f.made), URL: in.URL, Active: in.Active, Events: in.Events,
		SecretSet: true, CreatedAt: time.Unix(int64(f.made), 0)}
	f.hooks = append(f.hooks, h)
	f.keep(h.UUID, in)
	created := f.created
	f.mu.Unlock()
	if created != nil {
		created()
	}
	return h, nil
}

func (f *fakeBitbucket) keep(uuid string, in bitbucket.HookInput) {
	if f.secrets == nil {
		f.secrets = map[string]string{}
	}
	f.secrets[uuid] = in.Secret.Reveal()
}

func (f *fakeBitbucket) UpdateHook(_ context.Context, _ bitbucket.Ref, uuid string, in bitbucket.HookInput) (bitbucket.Hook, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.hooks {
		if f.hooks[i].UUID == uuid {
			f.hooks[i].URL, f.hooks[i].Active, f.hooks[i].Events, f.hooks[i].SecretSet = in.URL, in.Active, in.Events, true
			f.keep(uuid, in)
			return f.hooks[i], nil
		}
	}
	return bitbucket.Hook{}, &bitbucket.Error{Kind: bitbucket.KindNotFound, Status: 404, Route: bitbucket.RouteHooks}
}

func (f *fakeBitbucket) DeleteHook(_ context.Context, _ bitbucket.Ref, uuid string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.hooks {
		if f.hooks[i].UUID == uuid {
			f.hooks = append(f.hooks[:i:i], f.hooks[i+1:]...)
			return nil
		}
	}
	return &bitbucket.Error{Kind: bitbucket.KindNotFound, Status: 404, Route: bitbucket.RouteHooks}
}

func (f *fakeBitbucket) set(change func(*fakeBitbucket)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

func (f *fakeBitbucket) all() []bitbucket.Hook {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]bitbucket.Hook(nil), f.hooks...)
}

type fakeConnections struct{}

func (fakeConnections) Current(context.Context, string) (Connection, error) {
	return Connection{ID: "c1"}, nil
}

// process is one process that works on webhooks.
type process struct {
	*Registry
	stop func()
}

type world struct {
	t         *testing.T
	js        jetstream.JetStream
	vault     *Vault
	bitbucket *fakeBitbucket
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return &world{t: t, js: testkit.JS(t), vault: NewVault(testkit.Keyset(t)), bitbucket: &fakeBitbucket{}}
}

func (w *world) start(timing Timing) *process {
	w.t.Helper()
	log := testkit.Logger(w.t).Logger
	site, err := bitbucket.NewSite("http://localhost:1", "http://localhost:1/2.0")
	if err != nil {
		w.t.Fatal(err)
	}
	address, err := NewAddress("https://devpilot.example.com", site)
	if err != nil {
		w.t.Fatal(err)
	}
	store := natsstore.New(w.js, log, nil)
	list := cache.New(store)
	timing.Poll = 20 * time.Millisecond
	r := New(Config{
		Store: store, Cache: list, Vault: w.vault, View: View{Site: site, Address: address},
		Account: func(string, string, bool) Hooks { return w.bitbucket }, Connections: fakeConnections{},
		Logger: log, Now: time.Now, Timing: timing,
	})
	if err := store.Open(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := store.RunCopies(ctx); err != nil {
			w.t.Errorf("copies: %v", err)
		}
	})
	wg.Go(func() {
		if err := r.Run(ctx); err != nil {
			w.t.Errorf("Run: %v", err)
		}
	})
	stop := sync.OnceFunc(func() { cancel(); wg.Wait() })
	w.t.Cleanup(stop)
	testkit.Eventually(w.t, 10*time.Second, func() error { return list.Ready(ctx) })
	return &process{Registry: r, stop: stop}
}

func (w *world) set(wait bool) WatchSet {
	return WatchSet{Workspace: ws, Repository: repo, FullName: "acme/web", Watches: []*webhookv1.Watch{{App: "web", Branch: "main"}}, Version: 1, Wait: wait}
}

func (p *process) eventually(t *testing.T, id string, check func(*storev1.WebhookRecord) error) *storev1.WebhookRecord {
	t.Helper()
	var rec *storev1.WebhookRecord
	testkit.Eventually(t, 15*time.Second, func() (err error) {
		if rec, err = p.Get(t.Context(), ws, id); err != nil {
			return err
		}
		return check(rec)
	})
	return rec
}

func active(rec *storev1.WebhookRecord) error {
	if rec.GetState() != webhookv1.Webhook_ACTIVE {
		return fmt.Errorf("state %v: %s", rec.GetState(), rec.GetMessage())
	}
	return nil
}

func TestLease_ofADeadProcessIsTakenOver(t *testing.T) {
	w := newWorld(t)
	const takeover = 500 * time.Millisecond
	blocked := make(chan struct{})
	w.bitbucket.set(func(f *fakeBitbucket) {
		f.listing = func(ctx context.Context) error { // the process hangs in here for good
			close(blocked)
			<-ctx.Done()
			return ctx.Err()
		}
	})
	dead := w.start(Timing{Takeover: takeover, Run: time.Minute})
	rec, err := dead.SetWatches(t.Context(), w.set(false))
	if err != nil {
		t.Fatal(err)
	}
	<-blocked
	w.bitbucket.set(func(f *fakeBitbucket) { f.listing = nil })
	held, err := dead.Get(t.Context(), ws, rec.GetId())
	if err != nil || held.GetLease().GetHolder() != dead.holder {
		t.Fatalf("the lease: %v, %v", held.GetLease(), err)
	}
	start := time.Now()
	heir := w.start(Timing{Takeover: takeover})
	done := heir.eventually(t, rec.GetId(), active)
	if took := time.Since(start); took < takeover {
		t.Errorf("taken over after %v, before the lease was seen unchanged for %v", took, takeover)
	}
	if done.GetEpoch() != held.GetEpoch()+1 || done.GetLease() != nil {
		t.Errorf("epoch %d after %d, lease %v", done.GetEpoch(), held.GetEpoch(), done.GetLease())
	}
}

func TestLease_lateResultDoesNotCount(t *testing.T) {
	w := newWorld(t)
	blocked, goOn := make(chan struct{}), make(chan struct{})
	w.bitbucket.set(func(f *fakeBitbucket) {
		f.listing = func(context.Context) error { // stopped for longer than the lease is respected
			close(blocked)
			<-goOn
			return &bitbucket.Error{Kind: bitbucket.KindForbidden, Status: 403, Route: bitbucket.RouteHooks}
		}
	})
	slow := w.start(Timing{Takeover: 200 * time.Millisecond, Run: time.Minute})
	rec, err := slow.SetWatches(t.Context(), w.set(false))
	if err != nil {
		t.Fatal(err)
	}
	<-blocked
	w.bitbucket.set(func(f *fakeBitbucket) { f.listing = nil })
	heir := w.start(Timing{Takeover: 200 * time.Millisecond})
	before := heir.eventually(t, rec.GetId(), active)
	close(goOn)
	slow.stop() // waits for the run to end
	after, err := heir.Get(t.Context(), ws, rec.GetId())
	if err != nil || after.GetState() != webhookv1.Webhook_ACTIVE || after.GetReason() != "" || after.GetBitbucketUuid() != before.GetBitbucketUuid() {
		t.Errorf("a late refusal replaced the result: %v, %v", after, err)
	}
}

func TestShutdown_givesTheLeaseBack(t *testing.T) {
	w := newWorld(t)
	blocked := make(chan struct{})
	w.bitbucket.set(func(f *fakeBitbucket) {
		f.listing = func(ctx context.Context) error {
			close(blocked)
			<-ctx.Done()
			return ctx.Err()
		}
	})
	first := w.start(Timing{Takeover: time.Hour})
	rec, err := first.SetWatches(t.Context(), w.set(false))
	if err != nil {
		t.Fatal(err)
	}
	<-blocked
	w.bitbucket.set(func(f *fakeBitbucket) { f.listing = nil })
	first.stop()
	second := w.start(Timing{Takeover: time.Hour})
	done := second.eventually(t, rec.GetId(), active)
	if done.GetWork().GetAttempts() != 0 {
		t.Errorf("the stop counted as a failure: %v", done.GetWork())
	}
}

func TestRun_resultLostAfterTheCreateMakesNoSecondHook(t *testing.T) {
	w := newWorld(t)
	first := w.start(Timing{Takeover: 300 * time.Millisecond})
	// The process dies between Bitbucket's answer and the write: here it loses its lease then.
	w.bitbucket.set(func(f *fakeBitbucket) {
		f.created = func() {
			_, err := first.cfg.Store.Update(context.Background(), ws, f.id(t, first), func(rec *storev1.WebhookRecord) error {
				rec.Epoch++
				rec.Lease = &storev1.Lease{Holder: "nobody", Epoch: rec.GetEpoch()}
				return nil
			})
			if err != nil {
				t.Errorf("take the lease away: %v", err)
			}
			f.set(func(f *fakeBitbucket) { f.created = nil })
		}
	})
	rec, err := first.SetWatches(t.Context(), w.set(false))
	if err != nil {
		t.Fatal(err)
	}
	done := first.eventually(t, rec.GetId(), active)
	if hooks := w.bitbucket.all(); len(hooks) != 1 || hooks[0].UUID != done.GetBitbucketUuid() {
		t.Errorf("hooks %v, webhook %v", hooks, done)
	}
}

// id is the id of the one webhook.
func (f *fakeBitbucket) id(t *testing.T, p *process) string {
	rec, err := p.cfg.Store.GetByRepository(context.Background(), ws, repo)
	if err != nil {
		t.Errorf("find the webhook: %v", err)
	}
	return rec.GetId()
}

func TestLease_ofOnesOwnLostWriteDelaysNothing(t *testing.T) {
	w := newWorld(t)
	p := w.start(Timing{Takeover: time.Hour})
	rec, err := p.create(t.Context(), w.set(false))
	if err != nil {
		t.Fatal(err)
	}
	// The lease was written, and its acknowledgement was lost.
	_, err = p.cfg.Store.Update(t.Context(), ws, rec.GetId(), func(rec *storev1.WebhookRecord) error {
		rec.Watches = w.set(false).Watches
		p.want(rec, false)
		rec.Epoch++
		rec.Lease = &storev1.Lease{Holder: p.holder, Epoch: rec.GetEpoch()}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if done := p.eventually(t, rec.GetId(), active); done.GetEpoch() != 2 {
		t.Errorf("epoch %d, want 2", done.GetEpoch())
	}
}
