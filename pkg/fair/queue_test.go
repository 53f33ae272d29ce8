package fair

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// run starts a queue in the test's bubble and returns how to end it.
func run[T any](t *testing.T, cfg Config[T]) (*Queue[T], func()) {
	t.Helper()
	q := New(cfg)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		q.Run(ctx, context.WithoutCancel(ctx))
	}()
	return q, func() {
		cancel()
		<-done
	}
}

func numbers(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

func TestQueue_aNewcomerDoesNotWaitForABacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var turns []string
		q, stop := run(t, Config[int]{Workers: 1, Turn: 10, Handle: func(_ context.Context, owner string, _ []int) error {
			time.Sleep(time.Second) //nolint:forbidigo // the clock of synctest
			mu.Lock()
			defer mu.Unlock()
			turns = append(turns, owner)
			return nil
		}})
		defer stop()
		q.Add("a", numbers(1000), func(error) {})
		synctest.Wait()
		answered := make(chan error, 1)
		q.Add("b", []int{1}, func(err error) { answered <- err })
		if err := <-answered; err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		defer mu.Unlock()
		if !slices.Equal(turns, []string{"a", "b"}) {
			t.Errorf("turns before the newcomer was served: %v; he waits for the one under way only", turns)
		}
	})
}

func TestQueue_oneOwnersTroubleHoldsUpNobodyAndKeepsItsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		away := errors.New("away")
		var mu sync.Mutex
		got := map[string][]int{}
		tries := 0
		q, stop := run(t, Config[int]{Workers: 1, Turn: 2, Temporary: func(err error) bool { return errors.Is(err, away) },
			Handle: func(_ context.Context, owner string, items []int) error {
				mu.Lock()
				defer mu.Unlock()
				if owner == "a" {
					if tries++; tries <= 5 {
						return away
					}
				}
				got[owner] = append(got[owner], items...)
				return nil
			}})
		defer stop()
		a, b := make(chan error, 1), make(chan error, 1)
		q.Add("a", numbers(5), func(err error) { a <- err })
		q.Add("b", numbers(5), func(err error) { b <- err })
		if err := <-b; err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		if len(got["a"]) != 0 {
			t.Error("the owner in trouble was done first: this shows nothing")
		}
		mu.Unlock()
		q.Add("a", []int{5, 6}, func(error) {}) // behind those that are tried again
		if err := <-a; err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if want := numbers(7); !slices.Equal(got["a"], want) {
			t.Errorf("the owner in trouble got %v, not %v", got["a"], want)
		}
	})
}

func TestQueue_whatIsWrongWithOneIsNotHeldAgainstItsNeighbours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := errors.New("bad")
		q, stop := run(t, Config[int]{Workers: 2, Turn: 100, Handle: func(_ context.Context, _ string, items []int) error {
			if slices.Contains(items, 13) {
				return bad
			}
			return nil
		}, Interval: time.Second})
		defer stop()
		answers := make([]error, 20)
		var all sync.WaitGroup
		all.Add(len(answers))
		for i := range answers {
			q.Add("a", []int{i, i}, func(err error) { answers[i] = err; all.Done() })
		}
		all.Wait()
		for i, err := range answers {
			if (i == 13) != errors.Is(err, bad) {
				t.Errorf("item %d is answered %v", i, err)
			}
		}
	})
}

func TestQueue_whatTricklesInIsHandledTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var turns []int
		var firstAfter time.Duration
		began := time.Now()
		q, stop := run(t, Config[int]{Workers: 2, Turn: 100, Interval: 250 * time.Millisecond, Handle: func(_ context.Context, _ string, items []int) error {
			if len(turns) == 0 {
				firstAfter = time.Since(began)
			}
			turns = append(turns, len(items)) // one worker at a time
			return nil
		}})
		for range 20 {
			q.Add("a", []int{1}, func(error) {})
			time.Sleep(50 * time.Millisecond) //nolint:forbidigo // the clock of synctest
		}
		time.Sleep(time.Second) //nolint:forbidigo // the clock of synctest
		stop()
		if firstAfter != 0 {
			t.Errorf("the first waited %v", firstAfter)
		}
		if len(turns) > 6 {
			t.Errorf("20 in a second took the turns %v; 5 and one more would do", turns)
		}
	})
}

func TestQueue_anEndAnswersWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun, release := make(chan struct{}), make(chan struct{})
		q, stop := run(t, Config[int]{Workers: 1, Turn: 1, Handle: func(context.Context, string, []int) error {
			close(begun)
			<-release
			return nil
		}})
		var first, second error
		q.Add("a", []int{1}, func(err error) { first = err })
		<-begun
		q.Add("a", []int{2}, func(err error) { second = err })
		ended := make(chan struct{})
		go func() { defer close(ended); stop() }()
		synctest.Wait()
		close(release)
		<-ended
		if first != nil || !errors.Is(second, context.Canceled) {
			t.Errorf("answers: %v for what had begun, %v for what waited", first, second)
		}
		var late error
		q.Add("a", []int{3}, func(err error) { late = err })
		if !errors.Is(late, context.Canceled) {
			t.Errorf("after the end: %v", late)
		}
	})
}

// A group whose work stands still has its share of the workers, and no more: others are served.
func TestQueue_aGroupThatStandsStillHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stall := make(chan struct{})
		var mu sync.Mutex
		served := map[string]int{}
		q, stop := run(t, Config[int]{
			Workers: 4, Share: 3, Turn: 1, Group: func(owner string) string { return owner[:1] },
			Handle: func(_ context.Context, owner string, _ []int) error {
				mu.Lock()
				served[owner[:1]]++
				mu.Unlock()
				if owner[0] == 'a' {
					<-stall
				}
				return nil
			},
		})
		defer stop()
		answered := make(chan error, 20)
		for i := range 10 {
			q.Add("a"+string(rune('0'+i)), []int{1}, func(err error) { answered <- err })
		}
		synctest.Wait()
		q.Add("b0", []int{1}, func(err error) { answered <- err })
		q.Add("b1", []int{1}, func(err error) { answered <- err })
		synctest.Wait()
		mu.Lock()
		if served["a"] != 3 || served["b"] != 2 {
			t.Errorf("served %v; the share of a is 3 and b has all it wants", served)
		}
		mu.Unlock()
		close(stall)
		for range 12 {
			if err := <-answered; err != nil {
				t.Error(err)
			}
		}
		if len(q.groups) != 0 || len(q.owners) != 0 {
			t.Errorf("%d groups and %d owners are left", len(q.groups), len(q.owners))
		}
	})
}

// Groups take turns: one with many owners delays one with a single owner by a turn.
func TestQueue_groupsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var turns []string
		q, stop := run(t, Config[int]{
			Workers: 1, Turn: 1, Group: func(owner string) string { return owner[:1] },
			Handle: func(_ context.Context, owner string, _ []int) error {
				time.Sleep(time.Second) //nolint:forbidigo // the clock is the test's own
				mu.Lock()
				defer mu.Unlock()
				turns = append(turns, owner[:1])
				return nil
			},
		})
		defer stop()
		for i := range 10 {
			q.Add("a"+string(rune('0'+i)), []int{1}, func(error) {})
		}
		synctest.Wait()
		answered := make(chan error, 1)
		q.Add("b", []int{1}, func(err error) { answered <- err })
		if err := <-answered; err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		defer mu.Unlock()
		if len(turns) > 3 {
			t.Errorf("turns before the other group was served: %v", turns)
		}
	})
}
