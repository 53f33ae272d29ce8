package mirror

import (
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	objects "devpilot.io/bitbucket/services/deployer/internal/engine/git/lfs"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
)

func TestLimits_bytesOfAFetch(t *testing.T) {
	t.Parallel()
	f := setUp(t, Limits{FetchBytes: 300_000})
	repo := f.git.Repo("acme/web")
	repo.Commit("small", "x", map[string]string{"f": noise(100_000)})
	if _, _, err := f.deploy("small"); err != nil {
		t.Fatal(err)
	}
	repo.Commit("main", "x", map[string]string{"f": noise(1_000_000)})
	for range 2 { // what was refused must not count as fetched the next time
		_, _, err := f.deploy("main")
		if e, ok := remote.AsError(err); !ok || e.Reason != remote.ReasonRepositoryTooLarge || e.Temporary || !strings.Contains(e.Message, "292 KiB") {
			t.Fatalf("%v", err)
		}
	}
	if size := sizeOf(f.dir); size > 600_000 {
		t.Errorf("%d bytes are left behind", size)
	}
	if _, _, err := f.deploy("small"); err != nil {
		t.Fatal(err)
	}
}

// TestLimits_bytesStopAFetchOnItsWay has the server stop after more than may come, so that only a
// check of what is coming can end it.
func TestLimits_bytesStopAFetchOnItsWay(t *testing.T) {
	t.Parallel()
	f := setUp(t, Limits{FetchBytes: 300_000})
	f.git.Repo("acme/web").Commit("main", "x", map[string]string{"f": noise(2_000_000)})
	f.git.StallAfter(1_500_000)
	begin := time.Now()
	_, _, err := f.deploy("main")
	if reason(err) != remote.ReasonRepositoryTooLarge || time.Since(begin) > 2*time.Minute {
		t.Fatalf("after %v: %v", time.Since(begin), err)
	}
}

func TestLimits_submodulesShareTheBytes(t *testing.T) {
	t.Parallel()
	f := setUp(t, Limits{FetchBytes: 300_000})
	one, two := f.git.Repo("acme/one"), f.git.Repo("acme/two")
	h1 := one.Commit("main", "x", map[string]string{"f": noise(200_000)})
	h2 := two.Commit("main", "x", map[string]string{"f": noise(200_000)})
	superCommit(f.git.Repo("acme/web"), "main", module("one", "one", "../one")+module("two", "two", "../two"), map[string]string{"one": h1, "two": h2})
	_, _, err := f.fetchSource(withSubmodules("main"))
	if e, ok := remote.AsError(err); !ok || e.Reason != remote.ReasonRepositoryTooLarge || !strings.Contains(e.Message, `"two"`) {
		t.Fatalf("%v", err)
	}
}

func TestLimits_timeOfAFetch(t *testing.T) {
	t.Parallel()
	f := setUp(t, Limits{FetchTime: time.Second})
	f.git.Repo("acme/web").Commit("main", "x", map[string]string{"f": noise(500_000)})
	f.git.StallAfter(100_000)
	begin := time.Now()
	_, _, err := f.deploy("main")
	e, ok := remote.AsError(err)
	if d := time.Since(begin); !ok || e.Reason != string(apierr.ReasonBitbucketUnavailable) || !e.Temporary || !strings.Contains(e.Message, "longer than 1s") || d > 2*time.Minute {
		t.Fatalf("after %v: %v", d, err)
	}
	f.git.StallAfter(-1)
	f.mirrors.cfg.Limits.FetchTime = time.Minute
	if _, _, err := f.deploy("main"); err != nil {
		t.Fatalf("after the stall: %v", err)
	}
}

func TestLimits_stallingServer(t *testing.T) {
	t.Parallel()
	for name, stall := range map[string]func(f *fixture){
		"in a pack":     func(f *fixture) { f.git.StallAfter(100_000) },
		"before a pack": func(f *fixture) { f.git.StallAfter(0) },
		"at once": func(f *fixture) {
			f.git.Intercept(func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true })
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := setUp(t, Limits{StallTime: time.Second})
			f.git.Repo("acme/web").Commit("main", "x", map[string]string{"f": noise(500_000)})
			stall(f)
			begin := time.Now()
			_, _, err := f.deploy("main")
			e, ok := remote.AsError(err)
			if d := time.Since(begin); !ok || e.Reason != string(apierr.ReasonBitbucketUnavailable) || !e.Temporary || d > 2*time.Minute {
				t.Fatalf("after %v: %v", d, err)
			}
			if left := gitProcesses(t, f.dir); len(left) > 0 {
				t.Errorf("left over: %v", left)
			}
		})
	}
}

func TestLimits_reserveOfTheDisk(t *testing.T) {
	t.Parallel()
	f := setUp(t, Limits{FreeBytes: 1000})
	repo := f.git.Repo("acme/web")
	repo.Commit("main", "x", map[string]string{"f": noise(500_000)})
	var free atomic.Uint64
	f.mirrors.cfg.FreeDisk = func(string) (uint64, error) { return free.Load(), nil }
	full := func(what string, err error) {
		t.Helper()
		if e, ok := remote.AsError(err); !ok || e.Reason != remote.ReasonDiskFull || !e.Temporary {
			t.Fatalf("%s: %v", what, err)
		}
	}
	free.Store(999)
	_, _, err := f.deploy("main")
	full("before", err)
	if n := len(f.git.Requests()); n != 0 {
		t.Fatalf("%d requests", n)
	}
	// It fills up while the pack comes.
	free.Store(1000)
	f.git.StallAfter(100_000)
	f.git.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/git-upload-pack") {
			free.Store(10)
		}
		return false
	})
	_, _, err = f.deploy("main")
	full("meanwhile", err)
	f.git.StallAfter(-1)
	f.git.Intercept(nil)
	free.Store(1 << 30)
	if _, _, err := f.deploy("main"); err != nil {
		t.Fatal(err)
	}
	// And before history is written, and while LFS comes.
	src := source("main")
	src.FullHistory = true
	s, err := f.mirrors.Fetch(t.Context(), src)
	must(t, err)
	defer s.Close()
	root, err := os.OpenRoot(t.TempDir())
	must(t, err)
	defer func() { _ = root.Close() }()
	free.Store(10)
	full("history", s.WriteGit(t.Context(), root))
	free.Store(1 << 30)
	lfs := f.git.LFS()
	lfsCommit(repo, "lfs", map[string]string{"f": lfs.Put(noise(objects.DiskCheck + 1))})
	lfs.Serve(func(http.ResponseWriter, *http.Request, string) bool {
		free.Store(10)
		return false
	})
	_, _, err = f.fetchSource(withLFS("lfs"))
	full("lfs", err)
}
