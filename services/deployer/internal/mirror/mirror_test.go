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

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/deployer/internal/gittest"
)

const token = "planted+Token/with=odd characters-0123456789abcdef"

// tokens hands out the first, and each time one is rejected the next.
type tokens struct {
	mu       sync.Mutex
	list     []string
	rejected []string
	err      error
}

func (k *tokens) Token(_ context.Context, _ string, rejected seal.Secret) (seal.Secret, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err != nil {
		return seal.Secret{}, k.err
	}
	if !rejected.IsZero() {
		k.rejected = append(k.rejected, rejected.Reveal())
		if len(k.list) > 1 {
			k.list = k.list[1:]
		}
	}
	return seal.NewSecret(k.list[0]), nil
}

type fixture struct {
	t       *testing.T
	git     *gittest.Server
	tokens  *tokens
	mirrors *Mirrors
	dir     string
	logs    *testkit.Logs
}

func setUp(t *testing.T, limits Limits) *fixture {
	t.Helper()
	f := &fixture{t: t, git: gittest.New(t, token), tokens: &tokens{list: []string{token}}, dir: t.TempDir(), logs: testkit.Logger(t)}
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
func tree(t *testing.T, dir string) map[string]string {
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
	var e *Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return ""
}

func TestFetch_checksOutTheHeadAndFollowsIt(t *testing.T) {
	f := setUp(t, Limits{})
	repo := f.git.Repo("acme/web")
	files := map[string]string{"index.html": "one", "a/b/c.txt": "deep", "a/b.txt": "beside", "näme with space.txt": "x", "empty": "", "crlf.txt": "a\r\nb\r\n"}
	first := repo.Commit("main", "First\n\nwith a body", files)
	dir, head, err := f.deploy("main")
	if err != nil {
		t.Fatal(err)
	}
	if head.Hash != first || head.Message != "First\n\nwith a body" || head.AuthorName != "Jane Developer" || head.AuthorEmail != "jane@example.test" || head.Time.IsZero() {
		t.Fatalf("head: %+v, want %s", head, first)
	}
	same(t, tree(t, dir), files)

	files["index.html"] = "two"
	delete(files, "empty")
	second := repo.Commit("main", "Second", files)
	dir, head, err = f.deploy("main")
	if err != nil || head.Hash != second {
		t.Fatalf("second: %v %v", head.Hash, err)
	}
	same(t, tree(t, dir), files)

	repo.Set("main", first) // forced back
	if _, head, err = f.deploy("main"); err != nil || head.Hash != first {
		t.Fatalf("forced: %v %v", head.Hash, err)
	}
}

func TestFetch_branchesThatNestDoNotCollide(t *testing.T) {
	f := setUp(t, Limits{})
	repo := f.git.Repo("acme/web")
	repo.Commit("feature", "a", map[string]string{"f": "1"})
	if _, _, err := f.deploy("feature"); err != nil {
		t.Fatal(err)
	}
	repo.Delete("feature")
	repo.Commit("feature/login", "b", map[string]string{"f": "2"})
	if dir, _, err := f.deploy("feature/login"); err != nil || tree(t, dir)["f"] != "2" {
		t.Fatal(err)
	}
}

func TestFetch_modesLinksAndSubmodules(t *testing.T) {
	f := setUp(t, Limits{})
	repo := f.git.Repo("acme/web")
	sub := repo.Tree(gittest.E("100644", "x", "x"), gittest.E("120000", "up", "../run.sh"))
	repo.CommitTree("main", repo.Tree(
		gittest.E("100755", "run.sh", "#!/bin/sh\n"), gittest.E("040000", "dir", sub), gittest.E("120000", "latest", "dir/x"),
		gittest.E("120000", "nowhere", "not/there"), gittest.E("160000", "lib", strings.Repeat("1", 40)),
	), "links")
	dir, _, err := f.deploy("main")
	if err != nil {
		t.Fatal(err)
	}
	same(t, tree(t, dir), map[string]string{"run.sh": "#!/bin/sh\n", "dir/x": "x", "dir/up": "-> ../run.sh", "latest": "-> dir/x", "nowhere": "-> not/there"})
	info, err := os.Stat(filepath.Join(dir, "run.sh"))
	if err != nil || info.Mode().Perm()&0o100 == 0 {
		t.Fatalf("run.sh: %v %v", info.Mode(), err)
	}
	if info, err := os.Stat(filepath.Join(dir, "lib")); err != nil || !info.IsDir() {
		t.Fatalf("submodule's place: %v", err)
	}
}

func TestFetch_reasons(t *testing.T) {
	const (
		noAccess = "The requested repository either does not exist or you do not have access. If you believe this repository exists and you have access, make sure you're authenticated."
		always   = true
	)
	answer := func(status int, text string) func(*http.Request) (int, string) {
		return func(*http.Request) (int, string) { return status, text }
	}
	for _, c := range []struct {
		name      string
		branch    string
		fail      func(*http.Request) (int, string)
		reason    apierr.Reason
		temporary bool
		gone      bool
	}{
		{"no such branch", "nope", nil, apierr.ReasonBranchNotFound, false, false},
		{"IP allow-list", "main", answer(403, "To access this repository, an admin must whitelist your IP."), apierr.ReasonAccessRestricted, false, false},
		{"two-step", "main", answer(403, "To access this repository, enable two-step authentication."), apierr.ReasonAccessRestricted, false, false},
		{"no permission", "main", answer(403, noAccess), apierr.ReasonRepositoryNotFound, false, always},
		{"not found", "main", answer(404, "You may not have access to this repository or it no longer exists in this workspace."), apierr.ReasonRepositoryNotFound, false, always},
		{"scope", "main", answer(403, "Your credentials lack one or more required privilege scopes."), apierr.ReasonScopeMissing, false, false},
		{"rate", "main", answer(429, "Rate limit for this resource has been exceeded"), apierr.ReasonBitbucketRateLimited, true, false},
		{"down", "main", answer(503, "<html>"), apierr.ReasonBitbucketUnavailable, true, false},
		{"internal timeout", "main", answer(555, ""), apierr.ReasonBitbucketUnavailable, true, false},
		{"redirect", "main", answer(302, ""), apierr.ReasonBitbucketUnavailable, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := setUp(t, Limits{})
			f.git.Repo("acme/web").Commit("main", "x", map[string]string{"f": "1"})
			f.git.Fail(c.fail)
			_, _, err := f.deploy(c.branch)
			var e *Error
			if !errors.As(err, &e) || e.Reason != string(c.reason) || e.Temporary != c.temporary || IsGone(err) != c.gone || e.Message == "" {
				t.Fatalf("got %#v (%v)", e, err)
			}
			if strings.Contains(err.Error()+e.Message, token) {
				t.Fatal("the token is in the error")
			}
		})
	}
}

func TestFetch_emptyRepositoryHasNoBranch(t *testing.T) {
	f := setUp(t, Limits{})
	f.git.Repo("acme/web")
	if _, _, err := f.deploy("main"); reason(err) != string(apierr.ReasonBranchNotFound) {
		t.Fatal(err)
	}
}

func TestFetch_rejectedTokenIsRenewedOnce(t *testing.T) {
	f := setUp(t, Limits{})
	f.git.Repo("acme/web").Commit("main", "x", map[string]string{"f": "1"})
	f.tokens.list = []string{"old-token-000000000000", token}
	if _, _, err := f.deploy("main"); err != nil {
		t.Fatal(err)
	}
	if len(f.tokens.rejected) != 1 || f.tokens.rejected[0] != "old-token-000000000000" {
		t.Fatalf("rejected: %d", len(f.tokens.rejected))
	}
	f.git.Accept("another")
	if _, _, err := f.deploy("main"); reason(err) != string(apierr.ReasonTokenExpired) {
		t.Fatalf("second 401: %v", err)
	}
	if len(f.tokens.rejected) != 2 {
		t.Fatalf("%d renewals, want one more", len(f.tokens.rejected))
	}
}

func TestFetch_tokenTroubleIsTemporary(t *testing.T) {
	f := setUp(t, Limits{})
	f.tokens.err = apierr.New(apierr.ReasonReconnectRequired, "Connect again.")
	_, _, err := f.deploy("main")
	var e *Error
	if !errors.As(err, &e) || e.Reason != string(apierr.ReasonReconnectRequired) || !e.Temporary {
		t.Fatal(err)
	}
}

func TestFetch_hostileNamesAreNoOptions(t *testing.T) {
	f := setUp(t, Limits{})
	repo := f.git.Repo("acme/web")
	for _, branch := range []string{"--upload-pack=touch pwned", "-x", "--help"} {
		if strings.ContainsAny(branch, " ") {
			if _, _, err := f.deploy(branch); reason(err) != string(apierr.ReasonBranchNotFound) {
				t.Errorf("%q: %v", branch, err)
			}
			continue
		}
		hash := repo.Commit("tmp", "x", map[string]string{"f": branch})
		repo.Set(branch, hash)
		if dir, _, err := f.deploy(branch); err != nil || tree(t, dir)["f"] != branch {
			t.Errorf("%q: %v", branch, err)
		}
		heads, err := f.mirrors.Heads(t.Context(), "acme-inc", "acme/web", []string{branch, "*", "nope"})
		if err != nil || len(heads) != 1 || heads[branch] != hash {
			t.Errorf("heads of %q: %v %v", branch, heads, err)
		}
	}
	for _, name := range []string{"--upload-pack=x/y", "acme/../web", "acme", "acme/we b", "../x", "a/b/c", "https://evil.test/x", "-x/y"} {
		src := source("main")
		src.FullName = name
		if s, err := f.mirrors.Fetch(t.Context(), src); reason(err) != string(apierr.ReasonRepositoryNotFound) {
			t.Errorf("%q: %v %v", name, s, err)
		}
	}
	if len(f.git.Requests()) == 0 {
		t.Fatal("the server saw nothing at all")
	}
}

func TestCheckout_refusesHostileTrees(t *testing.T) {
	for name, make := range map[string]func(r *gittest.Repo) string{
		"absolute link":       func(r *gittest.Repo) string { return r.Tree(gittest.E("120000", "l", "/etc/passwd")) },
		"link out":            func(r *gittest.Repo) string { return r.Tree(gittest.E("120000", "l", "../../x")) },
		"link out by another": func(r *gittest.Repo) string { return nested(r, "s/../x") },
		"link to parent":      func(r *gittest.Repo) string { return r.Tree(gittest.E("120000", "l", "..")) },
	} {
		t.Run(name, func(t *testing.T) {
			f := setUp(t, Limits{})
			repo := f.git.Repo("acme/web")
			repo.CommitTree("main", make(repo), "hostile")
			dir, _, err := f.deploy("main")
			if reason(err) != ReasonTreeRefused {
				t.Fatalf("%v", err)
			}
			if got := tree(t, dir); len(got) != 0 {
				t.Fatalf("something was written: %v", got)
			}
		})
	}
	for name, entries := range map[string][]gittest.Entry{
		"dot git":      {gittest.E("100644", ".git", "gitdir: /tmp")},
		"dot git case": {gittest.E("100644", ".GIT", "x")},
		"dot dot":      {gittest.E("100644", "..", "x")},
	} {
		t.Run(name, func(t *testing.T) {
			f := setUp(t, Limits{})
			repo := f.git.Repo("acme/web")
			repo.CommitTree("main", repo.Tree(entries...), "hostile")
			if _, _, err := f.deploy("main"); err == nil {
				t.Fatal("was deployed")
			} else if r := reason(err); r != ReasonGitFailed && r != ReasonTreeRefused {
				t.Fatalf("%v", err)
			}
		})
	}
}

// nested is x/s -> .., x/y/t -> ../s/<target>: each looks harmless alone.
func nested(r *gittest.Repo, target string) string {
	y := r.Tree(gittest.E("120000", "t", "../"+target))
	x := r.Tree(gittest.E("120000", "s", ".."), gittest.E("040000", "y", y))
	return r.Tree(gittest.E("040000", "x", x))
}

func TestCheckout_limits(t *testing.T) {
	files := map[string]string{"a": strings.Repeat("x", 2000), "b": "1", "c": "2"}
	for name, l := range map[string]Limits{"files": {TreeFiles: 2}, "bytes": {TreeBytes: 1000}} {
		t.Run(name, func(t *testing.T) {
			f := setUp(t, l)
			f.git.Repo("acme/web").Commit("main", "big", files)
			if _, _, err := f.deploy("main"); reason(err) != ReasonRepositoryTooLarge {
				t.Fatal(err)
			}
		})
	}
}

func TestCheckout_endlessTreeIsCut(t *testing.T) {
	f := setUp(t, Limits{TreeFiles: 1000})
	repo := f.git.Repo("acme/web")
	level := repo.Blob("bomb")
	mode := "100644"
	for range 8 { // 10^8 paths from a dozen objects
		var in []gittest.Entry
		for _, n := range "0123456789" {
			if mode == "100644" {
				in = append(in, gittest.E(mode, string(n), "bomb"))
			} else {
				in = append(in, gittest.E(mode, string(n), level))
			}
		}
		level, mode = repo.Tree(in...), "040000"
	}
	repo.CommitTree("main", level, "bomb")
	begin := time.Now()
	if _, _, err := f.deploy("main"); reason(err) != ReasonRepositoryTooLarge {
		t.Fatal(err)
	}
	if d := time.Since(begin); d > 20*time.Second {
		t.Fatalf("took %v", d)
	}
}

func TestFetch_damagedMirrorIsMadeAnew(t *testing.T) {
	f := setUp(t, Limits{})
	repo := f.git.Repo("acme/web")
	files := map[string]string{"f": "content"}
	repo.Commit("main", "x", files)
	if _, _, err := f.deploy("main"); err != nil {
		t.Fatal(err)
	}
	git := filepath.Join(f.mirrors.dirOf("acme-inc", source("").Repository), "git")
	for name, damage := range map[string]func(){
		"no HEAD":      func() { must(t, os.Remove(filepath.Join(git, "HEAD"))) },
		"config":       func() { must(t, os.WriteFile(filepath.Join(git, "config"), []byte("[[["), 0o600)) },
		"packed refs":  func() { must(t, os.WriteFile(filepath.Join(git, "packed-refs"), []byte("\x00garbage"), 0o600)) },
		"shallow":      func() { must(t, os.WriteFile(filepath.Join(git, "shallow"), []byte("garbage\n"), 0o600)) },
		"stale locks":  func() { must(t, os.WriteFile(filepath.Join(git, "shallow.lock"), nil, 0o600)) },
		"all objects":  func() { wipeObjects(t, git) },
		"empty object": func() { truncateObjects(t, git) },
	} {
		damage()
		dir, _, err := f.deploy("main")
		if errors.Is(err, ErrDamaged) { // found while reading: what the pipeline does
			must(t, f.mirrors.Discard(t.Context(), "acme-inc", source("").Repository))
			dir, _, err = f.deploy("main")
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		same(t, tree(t, dir), files)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func eachObject(t *testing.T, git string, fn func(p string) error) {
	t.Helper()
	must(t, filepath.WalkDir(filepath.Join(git, "objects"), func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		return fn(p)
	}))
}

func wipeObjects(t *testing.T, git string) { eachObject(t, git, os.Remove) }

func truncateObjects(t *testing.T, git string) {
	eachObject(t, git, func(p string) error {
		if err := os.Chmod(p, 0o600); err != nil {
			return err
		}
		return os.Truncate(p, 0)
	})
}

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
	case <-time.After(10 * time.Second):
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
	forms := Forms(seal.NewSecret(token))
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

func TestCredential_answersOnlyForTheSite(t *testing.T) {
	f := setUp(t, Limits{})
	c := &credential{site: f.git.URL}
	host := f.git.URL.Host
	for _, q := range []map[string]string{
		{"protocol": "https", "host": host}, {"protocol": "http", "host": "evil.test"}, {"protocol": "http", "host": host + ".evil.test"},
		{"protocol": "http", "host": "localhost"}, {"protocol": "http", "host": host, "username": "someone"}, {},
	} {
		if c.matches(q) {
			t.Errorf("answers %v", q)
		}
	}
	if !c.matches(map[string]string{"protocol": "http", "host": host, "path": "acme/web.git"}) {
		t.Error("does not answer for the site")
	}
}

func TestFetch_manyAtOnceShareOneMirror(t *testing.T) {
	f := setUp(t, Limits{})
	repo := f.git.Repo("acme/web")
	repo.Commit("main", "x", map[string]string{"f": "main"})
	repo.Commit("dev", "x", map[string]string{"f": "dev"})
	var wg sync.WaitGroup
	for i := range 6 {
		branch := []string{"main", "dev"}[i%2]
		wg.Go(func() {
			dir, _, err := f.deploy(branch)
			if err != nil || tree(t, dir)["f"] != branch {
				t.Errorf("%s: %v", branch, err)
			}
		})
	}
	wg.Wait()
}

func TestRepository_manyPacksAreTidied(t *testing.T) {
	f := setUp(t, Limits{})
	repo := f.git.Repo("acme/web")
	repo.Commit("main", "x", map[string]string{"f": "1"})
	if _, _, err := f.deploy("main"); err != nil {
		t.Fatal(err)
	}
	git := filepath.Join(f.mirrors.dirOf("acme-inc", source("").Repository), "git")
	pack := filepath.Join(git, "objects", "pack")
	must(t, f.mirrors.git.run(t.Context(), command{operation: "repack", gitDir: git, args: []string{"repack", "-a", "-d", "-q"}}))
	names, err := filepath.Glob(filepath.Join(pack, "*.pack"))
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	for i := range maxPacks + 1 {
		for _, ext := range []string{".pack", ".idx"} {
			b, err := os.ReadFile(strings.TrimSuffix(names[0], ".pack") + ext)
			must(t, err)
			must(t, os.WriteFile(filepath.Join(pack, "pack-"+strings.Repeat("0", 38)+string(rune('a'+i/26))+string(rune('a'+i%26))+ext), b, 0o600))
		}
	}
	if dir, _, err := f.deploy("main"); err != nil || tree(t, dir)["f"] != "1" {
		t.Fatal(err)
	}
	if names, _ = filepath.Glob(filepath.Join(pack, "*.pack")); len(names) > 2 {
		t.Fatalf("%d packs are left", len(names))
	}
}
