package mirror

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// inRelease runs git in a release, as a hook would.
func inRelease(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", append([]string{"-C", dir}, args...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "LC_ALL=C", "GIT_CONFIG_NOSYSTEM=1"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// withHistory fetches all history and checks it out with its .git.
func (f *fixture) withHistory(src Source) string {
	f.t.Helper()
	src.FullHistory = true
	s, err := f.mirrors.Fetch(f.t.Context(), src)
	if err != nil {
		f.t.Fatal(err)
	}
	defer s.Close()
	dir, err := f.checkOut(s)
	must(f.t, err)
	root, err := os.OpenRoot(dir)
	must(f.t, err)
	defer func() { _ = root.Close() }()
	must(f.t, s.WriteGit(f.t.Context(), root))
	return dir
}

func TestWriteGit_givesHooksTheHistory(t *testing.T) {
	t.Parallel()
	f := setUp(t, Limits{})
	repo := f.git.Repo("acme/web")
	all := commits(repo, "main", 4)
	side := commits(repo, "side", 1)
	repo.Git("-c", "user.name=Jane Developer", "-c", "user.email=jane@example.test", "tag", "-a", "-m", "one", "v1", all[1])
	repo.Git("update-ref", "refs/tags/elsewhere", side[0])
	// A shallow mirror that is there already becomes a full one.
	if _, _, err := f.deploy("main"); err != nil {
		t.Fatal(err)
	}
	dir := f.withHistory(source("main"))
	if got := inRelease(t, dir, "describe", "--dirty"); got != "v1-2-g"+all[3][:7] {
		t.Errorf("describe: %s", got)
	}
	if got := inRelease(t, dir, "rev-list", "--count", "HEAD"); got != "4" {
		t.Errorf("commits: %s", got)
	}
	if got := inRelease(t, dir, "rev-parse", "--abbrev-ref", "HEAD"); got != "main" {
		t.Errorf("branch: %s", got)
	}
	if got := inRelease(t, dir, "tag"); got != "v1" {
		t.Errorf("tags: %s", got)
	}
	inRelease(t, dir, "fsck", "--full", "--strict")
	if got := inRelease(t, dir, "status", "--porcelain"); got != "" {
		t.Errorf("status: %s", got)
	}
	if got := inRelease(t, dir, "config", "--local", "--list"); strings.Contains(got, "remote") || strings.Contains(got, "alternates") || strings.Contains(got, "http") {
		t.Errorf("config: %s", got)
	}
	for _, none := range []string{"hooks", "objects/info/alternates", "shallow", "FETCH_HEAD", "logs"} {
		if _, err := os.Lstat(filepath.Join(dir, ".git", none)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf(".git/%s: %v", none, err)
		}
	}
	f.sharesNothing(filepath.Join(dir, ".git"))

	// The mirror stays full when somebody deploys another branch without history, and tags move.
	if _, _, err := f.deploy("side"); err != nil {
		t.Fatal(err)
	}
	more := commits(repo, "main", 2)
	repo.Git("tag", "-d", "v1")
	repo.Git("update-ref", "refs/tags/v1", more[0])
	dir = f.withHistory(source("main"))
	if got := inRelease(t, dir, "describe", "--tags"); got != "v1-1-g"+more[1][:7] {
		t.Errorf("moved tag: %s", got)
	}
	// A commit that is not the head.
	src := source("main")
	src.Commit = all[1]
	dir = f.withHistory(src)
	if got := inRelease(t, dir, "rev-parse", "HEAD") + " " + inRelease(t, dir, "rev-list", "--count", "HEAD"); got != all[1]+" 2" {
		t.Errorf("older commit: %s", got)
	}
	left, err := os.ReadDir(filepath.Join(f.dir, "temporary"))
	if err != nil || len(left) > 0 {
		t.Fatalf("left over: %v %v", left, err)
	}
}

// sharesNothing fails when a file below dir is also a file of the cache.
func (f *fixture) sharesNothing(dir string) {
	f.t.Helper()
	must(f.t, filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		must(f.t, err)
		must(f.t, filepath.WalkDir(f.dir, func(q string, e os.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			other, err := e.Info()
			if err == nil && os.SameFile(info, other) {
				f.t.Errorf("%s is %s", p, q)
			}
			return err
		}))
		return nil
	}))
}

func TestWriteGit_needsHistory(t *testing.T) {
	t.Parallel()
	f := setUp(t, Limits{})
	f.git.Repo("acme/web").Commit("main", "x", map[string]string{"f": "1"})
	s, err := f.mirrors.Fetch(t.Context(), source("main"))
	must(t, err)
	defer s.Close()
	root, err := os.OpenRoot(t.TempDir())
	must(t, err)
	defer func() { _ = root.Close() }()
	if err := s.WriteGit(t.Context(), root); !errors.Is(err, ErrNoHistory) {
		t.Fatal(err)
	}
}

func TestWriteGit_historyThatTheServerItselfLacks(t *testing.T) {
	t.Parallel()
	f := setUp(t, Limits{})
	repo := f.git.Repo("acme/web")
	all := commits(repo, "main", 3)
	must(t, os.WriteFile(filepath.Join(repo.Dir, "shallow"), []byte(all[1]+"\n"), 0o600))
	dir := f.withHistory(source("main"))
	if got := inRelease(t, dir, "rev-list", "--count", "HEAD"); got != "2" {
		t.Errorf("commits: %s", got)
	}
	inRelease(t, dir, "fsck")
}
