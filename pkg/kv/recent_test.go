package kv_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/testkit"
)

// more appends to a key, and returns what the function was given each time.
func more(t *testing.T, b *stringBucket, key, suffix string) (given []string) {
	t.Helper()
	_, _, err := b.Update(t.Context(), key, func(cur *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
		given = append(given, cur.GetValue())
		return str(cur.GetValue() + suffix), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return given
}

func TestUpdate_doesNotAskForWhatThisProcessWrote(t *testing.T) {
	s := testkit.NATS(t)
	b := openStrings(t, s, kv.Config{Name: "b"})
	if _, err := b.Create(t.Context(), "k", str("")); err != nil {
		t.Fatal(err)
	}
	asked := questions(t, s)
	for range 20 {
		more(t, b, "k", "x")
	}
	if n := asked(); n != 0 {
		t.Errorf("20 updates asked the leader %d times", n)
	}
	if v, _, err := b.Get(t.Context(), "k"); err != nil || len(v.GetValue()) != 20 {
		t.Errorf("the key holds %v, %v", v, err)
	}
}

func TestUpdate_manyOfOneKeyWaitForEachOtherAndLoseNoTry(t *testing.T) {
	s := testkit.NATS(t)
	b := openStrings(t, s, kv.Config{Name: "b"})
	if _, err := b.Create(t.Context(), "k", str("")); err != nil {
		t.Fatal(err)
	}
	asked := questions(t, s)
	var tries atomic.Int32
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			for range 10 {
				if _, _, err := b.Update(t.Context(), "k", func(cur *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
					tries.Add(1)
					return str(cur.GetValue() + "x"), nil
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	callers.Wait()
	if n := tries.Load(); n != 80 {
		t.Errorf("80 updates took %d tries", n)
	}
	if n := asked(); n != 0 {
		t.Errorf("80 updates asked the leader %d times", n)
	}
	if v, _, err := b.Get(t.Context(), "k"); err != nil || len(v.GetValue()) != 80 {
		t.Errorf("the key holds %v, %v", v, err)
	}
}

func TestUpdate_whoWaitsForAnotherGivesUpInTime(t *testing.T) {
	b := openStrings(t, testkit.NATS(t), kv.Config{Name: "b"})
	within, leave := make(chan struct{}), make(chan struct{})
	ended := make(chan error)
	go func() {
		_, _, err := b.Update(t.Context(), "k", func(*wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
			close(within)
			<-leave
			return nil, kv.ErrSkip
		})
		ended <- err
	}()
	<-within
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err := b.Update(ctx, "k", func(*wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
		t.Error("two updates of one key at the same time")
		return nil, kv.ErrSkip
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("it gave up with %v", err)
	}
	more(t, b, "another", "x") // waits for nobody
	close(leave)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestUpdate_doesNotBuildOnWhatSomebodyElseReplaced(t *testing.T) {
	s := testkit.NATS(t)
	b := openStrings(t, s, kv.Config{Name: "b"})
	theirs := other(t, s, kv.Config{Name: "b"})
	more(t, b, "k", "a")
	more(t, theirs, "k", "b")
	if given := more(t, b, "k", "c"); len(given) == 0 || given[len(given)-1] != "ab" {
		t.Errorf("the update was made of %q", given)
	}
	if v, _, err := theirs.Get(t.Context(), "k"); err != nil || v.GetValue() != "abc" {
		t.Errorf("the key holds %v, %v", v, err)
	}

	// What is decided against is decided on what is there, too.
	more(t, theirs, "k", "d")
	mine := errors.New("mine")
	for refusal, want := range map[error]error{kv.ErrSkip: nil, mine: mine} {
		var last string
		v, _, err := b.Update(t.Context(), "k", func(cur *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
			last = cur.GetValue()
			return nil, refusal
		})
		if last != "abcd" {
			t.Errorf("%v was decided on %q", refusal, last)
		}
		if !errors.Is(err, want) || want == nil && v.GetValue() != "abcd" {
			t.Errorf("%v came to %v, %v", refusal, v, err)
		}
	}
}

func TestUpdate_ofADeletedKeyBeginsWithNothing(t *testing.T) {
	s := testkit.NATS(t)
	b := openStrings(t, s, kv.Config{Name: "b"})
	more(t, b, "mine", "a")
	more(t, b, "theirs", "a")
	if err := b.Delete(t.Context(), "mine", 0); err != nil {
		t.Fatal(err)
	}
	if err := other(t, s, kv.Config{Name: "b"}).Delete(t.Context(), "theirs", 0); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"mine", "theirs"} {
		given := more(t, b, key, "b")
		if last := given[len(given)-1]; last != "" {
			t.Errorf("the update of %s was made of %q", key, last)
		}
		if v, _, err := b.Get(t.Context(), key); err != nil || v.GetValue() != "b" {
			t.Errorf("%s holds %v, %v", key, v, err)
		}
	}
}
