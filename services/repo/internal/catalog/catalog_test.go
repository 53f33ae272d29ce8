package catalog

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"devpilot.io/bitbucket/services/repo/internal/account"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPage_everyElementOnceWhateverTheSize(t *testing.T) {
	for n := range 12 {
		var list []Repository
		for i := range n {
			list = append(list, Repository{ID: fmt.Sprint(i), FullName: fmt.Sprintf("a/%02d", i/2)}) // ties in the name
		}
		for size := 1; size < 14; size++ {
			var got []Repository
			var after *Key
			for {
				values, more := page(list, size, func(r Repository) bool { return after == nil || keyOf(r).compare(*after) > 0 })
				got = append(got, values...)
				if len(values) > size {
					t.Fatalf("a page of %d has %d", size, len(values))
				}
				if !more {
					break
				}
				k := keyOf(values[len(values)-1])
				after = &k
			}
			if diff := cmp.Diff(list, got); diff != "" {
				t.Fatalf("%d in pages of %d:\n%s", n, size, diff)
			}
		}
	}
}

func TestBranchKey_order(t *testing.T) {
	at := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	want := []BranchKey{
		{Default: true, Time: at.Add(-time.Hour), Name: "main"},
		{Time: at, Name: "a"},
		{Time: at, Name: "b"},
		{Time: at.Add(-time.Minute), Name: "0"},
		{Name: "no time"},
	}
	for i := range want {
		for j := range want {
			if got := want[i].compare(want[j]); (got < 0) != (i < j) || (got == 0) != (i == j) {
				t.Errorf("compare(%v, %v) = %d", want[i], want[j], got)
			}
		}
	}
}

func TestSearch_agreesWithTheObviousOne(t *testing.T) {
	letters := []string{"a", "B", "/", "-", "Ü", "ß"}
	word := func() string {
		var b strings.Builder
		for range rand.N(5) {
			b.WriteString(letters[rand.N(len(letters))])
		}
		return b.String()
	}
	for range 500 {
		list := []Repository{{ID: "1", FullName: word(), Name: word()}, {ID: "2", FullName: word(), Name: word()}}
		text := word()
		found := map[string]bool{}
		for _, r := range search(list, text) {
			found[r.ID] = true
		}
		for _, r := range list {
			want := strings.Contains(strings.ToLower(r.FullName), strings.ToLower(text)) || strings.Contains(strings.ToLower(r.Name), strings.ToLower(text))
			if found[r.ID] != want {
				t.Errorf("search(%q) finds %q, %q: %t, want %t", text, r.FullName, r.Name, found[r.ID], want)
			}
		}
	}
}

func snapshotOf(connection string, at time.Time, n int) *Snapshot {
	return &Snapshot{Connection: connection, FetchTime: at, Repositories: make([]Repository, n)}
}

func TestMemory(t *testing.T) {
	at := time.Now()
	m := newMemory(1000)
	m.put("a", snapshotOf("c1", at, 400), false)
	m.put("b", snapshotOf("c1", at, 400), false)
	if m.get("a", "c2").snapshot != nil {
		t.Error("another connection sees the list")
	}
	if m.get("a", "c1").snapshot == nil { // used last
		t.Fatal("nothing remembered")
	}
	m.put("c", snapshotOf("c1", at, 400), false)
	if m.get("b", "c1").snapshot != nil || m.get("a", "c1").snapshot == nil || m.get("c", "c1").snapshot == nil {
		t.Error("the one used least should have gone, and no other")
	}
	m.put("huge", snapshotOf("c1", at, 5000), false)
	if m.get("huge", "c1").snapshot == nil || m.used.Len() != 1 || m.size != 5010 {
		t.Errorf("%d lists of weight %d", m.used.Len(), m.size)
	}
	m.put("huge", snapshotOf("c1", at.Add(-time.Second), 1), false)
	if len(m.get("huge", "c1").snapshot.Repositories) != 5000 {
		t.Error("an older list replaced a newer one")
	}
	m.put("huge", snapshotOf("c2", at.Add(-time.Second), 1), false)
	if m.get("huge", "c1").snapshot != nil || m.get("huge", "c2").snapshot == nil {
		t.Error("a new connection did not replace the list")
	}
	m.failed("huge", "c2", Failure{Message: "x"}, at)
	if f := m.get("huge", "c2").failure; f == nil || f.Message != "x" {
		t.Errorf("failure = %v", f)
	}
	m.put("huge", snapshotOf("c2", at, 1), false)
	if m.get("huge", "c2").failure != nil {
		t.Error("a new list kept the old failure")
	}
	m.drop("huge")
	m.drop("huge")
	if m.size != 0 || m.used.Len() != 0 {
		t.Errorf("left: %d lists of weight %d", m.used.Len(), m.size)
	}
}

func TestLocalRefresh(t *testing.T) {
	now := time.Now()
	l := newLocalRefresh(func() time.Time { return now })
	if l.allow("a", time.Minute) != 0 || l.allow("b", time.Minute) != 0 {
		t.Error("the first was held back")
	}
	now = now.Add(20 * time.Second)
	if wait := l.allow("a", time.Minute); wait != 40*time.Second {
		t.Errorf("wait = %s", wait)
	}
	now = now.Add(40 * time.Second)
	if l.allow("a", time.Minute) != 0 || len(l.last) != 1 {
		t.Error("after a minute it was held back, or old entries stay")
	}
}

func TestGroup_oneAtATimeAndPanicsBecomeErrors(t *testing.T) {
	g := newGroup[int](newTasks(time.Minute))
	defer g.tasks.close()
	var runs atomic.Int32
	release := make(chan struct{})
	work := func(context.Context) (int, error) {
		n := runs.Add(1)
		<-release
		return int(n), nil
	}
	tasks := []*task[int]{g.start(t.Context(), "k", work), g.start(t.Context(), "k", work)}
	if !g.isRunning("k") || g.isRunning("other") {
		t.Error("isRunning is wrong")
	}
	early, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := tasks[0].wait(early); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that left: %v", err)
	}
	close(release)
	for _, task := range tasks {
		if v, err := task.wait(t.Context()); v != 1 || err != nil {
			t.Errorf("wait = %d, %v", v, err)
		}
	}
	_, err := g.start(t.Context(), "k", func(context.Context) (int, error) { panic("boom") }).wait(t.Context())
	if err == nil || !strings.Contains(err.Error(), "boom") || g.isRunning("k") {
		t.Errorf("a panic: %v", err)
	}
}

func TestTasks_outliveTheirCallerAndEndAtShutdown(t *testing.T) {
	tk := newTasks(time.Minute)
	ctx, cancel := context.WithCancel(t.Context())
	began, ended := make(chan struct{}), make(chan error, 1)
	tk.run(ctx, func(ctx context.Context) {
		close(began)
		<-ctx.Done()
		ended <- ctx.Err()
	})
	<-began
	cancel()
	select {
	case err := <-ended:
		t.Fatalf("the work ended with its caller: %v", err)
	default:
	}
	tk.close()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v", err)
	}
	tk.close()
	after := false
	tk.run(t.Context(), func(ctx context.Context) { after = ctx.Err() != nil })
	if !after {
		t.Error("work after shutdown is not told that it is over")
	}
}

// mapAnswers is an Answers that remembers for ever: the age of an answer is the asker's business.
type mapAnswers struct {
	mu   sync.Mutex
	kept map[string]any
}

func (m *mapAnswers) Get(_ context.Context, question string, into any) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.kept[question].(kept[int])
	if ok {
		*into.(*kept[int]) = v
	}
	return ok
}

func (m *mapAnswers) Put(_ context.Context, question string, answer any, _ time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.kept[question] = answer
}

func TestShared_answersAgeFromBeforeTheyWereFetched(t *testing.T) {
	tk := newTasks(time.Minute)
	defer tk.close()
	now := time.Now()
	store := &mapAnswers{kept: map[string]any{}}
	clock := func() time.Time { return now }
	one, two := newShared[int](tk, store, clock), newShared[int](tk, store, clock)
	runs := 0
	ask := func(s *shared[int]) int {
		t.Helper()
		v, err := s.ask(t.Context(), "q", func(context.Context) (int, error) {
			runs++
			now = now.Add(2 * time.Second) // it takes a while
			return runs, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for _, s := range []*shared[int]{one, one, two} {
		if got := ask(s); got != 1 {
			t.Errorf("answer %d, want 1", got)
		}
	}
	now = now.Add(3 * time.Second) // five since the question, three since the answer
	if ask(two) != 2 {
		t.Error("an answer lived longer than five seconds")
	}
	if ask(one) != 2 {
		t.Error("the other one's answer was not taken")
	}
	failing := errors.New("no")
	if _, err := one.ask(t.Context(), "r", func(context.Context) (int, error) { return 0, failing }); !errors.Is(err, failing) {
		t.Errorf("err = %v", err)
	}
	if v, err := one.ask(t.Context(), "r", func(context.Context) (int, error) { return 7, nil }); v != 7 || err != nil {
		t.Errorf("after a failure: %d, %v", v, err)
	}
}

func TestIsBareName(t *testing.T) {
	for q, want := range map[string]bool{
		"acme/web": true, "acme/": true, "acme/web.git": false, "https://bitbucket.org/acme/web": false, "git@bitbucket.org:acme/web": false,
		"git clone acme/web": false, "bitbucket.org/acme/web": false, "acme": false,
	} {
		if got := isBareName(q); got != want {
			t.Errorf("isBareName(%q) = %t", q, got)
		}
	}
}

func TestAsItStands_aFetchThatEndedMeanwhileIsTold(t *testing.T) {
	at := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	conn := &account.Connection{Workspace: "acme", ID: "c1"}
	open := func() (*Catalog, *Snapshot, remembered) {
		c := &Catalog{memory: newMemory(100), fetches: newGroup[*Snapshot](nil)}
		before := &Snapshot{Connection: conn.ID, FetchTime: at}
		c.memory.put(conn.Workspace, before, false)
		return c, before, c.memory.get(conn.Workspace, conn.ID)
	}
	t.Run("it failed", func(t *testing.T) {
		c, before, have := open()
		c.memory.failed(conn.Workspace, conn.ID, Failure{Message: "The list could not be renewed."}, at)
		if f := c.asItStands(conn, have); f.stale || f.snapshot != before || f.failure == nil {
			t.Errorf("stale %t, failure %v: neither a newer list nor why there is none", f.stale, f.failure)
		}
	})
	t.Run("it came", func(t *testing.T) {
		c, _, have := open()
		newer := &Snapshot{Connection: conn.ID, FetchTime: at.Add(time.Minute)}
		c.memory.put(conn.Workspace, newer, false)
		if f := c.asItStands(conn, have); f.stale || f.snapshot != newer {
			t.Errorf("stale %t, list of %v", f.stale, f.snapshot.FetchTime)
		}
	})
	t.Run("it runs", func(t *testing.T) {
		c, before, have := open()
		c.fetches.running[fetchKey(conn)] = &task[*Snapshot]{}
		if f := c.asItStands(conn, have); !f.stale || f.snapshot != before {
			t.Errorf("stale %t, list of %v", f.stale, f.snapshot.FetchTime)
		}
	})
}
