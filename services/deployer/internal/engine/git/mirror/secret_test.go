package mirror

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
)

func TestFetch_stopsWithItsContextAndLeavesNoProcess(t *testing.T) {
	f := setUp(t, Limits{})
	f.git.Repo("acme/web").Commit("main", "x", map[string]string{"f": "1"})
	reached := make(chan struct{})
	release := make(chan struct{})
	var once sync.Once
	f.git.Fail(func(*http.Request) (int, string) {
		once.Do(func() { close(reached) })
		<-release
		return 503, ""
	})
	defer close(release)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := f.mirrors.Fetch(ctx, source("main"))
		done <- err
	}()
	<-reached
	if len(gitProcesses(t, f.dir)) == 0 {
		t.Fatal("no git process while it fetches: the search is wrong")
	}
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

// TestFetch_tokenIsNowhereToBeSeen looks at every process while git talks to the server, and at
// every file and log line afterwards.
func TestFetch_tokenIsNowhereToBeSeen(t *testing.T) {
	f := setUp(t, Limits{})
	f.git.Repo("acme/web").Commit("main", "x", map[string]string{"f": "1"})
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
	f.git.Fail(func(r *http.Request) (int, string) {
		if _, _, ok := r.BasicAuth(); !ok {
			return 0, ""
		}
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
		return 0, ""
	})
	if _, _, err := f.deploy("main"); err != nil {
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
