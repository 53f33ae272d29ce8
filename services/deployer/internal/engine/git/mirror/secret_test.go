package mirror

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
)

func TestFetch_stopsWithItsContextAndLeavesNoProcess(t *testing.T) {
	for name, full := range bothWays {
		t.Run(name, func(t *testing.T) {
			f := setUp(t, Limits{})
			f.git.Repo("acme/web").Commit("main", "x", map[string]string{"f": noise(500_000)})
			f.git.StallAfter(100_000)
			src := source("main")
			src.FullHistory = full
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() {
				_, err := f.mirrors.Fetch(ctx, src)
				done <- err
			}()
			f.awaitGit()
			cancel()
			select {
			case err := <-done:
				if !errors.Is(err, context.Canceled) {
					t.Fatalf("%v", err)
				}
			case <-time.After(2 * time.Minute):
				t.Fatal("still running")
			}
			testkit.Eventually(t, 5*time.Second, func() error {
				if left := gitProcesses(t, f.dir); len(left) > 0 {
					return errors.New("left over: " + strings.Join(left, "; "))
				}
				return nil
			})
		})
	}
}

// bothWays are the ways to fetch: all history is brought by the git program, one commit over a connection
// of ours, whose pack git takes apart.
var bothWays = map[string]bool{"by the program": true, "by connection": false}

// awaitGit waits for a git process that takes a pack apart.
func (f *fixture) awaitGit() {
	f.t.Helper()
	testkit.Eventually(f.t, 10*time.Second, func() error {
		if !slices.ContainsFunc(gitProcesses(f.t, f.dir), func(c string) bool { return strings.Contains(c, "index-pack") }) {
			return errors.New("no git process while it fetches")
		}
		return nil
	})
}

// gitProcesses are the command lines of processes that have the directory in their environment.
func gitProcesses(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	for _, p := range processes(t) {
		if strings.Contains(p.environ, dir) {
			out = append(out, p.cmdline)
		}
	}
	return out
}

type process struct{ cmdline, environ string }

func processes(t *testing.T) []process {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	must(t, err)
	var out []process
	for _, d := range dirs {
		if d == "/proc/self" {
			continue
		}
		c, err1 := os.ReadFile(filepath.Join(d, "cmdline"))
		e, err2 := os.ReadFile(filepath.Join(d, "environ"))
		if err1 == nil && err2 == nil {
			out = append(out, process{strings.ReplaceAll(string(c), "\x00", " "), string(e)})
		}
	}
	return out
}

// TestFetch_tokenIsNowhereToBeSeen looks at every process while git talks to the server and while it takes
// a pack apart, and at every file and log line afterwards.
func TestFetch_tokenIsNowhereToBeSeen(t *testing.T) {
	for name, full := range bothWays {
		t.Run(name, func(t *testing.T) { tokenIsNowhereToBeSeen(t, full) })
	}
}

func tokenIsNowhereToBeSeen(t *testing.T, full bool) {
	f := setUp(t, Limits{})
	f.git.Repo("acme/web").Commit("main", "x", map[string]string{"f": noise(500_000)})
	forms := remote.Forms(seal.NewSecret(token))
	leaks := func(s string) bool {
		for _, form := range forms {
			if strings.Contains(s, form) {
				return true
			}
		}
		return false
	}
	var mu sync.Mutex
	seen, found := 0, 0
	look := func() {
		mu.Lock()
		defer mu.Unlock()
		for _, p := range processes(t) {
			if strings.Contains(p.environ, f.dir) {
				seen++
			}
			if leaks(p.cmdline) || leaks(p.environ) {
				found++
			}
		}
	}
	f.git.Fail(func(r *http.Request) (int, string) {
		if _, _, ok := r.BasicAuth(); ok {
			look()
		}
		return 0, ""
	})
	src := source("main")
	src.FullHistory = full
	f.git.StallAfter(100_000)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := f.mirrors.Fetch(ctx, src)
		done <- err
	}()
	f.awaitGit()
	look()
	cancel()
	<-done
	f.git.StallAfter(-1)
	if _, _, err := f.fetchSource(src); err != nil {
		t.Fatal(err)
	}
	if seen == 0 || found > 0 {
		t.Fatalf("looked at %d git processes, %d show the token", seen, found)
	}
	must(t, filepath.WalkDir(f.dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		if leaks(string(b)) {
			t.Errorf("the token is in %s", p)
		}
		return err
	}))
	for _, r := range f.git.Requests() {
		if leaks(r) {
			t.Error("the token is in a URL")
		}
	}
	f.logs.MustNotContain(t, forms...)
}
