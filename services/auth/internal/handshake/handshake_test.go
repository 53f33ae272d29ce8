package handshake

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/redisx"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/testkit"
	authstorev1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/store/v1"
)

var (
	jane   = Visitor{Subject: "user-jane", Workspace: "acme"}
	target = Target{SiteURL: "https://bitbucket.org", ConsumerKey: "key"}
)

func newStore(t *testing.T) (*Store, *testkit.RedisServer, *atomic.Int64) {
	t.Helper()
	keyset, err := seal.NewKeyset()
	if err != nil {
		t.Fatal(err)
	}
	redis := testkit.Redis(t)
	var ahead atomic.Int64
	s, err := NewStore(redis.Client(), keyset, func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) })
	if err != nil {
		t.Fatal(err)
	}
	return s, redis, &ahead
}

func begin(t *testing.T, s *Store) string {
	t.Helper()
	id, expire, err := s.Begin(t.Context(), jane, Wish{ReturnPath: "/settings"})
	if err != nil {
		t.Fatal(err)
	}
	if left := time.Until(expire); left < 9*time.Minute || left > 11*time.Minute {
		t.Fatalf("expires in %v", left)
	}
	return id
}

func authorize(t *testing.T, s *Store) Authorization {
	t.Helper()
	a, err := s.Authorize(t.Context(), begin(t, s), jane, target)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func wantReason(t *testing.T, err error, want apierr.Reason) {
	t.Helper()
	if !apierr.Has(err, want) {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestHandshake_wholeWay(t *testing.T) {
	s, _, _ := newStore(t)
	id := begin(t, s)
	h, err := s.LookUp(t.Context(), id, "")
	if err != nil || h.GetWorkspace() != "acme" || h.GetSubject() != "user-jane" || h.GetReturnPath() != "/settings" {
		t.Fatalf("%v %v", h, err)
	}
	a, err := s.Authorize(t.Context(), id, jane, target)
	if err != nil {
		t.Fatal(err)
	}
	if h, err := s.LookUp(t.Context(), "", a.State); err != nil || h.GetName() != a.BindingName {
		t.Fatalf("%v %v", h, err)
	}
	h, err = s.Complete(t.Context(), a.State, map[string]string{"other": "x", a.BindingName: a.Binding}, jane, target)
	if err != nil {
		t.Fatal(err)
	}
	if bitbucket.Challenge(h.GetVerifier()) != a.Challenge || len(h.GetVerifier()) < 43 {
		t.Error("the verifier does not fit the challenge")
	}
}

func TestHandshake_secretsAreLongAndDifferent(t *testing.T) {
	s, _, _ := newStore(t)
	seen := map[string]bool{}
	for range 20 {
		a := authorize(t, s)
		for _, v := range []string{a.State, a.Binding, a.Challenge} {
			if len(v) < 43 || seen[v] {
				t.Fatalf("%d characters, seen before: %v", len(v), seen[v])
			}
			seen[v] = true
		}
	}
}

func TestHandshake_eachStepWorksOnce(t *testing.T) {
	s, _, _ := newStore(t)
	id := begin(t, s)
	once := func(what string, f func() error) {
		var ok atomic.Int32
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				switch err := f(); {
				case err == nil:
					ok.Add(1)
				case !apierr.Has(err, apierr.ReasonHandshakeExpired):
					t.Errorf("%s: %v", what, err)
				}
			})
		}
		wg.Wait()
		if ok.Load() != 1 {
			t.Errorf("%s worked %d times", what, ok.Load())
		}
	}
	var mu sync.Mutex
	var a Authorization
	once("authorize", func() error {
		got, err := s.Authorize(context.Background(), id, jane, target)
		if err == nil {
			mu.Lock()
			defer mu.Unlock()
			a = got
		}
		return err
	})
	once("complete", func() error {
		_, err := s.Complete(context.Background(), a.State, map[string]string{a.BindingName: a.Binding}, jane, target)
		return err
	})
}

func TestHandshake_mismatchSpendsNothing(t *testing.T) {
	s, _, _ := newStore(t)
	mallory := Visitor{Subject: "user-mallory", Workspace: "acme"}
	elsewhere := Visitor{Subject: "user-jane", Workspace: "other"}
	id := begin(t, s)
	for _, v := range []Visitor{mallory, elsewhere, {}} {
		_, err := s.Authorize(t.Context(), id, v, target)
		wantReason(t, err, apierr.ReasonHandshakeMismatch)
	}
	a, err := s.Authorize(t.Context(), id, jane, target)
	if err != nil {
		t.Fatal(err)
	}
	good := map[string]string{a.BindingName: a.Binding}
	for _, v := range []Visitor{mallory, elsewhere} {
		_, err := s.Complete(t.Context(), a.State, good, v, target)
		wantReason(t, err, apierr.ReasonHandshakeMismatch)
	}
	for _, cookies := range []map[string]string{nil, {a.BindingName: ""}, {a.BindingName: a.Binding + "x"}, {"other": a.Binding}} {
		_, err := s.Complete(t.Context(), a.State, cookies, jane, target)
		wantReason(t, err, apierr.ReasonHandshakeMismatch)
	}
	_, err = s.Complete(t.Context(), a.State, good, jane, Target{SiteURL: "http://localhost:8081", ConsumerKey: "key"})
	wantReason(t, err, apierr.ReasonHandshakeExpired)
	if _, err := s.Complete(t.Context(), a.State, good, jane, target); err != nil {
		t.Errorf("the right one was shut out: %v", err)
	}
}

func TestHandshake_unknownAndExpired(t *testing.T) {
	s, redis, ahead := newStore(t)
	for _, v := range []string{"", "x", strings.Repeat("x", 5000), "a}b{c:*"} {
		_, err := s.LookUp(t.Context(), v, v)
		wantReason(t, err, apierr.ReasonHandshakeExpired)
	}
	id := begin(t, s)
	a := authorize(t, s)
	redis.FastForward(Life + time.Second)
	ahead.Store(int64(Life + time.Second))
	_, err := s.Authorize(t.Context(), id, jane, target)
	wantReason(t, err, apierr.ReasonHandshakeExpired)
	_, err = s.Complete(t.Context(), a.State, map[string]string{a.BindingName: a.Binding}, jane, target)
	wantReason(t, err, apierr.ReasonHandshakeExpired)
	if p, err := s.Pending(t.Context(), "acme"); err != nil || p != nil {
		t.Errorf("still pending: %v %v", p, err)
	}
}

func TestPending(t *testing.T) {
	s, _, _ := newStore(t)
	if p, err := s.Pending(t.Context(), "acme"); err != nil || p != nil {
		t.Fatalf("%v %v", p, err)
	}
	first := authorize(t, s)
	second := authorize(t, s)
	complete := func(a Authorization) {
		if _, err := s.Complete(t.Context(), a.State, map[string]string{a.BindingName: a.Binding}, jane, target); err != nil {
			t.Fatal(err)
		}
	}
	name := func() string {
		p, err := s.Pending(t.Context(), "acme")
		if err != nil {
			t.Fatal(err)
		}
		return p.GetName()
	}
	if name() != second.BindingName {
		t.Error("not the one begun last")
	}
	complete(first)
	if name() != second.BindingName {
		t.Error("the answer to another one was taken for its own")
	}
	complete(second)
	if name() != "" {
		t.Error("still pending after its answer")
	}
}

func TestRedis_holdsNoSecret(t *testing.T) {
	s, redis, _ := newStore(t)
	id := begin(t, s)
	a := authorize(t, s)
	client := redis.Client()
	keys, err := client.Keys(t.Context(), "*").Result()
	if err != nil || len(keys) != 3 { // one start, one state, one pending
		t.Fatalf("keys %v, %v", keys, err)
	}
	for _, k := range keys {
		v, err := client.Get(t.Context(), k).Result()
		if err != nil {
			t.Fatal(err)
		}
		ttl, err := client.TTL(t.Context(), k).Result()
		if err != nil || ttl <= 0 || ttl > Life {
			t.Errorf("%s lives %v", k, ttl)
		}
		for _, secret := range []string{id, a.State, a.Binding, "user-jane"} {
			if strings.Contains(k+v, secret) {
				t.Errorf("%s shows a secret", k)
			}
		}
	}
	// What was sealed under one key does not open under another.
	raw, err := client.Get(t.Context(), stateKey(a.State)).Result()
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Set(t.Context(), stateKey("planted"), raw, Life).Err(); err != nil {
		t.Fatal(err)
	}
	_, err = s.LookUp(t.Context(), "", "planted")
	wantReason(t, err, apierr.ReasonHandshakeExpired)
}

func TestRedisAway(t *testing.T) {
	s, redis, _ := newStore(t)
	s.patience = time.Second
	id := begin(t, s)
	redis.Stop()
	_, _, err := s.Begin(t.Context(), jane, Wish{ReturnPath: "/"})
	wantReason(t, err, apierr.ReasonServiceUnavailable)
	_, err = s.LookUp(t.Context(), id, "")
	wantReason(t, err, apierr.ReasonServiceUnavailable)
	_, err = s.Authorize(t.Context(), id, jane, target)
	wantReason(t, err, apierr.ReasonServiceUnavailable)
	var p *authstorev1.PendingHandshake
	p, err = s.Pending(t.Context(), "acme")
	wantReason(t, err, apierr.ReasonServiceUnavailable)
	if p != nil {
		t.Error("pending although Redis is away")
	}
}

// TestRedisBack: who connects while another server takes Redis' place is kept waiting, not turned away,
// also by a process that has stopped asking Redis for a moment.
func TestRedisBack(t *testing.T) {
	s, redis, _ := newStore(t)
	client, err := redisx.Connect(redis.URL())
	if err != nil {
		t.Fatal(err)
	}
	if s.cache, err = redisx.NewCache(client); err != nil {
		t.Fatal(err)
	}
	s.patience = time.Minute // how long a busy machine takes is not what is tested
	id, back := begin(t, s), authorize(t, s)
	steps := map[string]func() error{
		"begins":      func() error { _, _, err := s.Begin(t.Context(), jane, Wish{ReturnPath: "/"}); return err },
		"is sent off": func() error { _, err := s.Authorize(t.Context(), id, jane, target); return err },
		"comes back": func() error {
			_, err := s.Complete(t.Context(), back.State, map[string]string{back.BindingName: back.Binding}, jane, target)
			return err
		},
	}
	for name, step := range steps {
		redis.Stop()
		for { // until the circuit is open
			if _, err := s.cache.Get(t.Context(), "key"); err != nil && strings.Contains(err.Error(), "not asked") {
				break
			}
		}
		ended := make(chan error, 1)
		go func() { ended <- step() }()
		redis.Start()
		if err := <-ended; err != nil {
			t.Errorf("who %s: %v", name, err)
		}
	}
}
