package redisx_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/redisx"
	"devpilot.io/bitbucket/pkg/testkit"
)

const wait = 10 * time.Second

func client(t testing.TB, url string) redis.UniversalClient {
	t.Helper()
	c, err := redisx.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func cache(t testing.TB, c redis.UniversalClient) *redisx.Cache {
	t.Helper()
	k, err := redisx.NewCache(c)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestConnect_errorsDoNotShowThePassword(t *testing.T) {
	_, err := redisx.Connect("redis://:hunter2@host:port:more")
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Fatalf("%v", err)
	}
}

func TestConnect_aDeadRedisCostsNothingAfterTheFirstFailures(t *testing.T) {
	r := testkit.Redis(t)
	c := client(t, r.URL())
	if err := c.Ping(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	r.Stop()
	for range 3 {
		if err := c.Ping(t.Context()).Err(); !errors.Is(err, redisx.ErrUnavailable) {
			t.Fatalf("%v", err)
		}
	}
	start := time.Now()
	for range 1000 {
		if err := c.Ping(t.Context()).Err(); !errors.Is(err, redisx.ErrUnavailable) {
			t.Fatalf("%v", err)
		}
	}
	// Each would take CallTimeout if it waited.
	if d := time.Since(start); d > 100*redisx.CallTimeout {
		t.Fatalf("1000 calls to a dead Redis took %v", d)
	}
	if _, err := c.Pipelined(t.Context(), func(p redis.Pipeliner) error { p.Get(t.Context(), "k"); return nil }); !errors.Is(err, redisx.ErrUnavailable) {
		t.Fatalf("pipeline: %v", err)
	}
	r.Start()
	testkit.Eventually(t, wait, func() error { return c.Ping(t.Context()).Err() })
}

// A Redis that takes connections and never answers: each call has its bound, then none waits.
func TestConnect_aFrozenRedisIsBounded(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	c := client(t, "redis://"+l.Addr().String())
	start := time.Now()
	for range 3 {
		if err := c.Get(context.Background(), "k").Err(); !errors.Is(err, redisx.ErrUnavailable) {
			t.Fatalf("%v", err)
		}
	}
	if d := time.Since(start); d > 30*redisx.CallTimeout {
		t.Fatalf("three calls took %v", d)
	}
}

func TestConnect_realRedisOverARestart(t *testing.T) {
	r := testkit.RealRedis(t)
	c := client(t, r.URL())
	k := cache(t, c)
	if err := k.SetJSON(t.Context(), "k", "v", time.Minute); err != nil {
		t.Fatal(err)
	}
	r.Stop() // frozen
	start := time.Now()
	if _, err := k.Get(t.Context(), "k"); !errors.Is(err, redisx.ErrUnavailable) {
		t.Fatalf("%v", err)
	}
	if d := time.Since(start); d > 30*redisx.CallTimeout {
		t.Fatalf("a frozen Redis cost %v", d)
	}
	r.Continue()
	testkit.Eventually(t, wait, func() error { _, err := k.Get(t.Context(), "k"); return err })
	r.Restart()
	testkit.Eventually(t, wait, func() error {
		if _, err := k.Get(t.Context(), "k"); !errors.Is(err, redisx.ErrMiss) {
			return fmt.Errorf("after a restart: %w", err)
		}
		return nil
	})
}

// The caller's own hurry, and errors that Redis answers with, say nothing against Redis.
func TestConnect_onlyOutagesOpenTheCircuit(t *testing.T) {
	c := client(t, testkit.Redis(t).URL())
	if err := c.Set(t.Context(), "s", "text", time.Minute).Err(); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if err := c.Incr(t.Context(), "s").Err(); err == nil || errors.Is(err, redisx.ErrUnavailable) {
			t.Fatalf("wrong type: %v", err)
		}
		if err := c.Get(t.Context(), "absent").Err(); !errors.Is(err, redis.Nil) {
			t.Fatalf("absent: %v", err)
		}
		done, cancel := context.WithCancel(t.Context())
		cancel()
		if err := c.Get(done, "s").Err(); !errors.Is(err, context.Canceled) {
			t.Fatalf("cancelled: %v", err)
		}
	}
	if err := c.Get(t.Context(), "s").Err(); err != nil {
		t.Fatal(err)
	}
}

func TestKey(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{redisx.Key("repo", "listing", "acme-inc"), "devpilot:repo:v1:listing:{acme-inc}"},
		{redisx.Key("repo", "branches", "acme-inc", "85d08b4e"), "devpilot:repo:v1:branches:{acme-inc/85d08b4e}"},
		{redisx.Key("repo", "branches", "a/b", "c"), "devpilot:repo:v1:branches:{a%2Fb/c}"},
		{redisx.Key("auth", "handshake", "{x}:y"), "devpilot:auth:v1:handshake:{%7Bx%7D:y}"},
	} {
		if c.got != c.want {
			t.Errorf("%q, want %q", c.got, c.want)
		}
	}
}

func TestCache_keepsAndForgets(t *testing.T) {
	r := testkit.Redis(t)
	c := client(t, r.URL())
	k := cache(t, c)
	ctx := t.Context()
	if _, err := k.Get(ctx, "k"); !errors.Is(err, redisx.ErrMiss) {
		t.Fatalf("%v", err)
	}
	for _, size := range []int{0, 1, 1 << 10, 1 << 20} {
		want := strings.Repeat("r", size)
		if err := k.SetProto(ctx, "p", wrapperspb.String(want), time.Minute); err != nil {
			t.Fatal(err)
		}
		got := &wrapperspb.StringValue{}
		if err := k.GetProto(ctx, "p", got); err != nil || got.GetValue() != want {
			t.Fatalf("size %d: %d bytes, %v", size, len(got.GetValue()), err)
		}
	}
	if n := c.StrLen(ctx, "p").Val(); n > 10<<10 {
		t.Errorf("a listing of 1 MiB takes %d bytes", n)
	}
	r.FastForward(2 * time.Minute)
	if err := k.GetProto(ctx, "p", &wrapperspb.StringValue{}); !errors.Is(err, redisx.ErrMiss) {
		t.Fatalf("after its time to live: %v", err)
	}
	if err := k.Set(ctx, "for ever", nil, 0); err == nil {
		t.Error("a key without a time to live was stored")
	}
	type pair struct{ A, B string }
	if err := k.SetJSON(ctx, "j", pair{"1", "2"}, time.Minute); err != nil {
		t.Fatal(err)
	}
	var got pair
	if err := k.GetJSON(ctx, "j", &got); err != nil || got != (pair{"1", "2"}) {
		t.Fatalf("%v, %v", got, err)
	}
	if err := k.Delete(ctx, "j", "p"); err != nil {
		t.Fatal(err)
	}
	if err := k.GetJSON(ctx, "j", &got); !errors.Is(err, redisx.ErrMiss) {
		t.Fatalf("deleted: %v", err)
	}
	if err := k.Delete(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestCache_whatItCannotReadIsAMiss(t *testing.T) {
	c := client(t, testkit.Redis(t).URL())
	k := cache(t, c)
	for _, raw := range []string{"", "x", "\x02not zstd", "\x01{", "\x7f"} {
		if err := c.Set(t.Context(), "k", raw, time.Minute).Err(); err != nil {
			t.Fatal(err)
		}
		var v struct{ A int }
		if err := k.GetJSON(t.Context(), "k", &v); !errors.Is(err, redisx.ErrMiss) {
			t.Errorf("%q: %v", raw, err)
		}
	}
}

func TestCache_takeGivesToOneOnly(t *testing.T) {
	r := testkit.Redis(t)
	k := cache(t, client(t, r.URL()))
	if err := k.SetJSON(t.Context(), "state", "x", time.Minute); err != nil {
		t.Fatal(err)
	}
	var took atomic.Int32
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			var v string
			switch err := k.TakeJSON(t.Context(), "state", &v); {
			case err == nil && v == "x":
				took.Add(1)
			case !errors.Is(err, redisx.ErrMiss):
				t.Errorf("%q, %v", v, err)
			}
		})
	}
	wg.Wait()
	if took.Load() != 1 {
		t.Fatalf("taken %d times", took.Load())
	}
}

func TestLock_onlyItsOwnerLetsGo(t *testing.T) {
	r := testkit.Redis(t)
	c := client(t, r.URL())
	ctx := t.Context()
	first, err := redisx.TryLock(ctx, c, "lock", time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := redisx.TryLock(ctx, c, "lock", time.Second); !errors.Is(err, redisx.ErrHeld) {
		t.Fatalf("second: %v", err)
	}
	if err := first.Extend(ctx, time.Minute); err != nil {
		t.Fatal(err)
	}
	r.FastForward(2 * time.Minute) // its holder was slow
	second, err := redisx.TryLock(ctx, c, "lock", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Extend(ctx, time.Minute); !errors.Is(err, redisx.ErrHeld) {
		t.Fatalf("extended a lock that was lost: %v", err)
	}
	if err := first.Release(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := redisx.TryLock(ctx, c, "lock", time.Minute); !errors.Is(err, redisx.ErrHeld) {
		t.Fatalf("the slow holder freed its successor: %v", err)
	}
	if err := second.Release(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := redisx.TryLock(ctx, c, "lock", time.Minute); err != nil {
		t.Fatal(err)
	}
	r.Stop()
	if _, err := redisx.TryLock(ctx, c, "lock", time.Minute); !errors.Is(err, redisx.ErrUnavailable) || errors.Is(err, redisx.ErrHeld) {
		t.Fatalf("a lock store that is down must differ from a lock that is held: %v", err)
	}
}

func TestFlight_oneReplicaWorks(t *testing.T) {
	leaks := goleak.IgnoreCurrent()
	t.Run("run", func(t *testing.T) {
		r := testkit.Redis(t)
		var works atomic.Int32
		entered := make(chan struct{})
		release := make(chan struct{})
		var wg sync.WaitGroup
		for range 6 {
			c := client(t, r.URL())
			k := cache(t, c)
			wg.Go(func() {
				got, err := redisx.Flight[string]{
					Key: "flight", TTL: 3 * time.Second,
					Cached: func(ctx context.Context) (v string, ok bool) {
						return v, k.GetJSON(ctx, "result", &v) == nil
					},
					Work: func(ctx context.Context) (string, error) {
						if works.Add(1) == 1 {
							close(entered)
						}
						<-release
						return "listing", k.SetJSON(ctx, "result", "listing", time.Minute)
					},
				}.Do(t.Context(), c)
				if err != nil {
					t.Error(err)
				}
				_ = got
			})
		}
		<-entered
		// Longer than the lock's time to live, which its holder extends.
		<-time.After(4 * time.Second)
		close(release)
		wg.Wait()
		if works.Load() != 1 {
			t.Fatalf("%d replicas did the work", works.Load())
		}
	})
	testkit.Eventually(t, wait, func() error { return goleak.Find(leaks) })
}

func TestFlight_withoutRedisEverybodyWorks(t *testing.T) {
	r := testkit.Redis(t)
	c := client(t, r.URL())
	r.Stop()
	for range 5 {
		got, err := redisx.Flight[int]{
			Key:    "flight",
			Cached: func(context.Context) (int, bool) { return 0, false },
			Work:   func(context.Context) (int, error) { return 7, nil },
		}.Do(t.Context(), c)
		if err != nil || got != 7 {
			t.Fatalf("%d, %v", got, err)
		}
	}
}

func TestFlight_aHolderThatDiedIsReplaced(t *testing.T) {
	r := testkit.Redis(t)
	c := client(t, r.URL())
	if _, err := redisx.TryLock(t.Context(), c, "flight", 400*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	got, err := redisx.Flight[int]{
		Key:    "flight",
		Cached: func(context.Context) (int, bool) { return 0, false },
		Work:   func(context.Context) (int, error) { return 7, nil },
	}.Do(t.Context(), c)
	if err != nil || got != 7 {
		t.Fatalf("%d, %v", got, err)
	}
	if _, err := redisx.TryLock(t.Context(), c, "flight", time.Minute); err != nil {
		t.Fatalf("not released after the work: %v", err)
	}
	done, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = redisx.Flight[int]{Key: "flight", Cached: func(context.Context) (int, bool) { return 0, false }}.Do(done, c)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("waiting beyond its context: %v", err)
	}
}

var (
	repositories = bitbucket.Call{Resource: bitbucket.ResourceRepositories, Route: bitbucket.RouteRepository, Object: "acme/web"}
	hooks        = bitbucket.Call{Resource: bitbucket.ResourceHooks, Route: bitbucket.RouteHooks, Object: "acme/web"}
)

func take(t *testing.T, b *redisx.Budget, p bitbucket.Priority) (n int) {
	t.Helper()
	for n < 10_000 && b.Take(t.Context(), repositories, p, "") == 0 {
		n++
	}
	return n
}

func TestBudget_replicasShareIt(t *testing.T) {
	r := testkit.Redis(t)
	cfg := redisx.BudgetConfig{Client: client(t, r.URL()), Consumer: "consumer-key", Limit: 100}
	one, two := redisx.NewBudget(cfg), redisx.NewBudget(cfg)
	// Half of an hour's limit comes in one burst, of which background calls leave a part to people.
	if n := take(t, one, bitbucket.Background); n != 35 {
		t.Fatalf("background calls took %d", n)
	}
	if n := take(t, two, bitbucket.Interactive); n != 15 {
		t.Fatalf("%d were left to people", n)
	}
	wait := one.Take(t.Context(), repositories, bitbucket.Interactive, "")
	if wait < 30*time.Second || wait > 2*time.Minute {
		t.Fatalf("the next call waits %v, at 50 an hour", wait)
	}
	if one.Take(t.Context(), hooks, bitbucket.Interactive, "") != 0 {
		t.Fatal("another resource has a budget of its own")
	}
	other := cfg
	other.Consumer = "another-key"
	if redisx.NewBudget(other).Take(t.Context(), repositories, bitbucket.Interactive, "") != 0 {
		t.Fatal("another consumer has a budget of its own")
	}
}

func TestBudget_a429HoldsEverybodyBack(t *testing.T) {
	r := testkit.Redis(t)
	cfg := redisx.BudgetConfig{Client: client(t, r.URL()), Consumer: "consumer-key"}
	one, two := redisx.NewBudget(cfg), redisx.NewBudget(cfg)
	one.Exhausted(t.Context(), repositories, 5*time.Minute)
	for _, b := range []*redisx.Budget{one, two} {
		if d := b.Take(t.Context(), repositories, bitbucket.Interactive, ""); d < 4*time.Minute || d > 5*time.Minute {
			t.Errorf("waits %v", d)
		}
	}
	one.Exhausted(t.Context(), hooks, 0)
	if d := two.Take(t.Context(), hooks, bitbucket.Interactive, ""); d <= 0 || d > bitbucket.DefaultHold {
		t.Errorf("a 429 without a time holds for %v", d)
	}
}

func TestBudget_withoutRedisItIsAFixedLocalShare(t *testing.T) {
	r := testkit.Redis(t)
	log := testkit.Logger(t)
	b := redisx.NewBudget(redisx.BudgetConfig{Client: client(t, r.URL()), Consumer: "consumer-key", Limit: 400, Logger: log.Logger})
	r.Stop()
	start := time.Now()
	background := take(t, b, bitbucket.Background)
	interactive := take(t, b, bitbucket.Interactive)
	if background+interactive != 20 || background >= 20 || background < 10 {
		t.Fatalf("%d background and %d interactive calls from a tenth of 400, half of it at once", background, interactive)
	}
	if d := b.Take(t.Context(), repositories, bitbucket.Interactive, ""); d <= 0 || d > 5*time.Minute {
		t.Fatalf("the next call waits %v", d)
	}
	if d := time.Since(start); d > time.Minute {
		t.Fatalf("asking without Redis took %v", d)
	}
	b.Exhausted(t.Context(), hooks, time.Minute)
	if d := b.Take(t.Context(), hooks, bitbucket.Interactive, ""); d < 50*time.Second {
		t.Fatalf("a 429 is forgotten without Redis: %v", d)
	}
	if n := strings.Count(log.Text(), "redis is away"); n != 1 {
		t.Fatalf("logged %d times", n)
	}
	log.MustNotContain(t, "consumer-key")
	r.Start()
	testkit.Eventually(t, wait, func() error {
		if d := b.Take(t.Context(), repositories, bitbucket.Interactive, ""); d != 0 {
			return fmt.Errorf("waits %v although Redis is back", d)
		}
		return nil
	})
}

func TestKeys_allHaveATimeToLive(t *testing.T) {
	r := testkit.Redis(t)
	c := client(t, r.URL())
	b := redisx.NewBudget(redisx.BudgetConfig{Client: c, Consumer: "consumer-key"})
	b.Take(t.Context(), repositories, bitbucket.Interactive, "acme-inc")
	b.Exhausted(t.Context(), bitbucket.Call{Resource: bitbucket.ResourceOther, Route: bitbucket.RouteUser}, 0)
	if err := cache(t, c).Set(t.Context(), redisx.Key("repo", "listing", "x"), []byte("x"), time.Minute); err != nil {
		t.Fatal(err)
	}
	if _, err := redisx.TryLock(t.Context(), c, redisx.Key("repo", "lock", "x"), time.Minute); err != nil {
		t.Fatal(err)
	}
	keys := c.Keys(t.Context(), "*").Val()
	if len(keys) != 5 {
		t.Fatalf("keys %v", keys)
	}
	for _, key := range keys {
		if ttl := c.PTTL(t.Context(), key).Val(); ttl <= 0 || ttl > 2*time.Hour {
			t.Errorf("%s lives %v", key, ttl)
		}
		if strings.Contains(key, "consumer-key") || strings.Contains(key, "acme-inc") {
			t.Errorf("%s names the consumer or a workspace", key)
		}
	}
}
