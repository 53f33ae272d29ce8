package redisx_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/redisx"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/testkit"
)

// limited is a Bitbucket that answers 429 to what is in the set, and accounts of two replicas.
type limited struct {
	mu    sync.Mutex
	calls map[string]int
	after map[string]string // Retry-After by path; limited while there
	one   *bitbucket.Account
	two   *bitbucket.Account
}

func newLimited(t *testing.T) *limited {
	t.Helper()
	l := &limited{calls: map[string]int{}, after: map[string]string{}}
	server := httptest.NewServer(l)
	t.Cleanup(server.Close)
	site, err := bitbucket.NewSite(server.URL, server.URL+"/2.0")
	if err != nil {
		t.Fatal(err)
	}
	r := testkit.Redis(t)
	account := func() *bitbucket.Account {
		b := redisx.NewBudget(redisx.BudgetConfig{Client: client(t, r.URL()), Consumer: "consumer-key"})
		return bitbucket.NewClient(site, bitbucket.ClientOptions{Budget: b}).As(bitbucket.StaticToken(seal.NewSecret("token")))
	}
	l.one, l.two = account(), account()
	return l
}

func (l *limited) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls[r.URL.Path]++
	if after, ok := l.after[r.URL.Path]; ok {
		if after != "" {
			w.Header().Set("Retry-After", after)
		}
		w.WriteHeader(http.StatusTooManyRequests)
		return
	}
	_, _ = io.WriteString(w, `{"values":[]}`)
}

func (l *limited) set(after string, paths ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range paths {
		l.after[p] = after
	}
}

func (l *limited) count(path string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.calls[path]
}

func branchesOf(t *testing.T, a *bitbucket.Account, repository string) error {
	t.Helper()
	_, err := a.Branches(t.Context(), bitbucket.Ref{Workspace: "acme", Repository: repository}, bitbucket.BranchesOptions{})
	return err
}

func TestBudget_a429IsAboutOneRouteOfOneThing(t *testing.T) {
	l := newLimited(t)
	const old = "/2.0/repositories/acme/old/refs/branches"
	l.set("300", old)
	for range 3 {
		for _, a := range []*bitbucket.Account{l.one, l.two} {
			if err := branchesOf(t, a, "old"); !bitbucket.IsKind(err, bitbucket.KindRateLimited) {
				t.Fatalf("branches of old: %v", err)
			}
			if err := branchesOf(t, a, "web"); err != nil {
				t.Fatalf("branches of web: %v", err)
			}
			if _, err := a.Repositories(t.Context(), bitbucket.Workspace{Slug: "acme"}, bitbucket.RepositoriesOptions{}); err != nil {
				t.Fatalf("the repositories of acme: %v", err)
			}
		}
	}
	if n := l.count(old); n != 1 {
		t.Errorf("%d calls for what was held back for five minutes", n)
	}
	// A second repository says it of the route, not of the others.
	l.set("300", "/2.0/repositories/acme/web/refs/branches")
	_ = branchesOf(t, l.two, "web")
	if err := branchesOf(t, l.one, "third"); !bitbucket.IsKind(err, bitbucket.KindRateLimited) || l.count("/2.0/repositories/acme/third/refs/branches") != 0 {
		t.Errorf("the route is not held back: %v", err)
	}
	if _, err := l.one.Repositories(t.Context(), bitbucket.Workspace{Slug: "acme"}, bitbucket.RepositoriesOptions{}); err != nil {
		t.Errorf("another route is held back: %v", err)
	}
	// A second route says it of all.
	l.set("300", "/2.0/repositories/acme")
	_, _ = l.one.Repositories(t.Context(), bitbucket.Workspace{Slug: "acme"}, bitbucket.RepositoriesOptions{})
	_, err := l.two.Repositories(t.Context(), bitbucket.Workspace{Slug: "other"}, bitbucket.RepositoriesOptions{})
	if !bitbucket.IsKind(err, bitbucket.KindRateLimited) || l.count("/2.0/repositories/other") != 0 {
		t.Errorf("the class is not held back: %v", err)
	}
	if _, err := l.two.Hooks(t.Context(), bitbucket.Ref{Workspace: "acme", Repository: "old"}); err != nil {
		t.Errorf("another class is held back: %v", err)
	}
}

func TestBudget_retryAfterIsHonouredBothWays(t *testing.T) {
	l := newLimited(t)
	const old = "/2.0/repositories/acme/old/refs/branches"
	wait := func() time.Duration {
		t.Helper()
		err := branchesOf(t, l.two, "old")
		if !bitbucket.IsKind(err, bitbucket.KindRateLimited) {
			t.Fatal(err)
		}
		return apierr.From(err).RetryAfter()
	}
	l.set("7200", old)
	_ = branchesOf(t, l.one, "old")
	if d := wait(); d < 119*time.Minute || d > 2*time.Hour {
		t.Errorf("two hours are %v", d)
	}
	l = newLimited(t)
	l.set(time.Now().Add(3*time.Second).UTC().Format(http.TimeFormat), old)
	_ = branchesOf(t, l.one, "old")
	if d := wait(); d > 3*time.Second {
		t.Errorf("a date in three seconds is %v", d)
	}
	l = newLimited(t)
	l.set("2", old)
	_ = branchesOf(t, l.one, "old")
	if d := wait(); d > 2*time.Second {
		t.Errorf("two seconds are %v", d)
	}
	l.mu.Lock()
	clear(l.after)
	l.mu.Unlock()
	testkit.Eventually(t, time.Minute, func() error { return branchesOf(t, l.two, "old") })
}
