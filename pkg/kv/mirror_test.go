package kv_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/testkit"
)

const wait = 15 * time.Second

type stringMirror = kv.Mirror[wrapperspb.StringValue, *wrapperspb.StringValue]

// background runs f until the test ends or stop is called.
func background(t *testing.T, f func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := f(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("background: %v", err)
		}
	}()
	stop = func() {
		cancel()
		select {
		case <-done:
		case <-time.After(wait):
			t.Error("does not stop")
		}
	}
	t.Cleanup(stop)
	return stop
}

func has(m *stringMirror, key, want string) func() error {
	return func() error {
		v, _, ok := m.Get(key)
		if !ok || v.GetValue() != want {
			return fmt.Errorf("%s is %q (%v), want %q", key, v.GetValue(), ok, want)
		}
		return nil
	}
}

func hasNot(m *stringMirror, key string) func() error {
	return func() error {
		if v, _, ok := m.Get(key); ok {
			return fmt.Errorf("%s is %q", key, v.GetValue())
		}
		return nil
	}
}

func put(t *testing.T, b *stringBucket, key, value string) {
	t.Helper()
	testkit.Eventually(t, wait, func() error {
		_, _, err := b.Update(t.Context(), key, func(*wrapperspb.StringValue) (*wrapperspb.StringValue, error) { return str(value), nil })
		return err
	})
}

func TestMirror_followsItsBucket(t *testing.T) {
	leaks := goleak.IgnoreCurrent()
	t.Run("run", func(t *testing.T) {
		b := openStrings(t, testkit.NATS(t), kv.Config{Name: "b"})
		put(t, b, "a", "1")
		put(t, b, "b", "1")
		put(t, b, "gone", "1")
		if err := b.Delete(t.Context(), "gone", 0); err != nil {
			t.Fatal(err)
		}
		m := kv.NewMirror(b)
		var mu sync.Mutex
		var changes []string
		m.OnChange(func(key string, v *wrapperspb.StringValue) {
			mu.Lock()
			defer mu.Unlock()
			changes = append(changes, key+"="+v.GetValue())
		})
		if err := m.Ready(t.Context()); !errors.Is(err, kv.ErrNotReady) {
			t.Fatalf("ready before it has seen anything: %v", err)
		}
		stop := background(t, m.Run)
		testkit.Eventually(t, wait, func() error { return m.Ready(t.Context()) })
		if m.Len() != 2 {
			t.Fatalf("%d keys", m.Len())
		}
		put(t, b, "a", "2")
		testkit.Eventually(t, wait, has(m, "a", "2"))
		if err := b.Delete(t.Context(), "b", 0); err != nil {
			t.Fatal(err)
		}
		testkit.Eventually(t, wait, hasNot(m, "b"))
		if all := m.All(); len(all) != 1 || all["a"].GetValue() != "2" {
			t.Fatalf("%v", all)
		}
		stop()
		mu.Lock()
		defer mu.Unlock()
		if want := []string{"a=1", "b=1", "a=2", "b="}; !slices.Equal(changes, want) {
			t.Fatalf("changes %v, want %v", changes, want)
		}
	})
	testkit.Eventually(t, wait, func() error { return goleak.Find(leaks) })
}

func TestMirror_emptyBucketIsReady(t *testing.T) {
	b := openStrings(t, testkit.NATS(t), kv.Config{Name: "b"})
	m := kv.NewMirror(b)
	background(t, m.Run)
	testkit.Eventually(t, wait, func() error { return m.Ready(t.Context()) })
	put(t, b, "a", "1")
	testkit.Eventually(t, wait, has(m, "a", "1"))
}

func TestMirror_isNotReadyWhileTheStoreIsAway(t *testing.T) {
	s := testkit.NATS(t)
	b := openStrings(t, s, kv.Config{Name: "b"})
	put(t, b, "a", "1")
	s.Stop()
	m := kv.NewMirror(b)
	background(t, m.Run)
	for range 20 {
		if err := m.Ready(t.Context()); !errors.Is(err, kv.ErrNotReady) {
			t.Fatalf("ready without a store: %v", err)
		}
		<-time.After(10 * time.Millisecond)
	}
	s.Start()
	testkit.Eventually(t, wait, func() error { return m.Ready(t.Context()) })
	testkit.Eventually(t, wait, has(m, "a", "1"))
}

func TestMirror_survivesARestartAndServesMeanwhile(t *testing.T) {
	s := testkit.NATS(t)
	b := openStrings(t, s, kv.Config{Name: "b"})
	put(t, b, "a", "1")
	m := kv.NewMirror(b)
	background(t, m.Run)
	testkit.Eventually(t, wait, has(m, "a", "1"))
	s.Stop()
	if err := has(m, "a", "1")(); err != nil {
		t.Fatalf("while the store is away: %v", err)
	}
	s.Start()
	put(t, b, "a", "2")
	testkit.Eventually(t, wait, has(m, "a", "2"))
}

// A key that vanished while nobody watched, without leaving a marker, is forgotten by the next pass.
func TestMirror_forgetsWhatVanishedDuringABreak(t *testing.T) {
	s := testkit.NATS(t)
	b := openStrings(t, s, kv.Config{Name: "b"})
	put(t, b, "a", "1")
	put(t, b, "b", "1")
	// The mirror's connection and the one that deletes are two.
	js := s.JS()
	m := kv.NewMirror(b)
	var mu sync.Mutex
	var gone []string
	m.OnChange(func(key string, v *wrapperspb.StringValue) {
		if v == nil {
			mu.Lock()
			defer mu.Unlock()
			gone = append(gone, key)
		}
	})
	background(t, m.Run)
	testkit.Eventually(t, wait, has(m, "b", "1"))
	st, err := js.Stream(t.Context(), kv.StreamName("b"))
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Purge(t.Context(), jetstream.WithPurgeSubject("$KV.b.b")); err != nil {
		t.Fatal(err)
	}
	s.Restart()
	testkit.Eventually(t, wait, hasNot(m, "b"))
	testkit.Eventually(t, wait, has(m, "a", "1"))
	testkit.Eventually(t, wait, func() error {
		mu.Lock()
		defer mu.Unlock()
		if !slices.Equal(gone, []string{"b"}) {
			return fmt.Errorf("told of %v", gone)
		}
		return nil
	})
}

func TestMirror_aBadRecordDoesNotTakeTheOthersAway(t *testing.T) {
	s := testkit.NATS(t)
	b := openStrings(t, s, kv.Config{Name: "b"})
	put(t, b, "good", "1")
	if _, err := s.JS().Publish(t.Context(), "$KV.b.bad", []byte{0xff, 0xff, 0xff}); err != nil {
		t.Fatal(err)
	}
	m := kv.NewMirror(b)
	background(t, m.Run)
	testkit.Eventually(t, wait, func() error { return m.Ready(t.Context()) })
	if err := has(m, "good", "1")(); err != nil {
		t.Fatal(err)
	}
	if err := hasNot(m, "bad")(); err != nil {
		t.Fatal(err)
	}
}

func TestWatch_seesAllThatExistsThenChangesAgainAfterABreak(t *testing.T) {
	s := testkit.NATS(t)
	b := openStrings(t, s, kv.Config{Name: "b"})
	put(t, b, "x.1", "one")
	put(t, b, "y.1", "other")
	var mu sync.Mutex
	seen := map[string]string{}
	background(t, func(ctx context.Context) error {
		return b.Watch(ctx, "x.>", func(key string, v *wrapperspb.StringValue, _ uint64) error {
			mu.Lock()
			defer mu.Unlock()
			if v == nil {
				delete(seen, key)
			} else {
				seen[key] = v.GetValue()
			}
			return nil
		})
	})
	sees := func(want map[string]string) func() error {
		return func() error {
			mu.Lock()
			defer mu.Unlock()
			if fmt.Sprint(seen) != fmt.Sprint(want) {
				return fmt.Errorf("seen %v, want %v", seen, want)
			}
			return nil
		}
	}
	testkit.Eventually(t, wait, sees(map[string]string{"x.1": "one"}))
	put(t, b, "x.2", "two")
	testkit.Eventually(t, wait, sees(map[string]string{"x.1": "one", "x.2": "two"}))
	s.Restart()
	testkit.Eventually(t, wait, func() error { return ignoreNotFound(b.Delete(t.Context(), "x.1", 0)) })
	testkit.Eventually(t, wait, sees(map[string]string{"x.2": "two"}))
}

func ignoreNotFound(err error) error {
	if errors.Is(err, kv.ErrNotFound) {
		return nil
	}
	return err
}

func TestWatch_endsWithTheErrorOfItsFunction(t *testing.T) {
	b := openStrings(t, testkit.NATS(t), kv.Config{Name: "b"})
	put(t, b, "a", "1")
	mine := errors.New("mine")
	err := b.Watch(t.Context(), ">", func(string, *wrapperspb.StringValue, uint64) error { return mine })
	if !errors.Is(err, mine) {
		t.Fatal(err)
	}
	if err := b.Watch(t.Context(), "a b", nil); !errors.Is(err, kv.ErrBadKey) {
		t.Fatal(err)
	}
}

func TestKeys_listsWhatExists(t *testing.T) {
	s := testkit.NATS(t)
	b := openStrings(t, s, kv.Config{Name: "b"})
	list := func(filter string) (keys []string) {
		t.Helper()
		for key, err := range b.Keys(t.Context(), filter) {
			if err != nil {
				t.Fatal(err)
			}
			keys = append(keys, key)
		}
		slices.Sort(keys)
		return keys
	}
	if got := list(">"); len(got) != 0 {
		t.Fatalf("empty bucket: %v", got)
	}
	for _, key := range []string{"a.1", "a.2", "a.3", "b.1"} {
		put(t, b, key, "x")
	}
	if err := b.Delete(t.Context(), "a.2", 0); err != nil {
		t.Fatal(err)
	}
	if got := list(">"); !slices.Equal(got, []string{"a.1", "a.3", "b.1"}) {
		t.Fatalf("%v", got)
	}
	if got := list("a.*"); !slices.Equal(got, []string{"a.1", "a.3"}) {
		t.Fatalf("%v", got)
	}
	for key, err := range b.Keys(t.Context(), ">") {
		if err != nil || key == "" {
			t.Fatalf("%q, %v", key, err)
		}
		break // a caller that has enough
	}
	s.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	var last error
	for _, err := range b.Keys(ctx, ">") {
		last = err
	}
	if !errors.Is(last, kv.ErrUnavailable) {
		t.Fatalf("a listing that could not be completed ended with %v", last)
	}
}
