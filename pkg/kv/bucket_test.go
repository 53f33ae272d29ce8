package kv_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/testkit"
)

type stringBucket = kv.Bucket[wrapperspb.StringValue, *wrapperspb.StringValue]

func openStrings(t testing.TB, s *testkit.NATSServer, cfg kv.Config) *stringBucket {
	t.Helper()
	b, err := kv.Open[wrapperspb.StringValue](t.Context(), s.JS(), cfg)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return b
}

func str(s string) *wrapperspb.StringValue { return wrapperspb.String(s) }

func TestBucket_createGetSetDelete(t *testing.T) {
	b := openStrings(t, testkit.NATS(t), kv.Config{Name: "b"})
	ctx := t.Context()

	if _, _, err := b.Get(ctx, "k"); !errors.Is(err, kv.ErrNotFound) {
		t.Fatalf("get of nothing: %v", err)
	}
	r1, err := b.Create(ctx, "k", str("one"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Create(ctx, "k", str("two")); !errors.Is(err, kv.ErrExists) {
		t.Fatalf("second create: %v", err)
	}
	r2, err := b.CompareAndSet(ctx, "k", str("two"), r1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.CompareAndSet(ctx, "k", str("three"), r1); !errors.Is(err, kv.ErrConflict) {
		t.Fatalf("write at an old revision: %v", err)
	}
	v, rev, err := b.Get(ctx, "k")
	if err != nil || v.GetValue() != "two" || rev != r2 {
		t.Fatalf("get: %v at %d, %v", v, rev, err)
	}
	if err := b.Delete(ctx, "k", r1); !errors.Is(err, kv.ErrConflict) {
		t.Fatalf("delete at an old revision: %v", err)
	}
	if err := b.Delete(ctx, "k", r2); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.Get(ctx, "k"); !errors.Is(err, kv.ErrNotFound) {
		t.Fatalf("get after delete: %v", err)
	}
	if err := b.Delete(ctx, "k", 0); !errors.Is(err, kv.ErrNotFound) {
		t.Fatalf("second delete: %v", err)
	}
	if _, err := b.CompareAndSet(ctx, "k", str("zombie"), r2); !errors.Is(err, kv.ErrConflict) {
		t.Fatalf("write at the last live revision resurrects: %v", err)
	}
	if _, err := b.Create(ctx, "k", str("new life")); err != nil {
		t.Fatalf("create after delete: %v", err)
	}
}

func TestUpdate_concurrentWritersLoseNothing(t *testing.T) {
	s := testkit.NATS(t)
	b := openStrings(t, s, kv.Config{Name: "b"})
	const writers, each = 8, 10
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				_, _, err := b.Update(t.Context(), "k", func(cur *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
					return str(cur.GetValue() + fmt.Sprintf("<%d.%d>", w, i)), nil
				})
				if err != nil {
					t.Errorf("update: %v", err)
				}
			}
		})
	}
	wg.Wait()
	v, _, err := b.Get(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(v.GetValue(), "<"); got != writers*each {
		t.Fatalf("%d updates kept of %d", got, writers*each)
	}
}

func TestUpdate_skipLeavesTheRecordAlone(t *testing.T) {
	b := openStrings(t, testkit.NATS(t), kv.Config{Name: "b"})
	skip := func(cur *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
		if cur != nil {
			cur.Value = "scribbled"
		}
		return nil, kv.ErrSkip
	}
	v, rev, err := b.Update(t.Context(), "k", skip)
	if v != nil || rev != 0 || err != nil {
		t.Fatalf("skip of nothing: %v %d %v", v, rev, err)
	}
	want, err := b.Create(t.Context(), "k", str("one"))
	if err != nil {
		t.Fatal(err)
	}
	v, rev, err = b.Update(t.Context(), "k", skip)
	if v.GetValue() != "one" || rev != want || err != nil {
		t.Fatalf("skip: %v %d %v", v, rev, err)
	}
	mine := errors.New("mine")
	if _, _, err := b.Update(t.Context(), "k", func(*wrapperspb.StringValue) (*wrapperspb.StringValue, error) { return nil, mine }); !errors.Is(err, mine) {
		t.Fatalf("an error of the function came back as %v", err)
	}
}

// A server that is slow to answer is asked again, as the question may be lost, but not every second:
// hundreds of callers would drown it.
func TestBucket_aSlowServerIsAskedEverMoreSeldom(t *testing.T) {
	t.Parallel()
	s := testkit.RealNATS(t)
	nc, js := s.Connect()
	b, err := kv.Open[wrapperspb.StringValue](t.Context(), js, kv.Config{Name: "b"})
	if err != nil {
		t.Fatal(err)
	}
	s.Stop() // frozen: the connection stays, nothing answers
	defer s.Continue()
	before := nc.Stats().OutMsgs
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, _, err := b.Get(ctx, "k"); !errors.Is(err, kv.ErrUnavailable) {
		t.Fatalf("get: %v", err)
	}
	if asked := nc.Stats().OutMsgs - before; asked < 1 || asked > 3 {
		t.Errorf("asked %d times within 5 s", asked)
	}
}

func TestBucket_storeDownIsUnavailableWithinItsBound(t *testing.T) {
	s := testkit.NATS(t)
	b := openStrings(t, s, kv.Config{Name: "b"})
	s.Stop()
	start := time.Now()
	if _, _, err := b.Get(context.Background(), "k"); !errors.Is(err, kv.ErrUnavailable) {
		t.Fatalf("get: %v", err)
	}
	if _, err := b.Create(context.Background(), "k", str("x")); !errors.Is(err, kv.ErrUnavailable) {
		t.Fatalf("create: %v", err)
	}
	// Four seconds at most for what was on its way when the connection broke, two for the rest.
	if d := time.Since(start); d > 30*time.Second {
		t.Fatalf("took %v", d)
	}
	s.Start()
	testkit.Eventually(t, 10*time.Second, func() error {
		_, err := b.Create(t.Context(), "k", str("x"))
		return err
	})
}

func TestBucket_updateAfterIsStoredAfterWhatHasToComeFirst(t *testing.T) {
	b := openStrings(t, testkit.NATS(t), kv.Config{Name: "b"})
	put(t, b, "k", "one")
	two := func(*wrapperspb.StringValue) (*wrapperspb.StringValue, error) { return str("two"), nil }
	read := func() string {
		t.Helper()
		v, _, err := b.Get(t.Context(), "k")
		if err != nil {
			t.Fatal(err)
		}
		return v.GetValue()
	}
	failed := errors.New("failed")
	if _, _, err := b.UpdateAfter(t.Context(), "k", two, func(context.Context) error { return failed }); !errors.Is(err, failed) || read() != "one" {
		t.Fatalf("%v, stored %s", err, read())
	}
	skip := func(*wrapperspb.StringValue) (*wrapperspb.StringValue, error) { return nil, kv.ErrSkip }
	if _, _, err := b.UpdateAfter(t.Context(), "k", skip, func(context.Context) error { return failed }); err != nil {
		t.Fatalf("nothing to store: %v", err)
	}
	before := ""
	if _, _, err := b.UpdateAfter(t.Context(), "k", two, func(context.Context) error { before = read(); return nil }); err != nil || before != "one" || read() != "two" {
		t.Fatalf("%v, was %s, stored %s", err, before, read())
	}
}
