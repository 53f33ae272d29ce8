package mirror

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"devpilot.io/bitbucket/services/deployer/internal/engine/git/gittest"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/tree"
)

// hostileTime is how long a hostile tree may keep a worker busy, fetch included.
const hostileTime = 2 * time.Minute

// hostileMemory is how much a hostile tree may make us allocate altogether.
const hostileMemory = 1 << 30

// yard is a directory with a release's directory in it and things around it that no deployment may
// touch.
type yard struct {
	t      *testing.T
	dir    string
	before map[string]string
}

func newYard(t *testing.T) *yard {
	t.Helper()
	y := &yard{t: t, dir: t.TempDir()}
	must(t, os.MkdirAll(filepath.Join(y.dir, "release"), 0o755))
	must(t, os.MkdirAll(filepath.Join(y.dir, "beside"), 0o755))
	for _, name := range []string{"x", "secret", "beside/x", "beside/a"} {
		must(t, os.WriteFile(filepath.Join(y.dir, name), []byte("not yours"), 0o600))
	}
	y.before = y.look()
	return y
}

func (y *yard) look() map[string]string {
	out := map[string]string{}
	must(y.t, filepath.WalkDir(y.dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Name() == "release" && d.IsDir() {
			return filepath.SkipDir
		}
		info, err := d.Info()
		if err != nil || d.IsDir() {
			return err
		}
		out[p] = fmt.Sprint(info.Mode(), info.Size(), info.ModTime().UnixNano())
		return nil
	}))
	return out
}

// untouched fails when anything around the release was changed.
func (y *yard) untouched() {
	y.t.Helper()
	same(y.t, y.look(), y.before)
}

func (y *yard) root() *os.Root {
	y.t.Helper()
	r, err := os.OpenRoot(filepath.Join(y.dir, "release"))
	must(y.t, err)
	y.t.Cleanup(func() { _ = r.Close() })
	return r
}

// deployIn fetches and checks out into the yard, within the bounds of time and memory.
func (f *fixture) deployIn(y *yard) error {
	f.t.Helper()
	return f.within(y, func() (*Snapshot, error) { return f.mirrors.Fetch(f.t.Context(), source("main")) })
}

// checkOutIn checks out what the server has, without a fetch: nobody has checked it before.
func (f *fixture) checkOutIn(y *yard, repo *gittest.Repo) error {
	f.t.Helper()
	return f.within(y, func() (*Snapshot, error) { return f.on(repo, "main"), nil })
}

func (f *fixture) within(y *yard, fetch func() (*Snapshot, error)) error {
	f.t.Helper()
	var was, is runtime.MemStats
	runtime.ReadMemStats(&was)
	begin := time.Now()
	s, err := fetch()
	if err == nil {
		defer s.Close()
		_, err = s.Checkout(f.t.Context(), y.root(), nil)
	}
	if d := time.Since(begin); d > hostileTime {
		f.t.Errorf("it took %v", d)
	}
	runtime.ReadMemStats(&is)
	if n := is.TotalAlloc - was.TotalAlloc; n > hostileMemory {
		f.t.Errorf("%d MiB were allocated", n>>20)
	}
	y.untouched()
	return err
}

// wide is a tree with n entries that all are the same object.
func wide(r *gittest.Repo, n int, mode, oid string) string {
	var in strings.Builder
	kind := "blob"
	if mode == tree.ModeTree {
		kind = "tree"
	}
	names := make([]string, n)
	for i := range names {
		names[i] = strconv.Itoa(i)
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprintf(&in, "%s %s %s\t%s\x00", mode, kind, oid, name)
	}
	return r.Input(in.String(), "mktree", "-z", "--missing")
}

// nest puts a tree into n directories called d.
func nest(r *gittest.Repo, n int, tree string) string {
	var in strings.Builder
	fmt.Fprintf(&in, "commit refs/heads/nest\ncommitter Jane Developer <jane@example.test> 1700000000 +0000\ndata 0\n")
	fmt.Fprintf(&in, "M 040000 %s %sd\n", tree, strings.Repeat("d/", n-1))
	r.Input(in.String(), "fast-import", "--quiet", "--force")
	return r.Git("rev-parse", "refs/heads/nest^{tree}")
}

// TestHostileTree_isRefusedAndWritesNothing has our own code refuse each tree, also where git's check
// at the fetch would come first; some, and with -mirror.deep all, are fetched as well.
func TestHostileTree_isRefusedAndWritesNothing(t *testing.T) {
	fetched := []string{"link out through two links", ".git", ".git deep in a directory", "..", "very deep", "1,000,000 files"}
	const (
		refused = remote.ReasonTreeRefused
		large   = remote.ReasonRepositoryTooLarge
		git     = remote.ReasonGitFailed // git's own check at the fetch comes first
	)
	link := func(r *gittest.Repo, target string) string { return r.Tree(gittest.E("120000", "l", target)) }
	for name, c := range map[string]struct {
		make func(r *gittest.Repo) string
		want []string
	}{
		"link to /etc/passwd":        {func(r *gittest.Repo) string { return link(r, "/etc/passwd") }, []string{refused}},
		"link to its parent":         {func(r *gittest.Repo) string { return link(r, "..") }, []string{refused}},
		"link out":                   {func(r *gittest.Repo) string { return link(r, "../secret") }, []string{refused}},
		"link out after a way in":    {func(r *gittest.Repo) string { return link(r, "a/b/../../../secret") }, []string{refused}},
		"link with doubled slashes":  {func(r *gittest.Repo) string { return link(r, "a//..///..//secret") }, []string{refused}},
		"link out through two links": {func(r *gittest.Repo) string { return nested(r, "s/../secret") }, []string{refused}},
		"link out through a link to a directory": {func(r *gittest.Repo) string {
			deep := r.Tree(gittest.E("120000", "up", "../.."))
			a := r.Tree(gittest.E(tree.ModeTree, "b", deep))
			return r.Tree(gittest.E(tree.ModeTree, "a", a), gittest.E("120000", "l", "a/b/up/../secret"))
		}, []string{refused}},
		"empty link":    {func(r *gittest.Repo) string { return link(r, "") }, []string{refused, git}},
		"link too long": {func(r *gittest.Repo) string { return link(r, strings.Repeat("a/", 2100)) }, []string{refused, git}},
		"many long links": {func(r *gittest.Repo) string {
			return wide(r, 10_000, tree.ModeLink, r.Blob(strings.Repeat("a/", 2000)+"a"))
		}, []string{refused}},
		".git":                             {func(r *gittest.Repo) string { return r.Tree(gittest.E("100644", ".git", "gitdir: /tmp")) }, []string{refused, git}},
		".GIT":                             {func(r *gittest.Repo) string { return r.Tree(gittest.E("100644", ".GIT", "x")) }, []string{refused, git}},
		".git with a zero-width character": {func(r *gittest.Repo) string { return r.Tree(gittest.E("100644", ".gi\u200ct", "x")) }, []string{refused, git}},
		"git~1":                            {func(r *gittest.Repo) string { return r.Tree(gittest.E("100644", "GIT~1", "x")) }, []string{refused, git}},
		".git and a space":                 {func(r *gittest.Repo) string { return r.Tree(gittest.E("100644", ".git ", "x")) }, []string{refused, git}},
		".git deep in a directory": {func(r *gittest.Repo) string {
			hooks := r.Tree(gittest.E("100755", "post-checkout", "#!/bin/sh\n"))
			return r.Tree(gittest.E(tree.ModeTree, "sub", r.Tree(gittest.E(tree.ModeTree, ".Git", hooks))))
		}, []string{refused, git}},
		".gitmodules is a link": {func(r *gittest.Repo) string { return r.Tree(gittest.E("120000", ".gitmodules", "../secret")) }, []string{refused, git}},
		"..":                    {func(r *gittest.Repo) string { return r.Tree(gittest.E("100644", "..", "x")) }, []string{refused, git}},
		"very long name":        {func(r *gittest.Repo) string { return r.Tree(gittest.E("100644", strings.Repeat("n", 256), "x")) }, []string{refused, git}},
		"very long path": {func(r *gittest.Repo) string {
			deep := r.Tree(gittest.E("100644", "f", "x"))
			for range 16 {
				deep = r.Tree(gittest.E(tree.ModeTree, strings.Repeat("n", 200), deep))
			}
			return deep
		}, []string{refused}},
		"deep":      {func(r *gittest.Repo) string { return nest(r, 300, r.Tree(gittest.E("100644", "f", "x"))) }, []string{refused}},
		"very deep": {func(r *gittest.Repo) string { return nest(r, 3000, r.Tree(gittest.E("100644", "f", "x"))) }, []string{refused, git}},
		"1 GB of one blob": {func(r *gittest.Repo) string {
			return wide(r, 10, tree.ModeTree, wide(r, 103, "100644", r.Blob(strings.Repeat("bomb", 1<<18))))
		}, []string{large}},
		"1,000,000 files": {func(r *gittest.Repo) string {
			return wide(r, 100, tree.ModeTree, wide(r, 100, tree.ModeTree, wide(r, 100, "100644", r.Blob("x"))))
		}, []string{large}},
		"directories without a file": {func(r *gittest.Repo) string {
			level := r.Tree()
			for range 9 {
				level = wide(r, 10, tree.ModeTree, level)
			}
			return level
		}, []string{large}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := setUp(t, Limits{TreeFiles: 20_000, TreeBytes: 512 << 20})
			repo := f.git.Repo("acme/web")
			repo.CommitTree("main", c.make(repo), "hostile")
			y := newYard(t)
			is := func(how string, err error, want ...string) {
				t.Helper()
				if !slices.Contains(want, reason(err)) {
					t.Fatalf("%s: %v, want one of %v", how, err, want)
				}
				var e *remote.Error
				if errors.As(err, &e); e.Message == "" || strings.ContainsAny(e.Message, "\n\x00") {
					t.Fatalf("%s: said to people: %q", how, e.Message)
				}
				if got := filesIn(t, filepath.Join(y.dir, "release")); len(got) != 0 {
					t.Fatalf("%s: something was written: %d files", how, len(got))
				}
			}
			is("checked out", f.checkOutIn(y, repo), c.want[0])
			if *deep || slices.Contains(fetched, name) {
				is("deployed", f.deployIn(y), c.want...)
			}
		})
	}
}

// TestHostileTree_oddNamesAreFiles: what looks dangerous and is not, is written as it is.
func TestHostileTree_oddNamesAreFiles(t *testing.T) {
	f := setUp(t, Limits{})
	repo := f.git.Repo("acme/web")
	files := map[string]string{
		"new\nline": "1", "tab\there": "2", "bell\x07": "3", "--upload-pack=x": "4", "-rf": "5", "back\\slash": "6", "quo\"te'": "7", "*": "8",
		"$(touch pwned)": "9", "not\xffutf8": "10", strings.Repeat("n", 255): "11", "...": "12", ".gitignore": "*", "gitdir": "13", " ": "14", "CON": "15", "a:b": "16",
		"README": "upper", "readme": "lower", "Dir/f": "upper", "dir/f": "lower",
	}
	repo.Commit("main", "odd", files)
	y := newYard(t)
	must(t, f.deployIn(y))
	same(t, filesIn(t, filepath.Join(y.dir, "release")), files)
}

// TestHostileTree_nothingIsFiltered: attributes and configuration in a repository change no byte.
func TestHostileTree_nothingIsFiltered(t *testing.T) {
	f := setUp(t, Limits{})
	repo := f.git.Repo("acme/web")
	pwned := filepath.Join(f.dir, "pwned")
	config := fmt.Sprintf("[filter \"evil\"]\n\tsmudge = touch %s\n\tprocess = touch %s\n\trequired = true\n[core]\n\tautocrlf = true\n\tfsmonitor = touch %s\n", pwned, pwned, pwned)
	files := map[string]string{
		".gitattributes": "* filter=evil text eol=crlf ident working-tree-encoding=UTF-16 export-subst diff=evil merge=evil\n",
		".gitconfig":     config, "config": config, "f.txt": "one\ntwo $Id$ $Format:%H$\n",
	}
	repo.Commit("main", "filters", files)
	y := newYard(t)
	must(t, f.deployIn(y))
	same(t, filesIn(t, filepath.Join(y.dir, "release")), files)
	if _, err := os.Stat(pwned); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("something of the repository was run: %v", err)
	}
}
