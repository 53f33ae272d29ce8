package mirror

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/gittest"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
)

const token = "planted+Token/with=odd characters-0123456789abcdef"

type fixture struct {
	t       *testing.T
	git     *gittest.Server
	tokens  *gittest.Tokens
	mirrors *Mirrors
	dir     string
	logs    *testkit.Logs
	packs   *atomic.Int32 // how many answerPack has sent
}

func setUp(t *testing.T, limits Limits) *fixture {
	t.Helper()
	f := &fixture{t: t, git: gittest.New(t, token), tokens: &gittest.Tokens{List: []string{token}}, dir: t.TempDir(), logs: testkit.Logger(t), packs: new(atomic.Int32)}
	m, err := Open(Config{Dir: f.dir, Site: f.git.URL, Tokens: f.tokens, Limits: limits, Logger: f.logs.Logger})
	if err != nil {
		t.Fatal(err)
	}
	f.mirrors = m
	return f
}

func source(branch string) Source {
	return Source{Workspace: "acme-inc", Repository: "85d08b4e-571d-44e9-a507-fa476535aa98", FullName: "acme/web", Branch: branch}
}

// deploy fetches and checks out, and returns the directory.
func (f *fixture) deploy(branch string) (string, Commit, error) {
	f.t.Helper()
	s, err := f.mirrors.Fetch(f.t.Context(), source(branch))
	if err != nil {
		return "", Commit{}, err
	}
	defer s.Close()
	dir := f.t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		f.t.Fatal(err)
	}
	defer func() { _ = root.Close() }()
	_, err = s.Checkout(f.t.Context(), root, nil)
	return dir, s.Head(), err
}

// tree lists a directory: path to content, or "-> target" for links.
func filesIn(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		if d.Type()&fs.ModeSymlink != 0 {
			target, err := os.Readlink(p)
			out[rel] = "-> " + target
			return err
		}
		b, err := os.ReadFile(p)
		out[rel] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func same(t *testing.T, got, want map[string]string) {
	t.Helper()
	for p, c := range want {
		if got[p] != c {
			t.Errorf("%s is %q, want %q", p, got[p], c)
		}
	}
	for p := range got {
		if _, ok := want[p]; !ok {
			t.Errorf("%s should not be there", p)
		}
	}
}

func reason(err error) string {
	var e *remote.Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return ""
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// named wants exactly these.
func named(names ...string) func(string) bool {
	return func(name string) bool { return slices.Contains(names, name) }
}

func every(string) bool { return true }
