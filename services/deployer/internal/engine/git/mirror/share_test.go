package mirror

import (
	"context"
	"errors"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/testkit"
)

// manualFetches are fetches that end when they are told to.
type manualFetches struct {
	*sharedFetches
	t      *testing.T
	dir    string
	begun  chan context.Context
	end    chan error
	starts atomic.Int32
}

func newManualFetches(t *testing.T) *manualFetches {
	t.Helper()
	a := &manualFetches{t: t, dir: t.TempDir(), begun: make(chan context.Context, 10), end: make(chan error)}
	a.sharedFetches = newSharedFetches(func(ctx context.Context, _ target, b *budget) (*Snapshot, error) {
		a.starts.Add(1)
		a.begun <- ctx
		select {
		case err := <-a.end:
			if err != nil {
				return nil, err
			}
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		b.bytes -= 10
		use, err := lockFile(ctx, filepath.Join(a.dir, "use.lock"), 1) // LOCK_SH
		return &Snapshot{dir: a.dir, commit: Commit{Hash: "abc"}, use: use}, err
	})
	return a
}

// join has n callers request, and returns once as many as given wait for the next fetch, or one runs; wait
// returns what each got.
func (a *manualFetches) join(ctx context.Context, n, waiting int) (wait func() []error) {
	a.t.Helper()
	var wg sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		wg.Go(func() {
			b := &budget{bytes: 100}
			s, err := a.get(ctx, target{id: "r"}, b, time.Time{}, "")
			if errs[i] = err; err == nil {
				if s.commit.Hash != "abc" || b.bytes != 90 {
					errs[i] = errors.New("another commit, or a budget that was not charged")
				}
				s.Close()
			}
		})
	}
	testkit.Eventually(a.t, 10*time.Second, func() error {
		a.mu.Lock()
		defer a.mu.Unlock()
		s := a.state[target{id: "r"}]
		if s == nil || waiting == 0 && s.running == nil || waiting > 0 && (s.waiting == nil || s.waiting.requests < waiting) {
			return errors.New("they do not take part yet")
		}
		return nil
	})
	return func() []error { wg.Wait(); return errs }
}

func wantAll(t *testing.T, what string, errs []error, want error) {
	t.Helper()
	for _, err := range errs {
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
}

// No request is served by a fetch that began before it came: what it found may be over.
func TestFlights_serveThoseWhoAskedBeforeTheyBegan(t *testing.T) {
	a := newManualFetches(t)
	first := a.join(t.Context(), 1, 0)
	<-a.begun
	others := a.join(t.Context(), 9, 9)
	a.end <- nil
	wantAll(t, "the first", first(), nil)
	<-a.begun
	gone := errors.New("access was taken away meanwhile")
	a.end <- gone
	wantAll(t, "requests while it was under way", others(), gone)
	if n := a.starts.Load(); n != 2 {
		t.Errorf("%d fetches for ten requests, want 2", n)
	}
}

func TestFlights_goOnWithoutThoseWhoLeave(t *testing.T) {
	a := newManualFetches(t)
	ctx, cancel := context.WithCancel(t.Context())
	leaver := a.join(ctx, 1, 0)
	running := <-a.begun
	cancel()
	wantAll(t, "who left", leaver(), context.Canceled)
	<-running.Done() // nobody is left who wants it
	testkit.Eventually(t, 10*time.Second, func() error {
		a.mu.Lock()
		defer a.mu.Unlock()
		if s := a.state[target{id: "r"}]; s != nil && s.running != nil {
			return errors.New("it still flies")
		}
		return nil
	})
	runner := a.join(t.Context(), 1, 0)
	<-a.begun
	ctx, cancel = context.WithCancel(t.Context())
	other := a.join(ctx, 1, 1)
	stays := a.join(t.Context(), 1, 2)
	cancel()
	wantAll(t, "who left the next one", other(), context.Canceled)
	a.end <- nil
	wantAll(t, "who flies", runner(), nil)
	if running := <-a.begun; running.Err() != nil {
		t.Error("who left took the fetch along")
	}
	a.end <- nil
	wantAll(t, "who stays", stays(), nil)
}

// A request that gives up before its turn has come ends no later request.
func TestFlights_abandonedTurnIsNotInherited(t *testing.T) {
	a := newManualFetches(t)
	runner := a.join(t.Context(), 1, 0)
	<-a.begun
	ctx, cancel := context.WithCancel(t.Context())
	leaver := a.join(ctx, 1, 1)
	cancel()
	wantAll(t, "who gave up waiting", leaver(), context.Canceled)
	comer := a.join(t.Context(), 1, 1)
	a.end <- nil
	wantAll(t, "who flies", runner(), nil)
	if running := <-a.begun; running.Err() != nil {
		t.Error("a fetch that somebody wants began with the context of who had left")
	} else {
		a.end <- nil
	}
	wantAll(t, "a request after that", comer(), nil)
	if n := a.starts.Load(); n != 2 {
		t.Errorf("%d fetches, want 2", n)
	}
}

// What a fetch brought serves whose need arose before it, and who expects just that.
func TestFlights_serveLaterWhoAskedBefore(t *testing.T) {
	now := time.Now()
	for name, one := range map[string]struct {
		needed   time.Duration
		expected string
		later    time.Duration
		discard  bool
		again    bool
	}{
		"needed before":            {-time.Second, "abc", 0, false, false},
		"needed after":             {time.Second, "abc", 0, false, true},
		"another commit":           {-time.Second, "def", 0, false, true},
		"any commit":               {-time.Second, "", 0, false, true},
		"too long ago":             {-time.Second, "abc", shareFor, false, true},
		"the mirror was discarded": {-time.Second, "abc", 0, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			a := newManualFetches(t)
			a.now = func() time.Time { return now }
			first := a.join(t.Context(), 1, 0)
			<-a.begun
			a.end <- nil
			wantAll(t, "the first", first(), nil)
			if one.discard {
				a.discard("", "r")
			}
			a.mu.Lock()
			a.now = func() time.Time { return now.Add(one.later) }
			a.mu.Unlock()
			done := make(chan error, 1)
			go func() {
				s, err := a.get(t.Context(), target{id: "r"}, &budget{bytes: 100}, now.Add(one.needed), one.expected)
				if err == nil {
					s.Close()
				}
				done <- err
			}()
			if one.again {
				<-a.begun
				a.end <- nil
			}
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		})
	}
}

// Ten apps of one repository: one fetch is under way, and one more serves all others.
func TestFetch_isShared(t *testing.T) {
	f := setUp(t, Limits{})
	hash := f.git.Repo("acme/web").Commit("main", "one", map[string]string{"f": "1"})
	hold, arrived := make(chan struct{}), make(chan struct{}, 100)
	var fetches atomic.Int32
	f.mirrors.git.Observe = func(operation string, _ time.Duration, _ error) {
		if operation == "fetch" {
			fetches.Add(1)
		}
	}
	f.git.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/info/refs") {
			arrived <- struct{}{}
			<-hold
		}
		return false
	})
	var wg sync.WaitGroup
	errs := make(chan error, 10)
	fetch := func() {
		s, err := f.mirrors.Fetch(t.Context(), source("main"))
		if err == nil {
			if s.Head().Hash != hash {
				err = errors.New("another commit")
			}
			s.Close()
		}
		errs <- err
	}
	wg.Go(fetch)
	<-arrived
	for range 9 {
		wg.Go(fetch)
	}
	testkit.Eventually(t, 10*time.Second, func() error {
		f.mirrors.shared.mu.Lock()
		defer f.mirrors.shared.mu.Unlock()
		for _, s := range f.mirrors.shared.state {
			if s.waiting != nil && s.waiting.requests == 9 {
				return nil
			}
		}
		return errors.New("not all of them have requested yet")
	})
	close(hold)
	wg.Wait()
	for range 10 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if n := fetches.Load(); n != 2 {
		t.Errorf("%d fetches for ten requests, want 2", n)
	}
}
