package mirror

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"devpilot.io/bitbucket/services/deployer/internal/engine/git/gittest"
)

// another opens the same cache directory as another process would.
func (f *fixture) another(cache int64) *Mirrors {
	f.t.Helper()
	m, err := Open(Config{Dir: f.dir, Site: f.git.URL, Tokens: f.tokens, Logger: f.logs.Logger, CacheBytes: cache})
	must(f.t, err)
	return m
}

// noise is content that cannot be compressed.
func noise(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return string(b)
}

func numbered(i int) Source {
	return Source{Workspace: "acme-inc", Repository: fmt.Sprintf("repository-%d", i), FullName: fmt.Sprintf("acme/r%d", i), Branch: "main"}
}

func (f *fixture) numberedRepos(n, size int) []*gittest.Repo {
	var out []*gittest.Repo
	for i := range n {
		r := f.git.Repo(numbered(i).FullName)
		r.Commit("main", "x", map[string]string{"f": noise(size)})
		out = append(out, r)
	}
	return out
}

// kept are the numbers of the mirrors that are there.
func (f *fixture) kept(n int) string {
	var out []string
	for i := range n {
		if _, err := os.Stat(filepath.Join(f.mirrors.dirOf("acme-inc", numbered(i).Repository), "git")); err == nil {
			out = append(out, fmt.Sprint(i))
		}
	}
	return strings.Join(out, " ")
}

func TestCache_leastRecentlyUsedGoFirst(t *testing.T) {
	t.Parallel()
	f := setUp(t, Limits{})
	const size = 200_000
	f.numberedRepos(5, size)
	m := f.another(3*size + size/2)
	order := 0
	fetch := func(i int) *Snapshot {
		t.Helper()
		s, err := m.Fetch(t.Context(), numbered(i))
		if err != nil {
			t.Fatal(err)
		}
		// File systems are not that exact about times.
		used := filepath.Join(m.dirOf("acme-inc", numbered(i).Repository), usedFile)
		order++
		at := time.Now().Add(time.Duration(order) * time.Second)
		must(t, os.Chtimes(used, at, at))
		return s
	}
	for i := range 3 {
		fetch(i).Close()
	}
	if got := f.kept(5); got != "0 1 2" {
		t.Fatalf("all fit: %s", got)
	}
	fetch(0).Close()
	fetch(3).Close()
	if got := f.kept(5); got != "0 2 3" {
		t.Fatalf("1 was used least recently: %s", got)
	}
	held := fetch(2)
	fetch(3).Close()
	fetch(0).Close()
	fetch(4).Close()
	if got := f.kept(5); got != "0 2 4" {
		t.Fatalf("2 is in use, 3 is next: %s", got)
	}
	if _, err := f.checkOut(held); err != nil {
		t.Fatalf("the one in use: %v", err)
	}
	held.Close()
	// One that alone is larger than the cache stays as long as it is the latest.
	m = f.another(size / 2)
	fetch(1).Close()
	if got := f.kept(5); got != "1" {
		t.Fatalf("only the latest: %s", got)
	}
	fetch(2).Close()
	if got := f.kept(5); got != "2" {
		t.Fatalf("only the latest: %s", got)
	}
	if dir, _, err := f.fetchSource(numbered(1)); err != nil || len(filesIn(t, dir)["f"]) != size {
		t.Fatalf("one that was removed comes back: %v", err)
	}
}

func TestCache_sizesSurviveWhatProcessesLeave(t *testing.T) {
	t.Parallel()
	f := setUp(t, Limits{})
	f.numberedRepos(2, 100_000)
	for i := range 2 {
		if _, _, err := f.fetchSource(numbered(i)); err != nil {
			t.Fatal(err)
		}
	}
	// Half-written by a process that died.
	used := filepath.Join(f.mirrors.dirOf("acme-inc", numbered(0).Repository), usedFile)
	must(t, os.WriteFile(used, nil, 0o600))
	all, total, err := f.mirrors.stored()
	if err != nil || len(all) != 2 || total < 200_000 || total > 400_000 {
		t.Fatalf("%v %d %v", all, total, err)
	}
	// What died over its work is swept when it is old enough.
	fresh, old := filepath.Join(f.dir, "temporary", "lfs-new"), filepath.Join(f.dir, "temporary", "graph-old")
	must(t, os.WriteFile(fresh, nil, 0o600))
	must(t, os.Mkdir(old, 0o700))
	long := time.Now().Add(-48 * time.Hour)
	must(t, os.Chtimes(old, long, long))
	f.another(0)
	if _, err := os.Stat(fresh); err != nil {
		t.Error("swept what may be in use")
	}
	if _, err := os.Stat(old); !errors.Is(err, os.ErrNotExist) {
		t.Error("left what is dead")
	}
}

// TestCache_manyReadersAndRemovals has a cache too small for what is used at once, shared by two
// that know nothing of each other.
func TestCache_manyReadersAndRemovals(t *testing.T) {
	t.Parallel()
	f := setUp(t, Limits{})
	const repos, size = 4, 50_000
	made := f.numberedRepos(repos, size)
	heads := make([]string, repos)
	for i, r := range made {
		heads[i] = r.Head("main")
	}
	both := []*Mirrors{f.another(size), f.another(2 * size)}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for round := range 3 {
				i := (w*3 + round*(w+1)) % repos
				s, err := both[w%2].Fetch(t.Context(), numbered(i))
				if err != nil {
					t.Errorf("%d: %v", i, err)
					return
				}
				dir, err := f.checkOut(s)
				if err != nil || s.Head().Hash != heads[i] || len(filesIn(t, dir)["f"]) != size {
					t.Errorf("%d: %v", i, err)
				}
				s.Close()
			}
		})
	}
	wg.Wait()
	s, err := both[0].Fetch(t.Context(), numbered(0))
	must(t, err)
	s.Close()
	if got := f.kept(repos); got != "0" {
		t.Fatalf("after all: %s", got)
	}
}
