package registry

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/testkit"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
	"devpilot.io/bitbucket/services/webhook/internal/natsstore"
	"devpilot.io/bitbucket/services/webhook/internal/roster"
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

func (fakeConnections) Current(context.Context, string) (string, error) { return "c1", nil }

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
	store := natsstore.New(w.js, 1, log)
	if err := store.Open(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	list := roster.New()
	timing.Poll = 20 * time.Millisecond
	r := New(Config{
		Store: store, Roster: list, Vault: w.vault, View: View{Site: site, Address: address},
		Account: func(string, bool) Hooks { return w.bitbucket }, Connections: fakeConnections{},
		Logger: log, Now: time.Now, Timing: timing,
	})
	bucket, err := store.WebhooksBucket()
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := list.Run(ctx, bucket); err != nil {
			w.t.Errorf("roster: %v", err)
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
	start := time.Now()
	heir := w.start(Timing{Takeover: takeover})
	held, err := heir.Get(t.Context(), ws, rec.GetId())
	if err != nil || held.GetLease().GetHolder() != dead.holder {
		t.Fatalf("the lease: %v, %v", held.GetLease(), err)
	}
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

func TestEnsure_ofTwoMadeAtTheSameMomentOneStays(t *testing.T) {
	url := "https://devpilot.example.com/webhooks/bitbucket/x"
	want := wanted{repository: repo, fullName: "acme/web", url: url, secret: newSecret()}
	f := &fakeBitbucket{}
	// Another replica's create comes between our list and ours, with an older date or a newer one.
	for name, age := range map[string]time.Duration{"older": -time.Hour, "newer": 1000 * time.Hour} {
		f.set(func(f *fakeBitbucket) {
			f.hooks, f.made = nil, 0
			f.created = func() {
				f.set(func(f *fakeBitbucket) {
					f.hooks = append(f.hooks, bitbucket.Hook{UUID: "ffffffff-0000-4000-8000-000000000000", URL: url, Active: true, Events: events, SecretSet: true, CreatedAt: time.Unix(0, 0).Add(age)})
				})
			}
		})
		got, err := ensure(t.Context(), f, want)
		hooks := f.all()
		if err != nil || len(hooks) != 1 || got.uuid != hooks[0].UUID || got.deleted != 1 {
			t.Errorf("%s: %+v, %v, hooks %v", name, got, err, hooks)
		}
		if older := got.uuid[0] == 'f'; older != (name == "older") {
			t.Errorf("%s: kept %s", name, got.uuid)
		}
		if name == "older" && f.secrets[got.uuid] != want.secret.Reveal() {
			t.Error("the other one did not get our secret")
		}
	}
}

func TestEnsure_leavesOthersHooksAlone(t *testing.T) {
	url := "https://devpilot.example.com/webhooks/bitbucket/x"
	f := &fakeBitbucket{hooks: []bitbucket.Hook{
		{UUID: "a", URL: url + "/"}, {UUID: "b", URL: "https://devpilot.example.com/webhooks/bitbucket/y"}, {UUID: "c", URL: url, ReadOnly: true},
	}}
	want := wanted{repository: repo, fullName: "acme/web", url: url, secret: newSecret()}
	if _, err := ensure(t.Context(), f, want); err != nil || len(f.all()) != 4 {
		t.Errorf("hooks %v, %v", f.all(), err)
	}
	if _, err := remove(t.Context(), f, want); err != nil || len(f.all()) != 3 {
		t.Errorf("hooks after removing %v, %v", f.all(), err)
	}
}

func TestBackoff_doublesUpToItsLimit(t *testing.T) {
	timing := Timing{}.withDefaults()
	for n, want := range map[int32]time.Duration{1: 5 * time.Second, 2: 10 * time.Second, 5: 80 * time.Second, 30: time.Hour, 1 << 30: time.Hour} {
		for range 50 {
			if got := backoff(timing, n); got > want || got < want*3/4-1 {
				t.Fatalf("pause %d: %v, want %v less up to a quarter", n, got, want)
			}
		}
	}
}

func TestVault_bindsSecretsToTheirRecord(t *testing.T) {
	v := NewVault(testkit.Keyset(t))
	rec := &storev1.WebhookRecord{Workspace: ws, Id: NewID()}
	var err error
	if rec.Secret, err = v.fresh(rec, time.Now()); err != nil {
		t.Fatal(err)
	}
	secrets, versions, err := v.Open(rec, time.Now())
	if err != nil || len(secrets) != 1 || versions[0] != 1 || len(secrets[0].Reveal()) > 128 || len(secrets[0].Reveal()) < 32 {
		t.Fatalf("secrets %v, %v", versions, err)
	}
	copied := &storev1.WebhookRecord{Workspace: ws, Id: NewID(), Secret: rec.GetSecret()}
	if _, _, err := v.Open(copied, time.Now()); err == nil {
		t.Error("a secret opens in another record")
	}
}

func TestOpen_oldSecretEnds(t *testing.T) {
	v := NewVault(testkit.Keyset(t))
	rec := &storev1.WebhookRecord{Workspace: ws, Id: NewID()}
	now := time.Now()
	var err error
	if rec.OldSecret, err = v.fresh(rec, now); err != nil {
		t.Fatal(err)
	}
	rec.Secret = rec.GetOldSecret()
	if rec.Secret, err = v.fresh(rec, now); err != nil {
		t.Fatal(err)
	}
	if !ConfirmSecret(rec, now) || ConfirmSecret(rec, now) {
		t.Error("the first confirmation changes the record, the second does not")
	}
	for after, want := range map[time.Duration]int{0: 2, Overlap - time.Second: 2, Overlap: 1, Overlap + time.Hour: 1} {
		if secrets, _, err := v.Open(rec, now.Add(after)); err != nil || len(secrets) != want {
			t.Errorf("after %v: %d secrets, %v", after, len(secrets), err)
		}
	}
	if dropExpired(rec, now) || !dropExpired(rec, now.Add(Overlap)) || rec.GetOldSecret() != nil {
		t.Errorf("record %v", rec)
	}
}

func TestTemporary_knowsEveryReason(t *testing.T) {
	for _, row := range apierr.Table() {
		e := apierr.New(row.Reason, "x")
		if temporary(e) && byHand(string(row.Reason)) && row.Reason != apierr.ReasonConsumerRefused {
			t.Errorf("%s passes by itself and is for a person", row.Reason)
		}
	}
	if !errors.Is(apierr.New(apierr.ReasonNotRepositoryAdmin, "x"), apierr.FailedPrecondition) || temporary(apierr.New(apierr.ReasonNotRepositoryAdmin, "x")) {
		t.Error("NOT_REPOSITORY_ADMIN is for a person")
	}
}
