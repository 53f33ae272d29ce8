package schedule_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/deployer/internal/control/schedule"
	"devpilot.io/bitbucket/services/deployer/internal/record/reminder"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

const limit = time.Minute

// bench is a schedule with lists that share it, and a clock that the test moves.
type bench struct {
	t      *testing.T
	bucket *kv.Bucket[storev1.Due, *storev1.Due]
	book   *reminder.Book

	mu    sync.Mutex
	ahead time.Duration
	calls map[string][]int // attempts, by name
	next  func(name string, attempts int) (time.Time, error)
}

func newBench(t *testing.T, lists int) *bench {
	t.Helper()
	bucket, err := kv.Open[storev1.Due](t.Context(), testkit.JS(t), kv.Config{Name: "due"})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, bucket: bucket, book: &reminder.Book{Bucket: bucket}, calls: map[string][]int{}}
	for range lists {
		b.start()
	}
	return b
}

func (b *bench) start() {
	l := schedule.New(b.bucket, testkit.Logger(b.t).Logger, b.now)
	l.Handle(reminder.Lane, func(_ context.Context, workspace, name string, attempts int) (time.Time, error) {
		if workspace != "ws" {
			b.t.Errorf("workspace %q", workspace)
		}
		b.mu.Lock()
		b.calls[name] = append(b.calls[name], attempts)
		next := b.next
		b.mu.Unlock()
		if next == nil {
			return time.Time{}, nil
		}
		return next(name, attempts)
	})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := l.Run(ctx); err != nil {
			b.t.Errorf("run: %v", err)
		}
	})
	b.t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	testkit.Eventually(b.t, limit, func() error { return l.Ready(b.t.Context()) })
}

func (b *bench) now() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return time.Now().Add(b.ahead)
}

func (b *bench) jump(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ahead += d
}

func (b *bench) touch(name string, in time.Duration) uint64 {
	b.t.Helper()
	rev, err := b.book.Touch(b.t.Context(), reminder.Lane, "ws", name, b.now().Add(in))
	if err != nil {
		b.t.Fatal(err)
	}
	return rev
}

func (b *bench) attempts(name string) []int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]int(nil), b.calls[name]...)
}

// awaitCalls waits until a name was handled so often.
func (b *bench) awaitCalls(name string, n int) {
	b.t.Helper()
	testkit.Eventually(b.t, limit, func() error {
		if got := b.attempts(name); len(got) < n {
			return fmt.Errorf("%s was handled %d times, want %d", name, len(got), n)
		}
		return nil
	})
}

// awaitGone waits until an entry is not there any more.
func (b *bench) awaitGone(name string) {
	b.t.Helper()
	testkit.Eventually(b.t, limit, func() error {
		_, _, err := b.bucket.Get(b.t.Context(), reminder.Key(reminder.Lane, "ws", name))
		if errors.Is(err, kv.ErrNotFound) {
			return nil
		}
		return fmt.Errorf("%s is still there: %w", name, err)
	})
}

func TestList_whatIsDueIsHandledAndGoes(t *testing.T) {
	b := newBench(t, 1)
	b.touch("later", time.Hour)
	b.touch("now", 0)
	b.awaitGone("now")
	if got := b.attempts("now"); len(got) != 1 || got[0] != 1 {
		t.Errorf("attempts %v", got)
	}
	if got := b.attempts("later"); len(got) != 0 {
		t.Errorf("what is due in an hour was handled: %v", got)
	}
}

// A thing may become due sooner than it was, and later; what is removed is not handled.
func TestList_theLastWordOnATimeCounts(t *testing.T) {
	b := newBench(t, 1)
	b.touch("sooner", time.Hour)
	b.touch("postponed", 30*time.Minute)
	rev := b.touch("removed", 30*time.Minute)
	b.touch("postponed", 3*time.Hour)
	if err := b.book.Clear(t.Context(), reminder.Lane, "ws", "removed", rev); err != nil {
		t.Fatal(err)
	}
	b.touch("sooner", 0)
	b.awaitGone("sooner")
	b.jump(time.Hour)
	b.touch("marker", 0) // it comes after all that is due by now
	b.touch("other", -time.Second)
	b.awaitGone("marker")
	b.awaitGone("other")
	for _, name := range []string{"postponed", "removed"} {
		if got := b.attempts(name); len(got) != 0 {
			t.Errorf("%s was handled: %v", name, got)
		}
	}
	b.jump(3 * time.Hour)
	b.awaitGone("postponed")
}

// A clock that is set forward makes due what waits, without a word from anybody.
func TestList_aClockThatIsSetForward(t *testing.T) {
	b := newBench(t, 1)
	b.touch("tomorrow", 24*time.Hour)
	b.jump(25 * time.Hour)
	b.awaitGone("tomorrow")
}

// Many that are due at the same moment are each handled once, however many deployers watch.
func TestList_manyAtOnceAndManyWhoWatch(t *testing.T) {
	b := newBench(t, 3)
	const n = 100
	at := b.now().Add(2 * time.Hour)
	for i := range n {
		if _, err := b.book.Touch(t.Context(), reminder.Lane, "ws", fmt.Sprint(i), at); err != nil {
			t.Fatal(err)
		}
	}
	b.jump(2 * time.Hour)
	for i := range n {
		b.awaitGone(fmt.Sprint(i))
	}
	for i := range n {
		if got := b.attempts(fmt.Sprint(i)); len(got) != 1 {
			t.Errorf("entry %d was handled %d times", i, len(got))
		}
	}
}

// What fails is tried again with its count; a touch while it is handled is not lost.
func TestList_whatFailsComesAgainAndATouchMeanwhileCounts(t *testing.T) {
	b := newBench(t, 1)
	b.next = func(name string, attempts int) (time.Time, error) {
		switch {
		case name == "fails" && attempts < 3:
			b.jump(10 * time.Minute) // past every pause
			return time.Time{}, errors.New("not now")
		case name == "touched" && len(b.attempts("touched")) == 1:
			b.touch("touched", 0)
		}
		return time.Time{}, nil
	}
	b.touch("fails", 0)
	b.awaitCalls("fails", 3)
	b.awaitGone("fails")
	if got := fmt.Sprint(b.attempts("fails")); got != "[1 2 3]" {
		t.Errorf("attempts %s", got)
	}
	b.touch("touched", 0)
	b.awaitCalls("touched", 2)
	b.awaitGone("touched")
	if got := fmt.Sprint(b.attempts("touched")); got != "[1 1]" {
		t.Errorf("attempts %s", got)
	}
}
