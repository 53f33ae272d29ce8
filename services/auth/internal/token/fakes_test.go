package token

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/testkit"
	authstorev1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/store/v1"
	"devpilot.io/bitbucket/services/auth/internal/rotation"
	"devpilot.io/bitbucket/services/auth/internal/store"
)

// fakeStore keeps integrations in memory with the compare-and-set of the real one.
type fakeStore struct {
	mu    sync.Mutex
	rev   uint64
	recs  map[string]*authstorev1.Integration
	revs  map[string]uint64
	down  bool
	lost  int // so many writes happen and report trouble
	wrote int
}

func newFakeStore() *fakeStore {
	return &fakeStore{recs: map[string]*authstorev1.Integration{}, revs: map[string]uint64{}}
}

func (s *fakeStore) Get(_ context.Context, ws string) (*authstorev1.Integration, uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return nil, 0, fmt.Errorf("%w: switched off", kv.ErrUnavailable)
	}
	rec, ok := s.recs[ws]
	if !ok {
		return nil, 0, kv.ErrNotFound
	}
	return proto.CloneOf(rec), s.revs[ws], nil
}

func (s *fakeStore) CompareAndSet(_ context.Context, ws string, rec *authstorev1.Integration, rev uint64) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return 0, fmt.Errorf("%w: switched off", kv.ErrUnavailable)
	}
	if s.revs[ws] != rev || s.recs[ws] == nil {
		return 0, kv.ErrConflict
	}
	s.set(ws, rec)
	if s.lost > 0 {
		s.lost--
		return 0, fmt.Errorf("%w: the acknowledgement was lost", kv.ErrUnavailable)
	}
	return s.rev, nil
}

func (s *fakeStore) set(ws string, rec *authstorev1.Integration) {
	s.rev++
	s.wrote++
	s.recs[ws], s.revs[ws] = proto.CloneOf(rec), s.rev
}

func (s *fakeStore) put(ws string, rec *authstorev1.Integration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set(ws, rec)
}

func (s *fakeStore) remove(ws string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rev++
	delete(s.recs, ws)
	s.revs[ws] = s.rev
}

func (s *fakeStore) get(ws string) *authstorev1.Integration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return proto.CloneOf(s.recs[ws])
}

func (s *fakeStore) switchOff(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

func (s *fakeStore) workspaces(context.Context) iter.Seq2[string, error] {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := maps.Clone(s.recs)
	return func(yield func(string, error) bool) {
		for ws := range all {
			if !yield(ws, nil) {
				return
			}
		}
	}
}

// fakeSchedules keeps schedules in memory and tells every index of a change at once.
type fakeSchedules struct {
	mu      sync.Mutex
	all     map[string]*authstorev1.Schedule
	indexes []*Index
	lose    bool // writes are lost, as by a process that dies between the two
}

func (s *fakeSchedules) Update(_ context.Context, ws string, fn func(cur *authstorev1.Schedule) *authstorev1.Schedule) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lose {
		return nil
	}
	next := fn(proto.CloneOf(s.all[ws]))
	if next == nil {
		delete(s.all, ws)
	} else {
		s.all[ws] = next
	}
	for _, x := range s.indexes {
		x.Set(ws, next)
	}
	return nil
}

func (s *fakeSchedules) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *fakeSchedules) workspaces(context.Context) iter.Seq2[string, error] {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := maps.Clone(s.all)
	return func(yield func(string, error) bool) {
		for ws := range all {
			if !yield(ws, nil) {
				return
			}
		}
	}
}

// fakeBitbucket rotates refresh tokens: every account has one that is good, and with grace the one
// before it. It takes a second per answer.
type fakeBitbucket struct {
	mu      sync.Mutex
	good    map[string]string // account → refresh token
	before  map[string]string
	grace   bool
	life    time.Duration
	latency time.Duration
	n       int
	calls   int
	fail    func(token string) error // asked first; nil: go on
	// onAnswer runs after the token was rotated and before the answer arrives.
	onAnswer func(ctx context.Context)
}

func newFakeBitbucket() *fakeBitbucket {
	return &fakeBitbucket{good: map[string]string{}, before: map[string]string{}, life: 2 * time.Hour, latency: time.Second}
}

var errDead = &bitbucket.OAuthError{Class: bitbucket.OAuthRefused, Status: 400, Code: "unauthorized_client", Description: "Invalid OAuth client credentials"}

func (b *fakeBitbucket) Refresh(ctx context.Context, refresh seal.Secret) (bitbucket.Grant, error) {
	timer := time.NewTimer(b.latency)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return bitbucket.Grant{}, &bitbucket.OAuthError{Class: bitbucket.OAuthTransient}
	}
	g, hook, err := b.rotate(refresh.Reveal())
	if hook != nil && err == nil {
		hook(ctx)
	}
	return g, err
}

func (b *fakeBitbucket) rotate(token string) (bitbucket.Grant, func(context.Context), error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls++
	if b.fail != nil {
		if err := b.fail(token); err != nil {
			return bitbucket.Grant{}, nil, err
		}
	}
	for account, good := range b.good {
		if token == good || b.grace && token == b.before[account] {
			b.n++
			b.before[account], b.good[account] = token, fmt.Sprintf("refresh-%s-%d", account, b.n)
			return b.grant(account), b.onAnswer, nil
		}
	}
	return bitbucket.Grant{}, nil, errDead
}

func (b *fakeBitbucket) grant(account string) bitbucket.Grant {
	g := bitbucket.Grant{
		AccessToken: seal.NewSecret(fmt.Sprintf("access-%s-%d", account, b.n)), RefreshToken: seal.NewSecret(b.good[account]),
		Scopes: []string{"account", "repository", "webhook"},
	}
	if b.life > 0 {
		g.Expiry = time.Now().Add(b.life)
	}
	return g
}

func (b *fakeBitbucket) connect(account string) bitbucket.Grant {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.n++
	b.good[account], b.before[account] = fmt.Sprintf("refresh-%s-%d", account, b.n), ""
	return b.grant(account)
}

func (b *fakeBitbucket) revoke(account string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.good, account)
	delete(b.before, account)
}

func (b *fakeBitbucket) set(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
}

func (b *fakeBitbucket) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.calls
}

// world is one Bitbucket, one store and some processes.
type world struct {
	t         *testing.T
	bitbucket *fakeBitbucket
	store     *fakeStore
	schedules *fakeSchedules
	tokens    store.Tokens
	logs      *testkit.Logs
	consumer  rotation.Consumer
	connected int

	mu     sync.Mutex
	probes int
	probe  func(token string) error // nil: every token is rejected
}

// Probe implements Prober.
func (w *world) Probe(_ context.Context, token seal.Secret) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.probes++
	if w.probe == nil {
		return errUnauthorized
	}
	return w.probe(token.Reveal())
}

func (w *world) setProbe(f func(token string) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.probe = f
}

func (w *world) probeCount() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.probes
}

var errUnauthorized = &bitbucket.Error{Kind: bitbucket.KindUnauthorized, Route: bitbucket.RouteUser, Status: 401}

func newWorld(t *testing.T) *world {
	keyset, err := seal.NewKeyset()
	if err != nil {
		t.Fatal(err)
	}
	return &world{
		t: t, bitbucket: newFakeBitbucket(), store: newFakeStore(), schedules: &fakeSchedules{all: map[string]*authstorev1.Schedule{}},
		tokens: store.NewTokens(keyset), logs: testkit.Logger(t),
		consumer: rotation.Consumer{SiteURL: "https://bitbucket.org", Key: "key", Fingerprint: "f"},
	}
}

func (w *world) process(name string) *Manager {
	index := NewIndex(func() bool { return true })
	w.schedules.mu.Lock()
	for ws, s := range w.schedules.all {
		index.Set(ws, s)
	}
	w.schedules.indexes = append(w.schedules.indexes, index)
	w.schedules.mu.Unlock()
	metrics, err := NewMetrics(nil, index)
	if err != nil {
		w.t.Fatal(err)
	}
	return NewManager(Config{
		Self: name, Integrations: w.store, Schedules: w.schedules, Index: index, Bitbucket: w.bitbucket, Prober: w, Tokens: w.tokens,
		Consumer: w.consumer, Logger: w.logs.Logger, Metrics: metrics,
	})
}

// keep runs the manager's keeper until the returned function is called.
func (w *world) keep(m *Manager) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	k := NewKeeper(m, Walkers{Integrations: w.store.workspaces, Schedules: w.schedules.workspaces})
	go func() {
		defer close(done)
		_ = k.Run(ctx)
	}()
	return func() {
		cancel()
		<-done
		if err := m.Close(); err != nil {
			w.t.Error(err)
		}
	}
}

// connect stores a fresh connection of the account to the workspace of the same name.
func (w *world) connect(m *Manager, ws string) {
	w.t.Helper()
	g := w.bitbucket.connect(ws)
	refresh, id, err := w.tokens.SealRefresh(ws, g.RefreshToken)
	if err != nil {
		w.t.Fatal(err)
	}
	access, err := w.tokens.SealAccess(ws, g.AccessToken)
	if err != nil {
		w.t.Fatal(err)
	}
	w.connected++
	rec := &authstorev1.Integration{
		Workspace: ws, ConnectionId: fmt.Sprintf("connection-%d", w.connected), SiteUrl: "https://bitbucket.org", ApiUrl: "https://api.bitbucket.org/2.0",
		ConsumerKey: "key", SuccessFingerprint: "f", Scopes: g.Scopes, LastRefreshTime: timestamppb.Now(), ConnectTime: timestamppb.Now(),
		Refresh: &authstorev1.RefreshToken{Sealed: refresh, Id: id}, Access: &authstorev1.AccessToken{Sealed: access, ExpireTime: timestamppb.New(g.Expiry)},
	}
	w.store.put(ws, rec)
	_, rev, err := w.store.Get(context.Background(), ws)
	if err != nil {
		w.t.Fatal(err)
	}
	m.Changed(context.Background(), ws, rec, rev)
}

func (w *world) expire(ws string) {
	rec := w.store.get(ws)
	rec.Access.ExpireTime = timestamppb.Now()
	w.store.put(ws, rec)
}

type secret = seal.Secret

type refresherFunc func(ctx context.Context, tok secret) (bitbucket.Grant, error)

func (f refresherFunc) Refresh(ctx context.Context, tok secret) (bitbucket.Grant, error) {
	return f(ctx, tok)
}

func errToAPI(err error) error { return kv.ToAPI(err) }

const personRetry = rotation.PersonRetry + time.Second

// pass lets virtual time go by: all tests of the protocol run in synctest bubbles.
func pass(d time.Duration) { <-time.After(d) }
