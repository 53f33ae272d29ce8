package mirror

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/gittest"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/tree"
)

// fetchSource fetches, checks out and returns the directory and the commit.
func (f *fixture) fetchSource(src Source) (string, Commit, error) {
	f.t.Helper()
	s, err := f.mirrors.Fetch(f.t.Context(), src)
	if err != nil {
		return "", Commit{}, err
	}
	defer s.Close()
	dir, err := f.checkOut(s)
	return dir, s.Head(), err
}

func (f *fixture) checkOut(s *Snapshot) (string, error) {
	f.t.Helper()
	dir := f.t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		f.t.Fatal(err)
	}
	defer func() { _ = root.Close() }()
	_, err = s.Checkout(f.t.Context(), root, nil)
	return dir, err
}

func (f *fixture) gitDir() string {
	return filepath.Join(f.mirrors.dirOf("acme-inc", source("").Repository), "git")
}

// commits makes n commits on a branch and returns their hashes, the oldest first.
func commits(repo *gittest.Repo, branch string, n int) []string {
	var out []string
	for i := range n {
		out = append(out, repo.Commit(branch, fmt.Sprintf("Commit %d", i), map[string]string{"f": fmt.Sprint(branch, i)}))
	}
	return out
}

func commitSource(branch, commit string, known bool) Source {
	src := source(branch)
	src.Commit, src.Known = commit, known
	return src
}

// noHashes makes the server one that gives no commit by its hash but those that a ref points to.
func noHashes(f *fixture, repo *gittest.Repo) {
	f.git.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		r.Header.Del("Git-Protocol") // version 2 gives any commit
		return false
	})
	repo.Git("config", "uploadpack.allowAnySHA1InWant", "false")
}

func TestFetch_exactCommit(t *testing.T) {
	t.Parallel()
	for _, server := range []string{"gives commits by hash", "does not"} {
		t.Run(server, func(t *testing.T) {
			f := setUp(t, Limits{})
			repo := f.git.Repo("acme/web")
			all := commits(repo, "main", 4)
			other := commits(repo, "other", 2)
			if server == "does not" {
				noHashes(f, repo)
			}
			for _, want := range []string{all[3], all[1], all[0]} {
				dir, head, err := f.fetchSource(commitSource("main", want, false))
				if err != nil || head.Hash != want || filesIn(t, dir)["f"] != "main"+strings.TrimPrefix(head.Message, "Commit ") {
					t.Fatalf("want %s: %v %v", want, head, err)
				}
			}
			if _, _, err := f.fetchSource(commitSource("main", other[1], false)); reason(err) != remote.ReasonCommitNotInBranch {
				t.Fatalf("of another branch: %v", err)
			}
			if _, _, err := f.fetchSource(commitSource("main", strings.Repeat("ab", 20), false)); reason(err) != remote.ReasonCommitNotInBranch {
				t.Fatalf("of nowhere: %v", err)
			}
			if _, _, err := f.fetchSource(commitSource("main", strings.Repeat("ab", 20), true)); reason(err) != remote.ReasonCommitGone {
				t.Fatalf("gone: %v", err)
			}
			// The head comes as before.
			if _, head, err := f.deploy("main"); err != nil || head.Hash != all[3] {
				t.Fatalf("head: %v %v", head, err)
			}
		})
	}
}

func TestFetch_exactCommitDeepInTheBranch(t *testing.T) {
	t.Parallel()
	f := setUp(t, Limits{})
	repo := f.git.Repo("acme/web")
	all := commits(repo, "main", 2)
	// 100 more on top, quickly.
	var in strings.Builder
	fmt.Fprintf(&in, "feature done\n")
	for i := range 100 {
		fmt.Fprintf(&in, "commit refs/heads/main\ncommitter Jane Developer <jane@example.test> %d +0000\ndata 1\nx\n", 1_800_000_000+i)
		if i == 0 {
			fmt.Fprintf(&in, "from refs/heads/main^0\n")
		}
		fmt.Fprintf(&in, "\n")
	}
	fmt.Fprintf(&in, "done\n")
	repo.Input(in.String(), "fast-import", "--quiet")
	if _, _, err := f.deploy("main"); err != nil {
		t.Fatal(err)
	}
	if _, head, err := f.fetchSource(commitSource("main", all[0], false)); err != nil || head.Hash != all[0] {
		t.Fatalf("%v %v", head, err)
	}
	f.mirrors.depths = []string{"8", "16"}
	must(t, f.mirrors.Discard(t.Context(), "acme-inc", source("").Repository))
	_, _, err := f.fetchSource(commitSource("main", all[0], false))
	if e, ok := remote.AsError(err); !ok || e.Reason != remote.ReasonCommitNotInBranch || !strings.Contains(e.Message, "last 16 commits") {
		t.Fatalf("beyond the bound: %v", err)
	}
	left, err := os.ReadDir(filepath.Join(f.dir, "temporary"))
	if err != nil || len(left) > 0 {
		t.Fatalf("left over: %v %v", left, err)
	}
}

func TestFetch_commitThatWasForcedAway(t *testing.T) {
	t.Parallel()
	f := setUp(t, Limits{})
	repo := f.git.Repo("acme/web")
	all := commits(repo, "main", 2)
	if _, _, err := f.deploy("main"); err != nil {
		t.Fatal(err)
	}
	repo.Set("main", all[0])
	replaced := repo.Commit("main", "Instead", map[string]string{"f": "instead"})
	repo.Git("reflog", "expire", "--expire=now", "--all")
	repo.Git("gc", "--quiet", "--prune=now")

	_, _, err := f.fetchSource(commitSource("main", all[1], false))
	if e, ok := remote.AsError(err); !ok || e.Reason != remote.ReasonCommitGone || !strings.Contains(e.Message, "forced push") {
		t.Fatalf("unknown: %v", err)
	}
	dir, head, err := f.fetchSource(commitSource("main", all[1], true))
	if err != nil || head.Hash != all[1] || filesIn(t, dir)["f"] != "main1" {
		t.Fatalf("redeployed from the mirror: %v %v", head, err)
	}
	// Also after everything was packed anew, and when the branch is gone.
	f.repack()
	repo.Delete("main")
	if _, head, err = f.fetchSource(commitSource("main", all[1], true)); err != nil || head.Hash != all[1] {
		t.Fatalf("after packing: %v %v", head, err)
	}
	// A new mirror cannot have it.
	repo.Set("main", replaced)
	must(t, f.mirrors.Discard(t.Context(), "acme-inc", source("").Repository))
	if _, _, err = f.fetchSource(commitSource("main", all[1], true)); reason(err) != remote.ReasonCommitGone {
		t.Fatalf("without the mirror: %v", err)
	}
}

// repack packs the mirror as tidy does it at its most thorough.
func (f *fixture) repack() {
	f.t.Helper()
	r, err := f.mirrors.openRepository(f.t.Context(), "acme-inc", source("").Repository)
	must(f.t, err)
	defer r.close()
	testkit.Eventually(f.t, time.Minute, func() error {
		err := r.repack(f.t.Context())
		if err == nil && r.packedSize() == 0 {
			err = errors.New("nothing was packed: what a fetch tidies afterwards still reads it")
		}
		return err
	})
}

func TestFetch_exactCommitAsksForAccessAllTheSame(t *testing.T) {
	t.Parallel()
	f := setUp(t, Limits{})
	repo := f.git.Repo("acme/web")
	all := commits(repo, "main", 2)
	for _, c := range all {
		if _, _, err := f.fetchSource(commitSource("main", c, false)); err != nil {
			t.Fatal(err)
		}
	}
	for _, known := range []bool{true, false} {
		before := len(f.git.Requests())
		if _, _, err := f.fetchSource(commitSource("main", all[0], known)); err != nil {
			t.Fatal(err)
		}
		if len(f.git.Requests()) == before {
			t.Fatal("nobody was asked")
		}
		f.git.Fail(func(*http.Request) (int, string) { return 403, "no" })
		if _, _, err := f.fetchSource(commitSource("main", all[0], known)); !remote.IsGone(err) {
			t.Fatalf("known %v: lost access was not noticed: %v", known, err)
		}
		f.git.Fail(nil)
	}
}

func TestFetch_tags(t *testing.T) {
	t.Parallel()
	f := setUp(t, Limits{})
	repo := f.git.Repo("acme/web")
	all := commits(repo, "main", 3)
	repo.Git("update-ref", "refs/tags/light", all[0])
	repo.Git("-c", "user.name=Jane Developer", "-c", "user.email=jane@example.test", "tag", "-a", "-m", "one", "v1/annotated", all[1])
	repo.Git("update-ref", "refs/tags/file", repo.Blob("no commit"))
	repo.Git("update-ref", "refs/heads/light", all[2]) // a branch of the same name is another thing
	tagged := func(tag, commit string) Source {
		src := source("")
		src.Tag, src.Commit = tag, commit
		return src
	}
	for tag, want := range map[string]string{"light": all[0], "v1/annotated": all[1]} {
		dir, head, err := f.fetchSource(tagged(tag, ""))
		if err != nil || head.Hash != want || filesIn(t, dir)["f"] == "" {
			t.Fatalf("%s: %v %v", tag, head, err)
		}
	}
	if _, head, err := f.fetchSource(tagged("v1/annotated", all[1])); err != nil || head.Hash != all[1] {
		t.Fatalf("tag and commit: %v %v", head, err)
	}
	if _, _, err := f.fetchSource(tagged("v1/annotated", all[2])); reason(err) != remote.ReasonCommitNotInBranch {
		t.Fatalf("a later commit: %v", err)
	}
	for _, tag := range []string{"nope", "file", "a..b", "-- x"} {
		if _, _, err := f.fetchSource(tagged(tag, "")); reason(err) != remote.ReasonTagNotFound {
			t.Errorf("%q: %v", tag, err)
		}
	}
	both := tagged("light", "")
	both.Branch = "main"
	if _, _, err := f.fetchSource(both); err == nil {
		t.Error("a branch and a tag at once")
	}
	if _, _, err := f.fetchSource(source("")); reason(err) != string(apierr.ReasonBranchNotFound) {
		t.Errorf("neither: %v", err)
	}
}

func TestSnapshot_readFile(t *testing.T) {
	t.Parallel()
	f := setUp(t, Limits{})
	repo := f.git.Repo("acme/web")
	sub := repo.Tree(gittest.E("100644", "*.yaml", "star"), gittest.E("100755", "run", "#!"))
	repo.CommitTree("main", repo.Tree(
		gittest.E("100644", ".devpilot.yaml", "hooks: []\n"), gittest.E("120000", "link", ".devpilot.yaml"), gittest.E("040000", "dir", sub),
		gittest.E("120000", "up", "dir"), gittest.E("160000", "lib", strings.Repeat("1", 40)), gittest.E("100644", "--help", "dashes"), gittest.E("100644", "empty", ""),
	), "files")
	s, err := f.mirrors.Fetch(t.Context(), source("main"))
	must(t, err)
	defer s.Close()
	for path, want := range map[string]string{".devpilot.yaml": "hooks: []\n", "dir/*.yaml": "star", "dir/run": "#!", "--help": "dashes", "empty": ""} {
		if b, err := s.ReadFile(t.Context(), path, 10); err != nil || string(b) != want {
			t.Errorf("%s: %q %v", path, b, err)
		}
	}
	for _, path := range []string{"nope", "dir", "dir/", "lib", "up/run", "../x", "/etc/passwd", "", ".", "dir/../.devpilot.yaml", ".git/config", "*"} {
		if b, err := s.ReadFile(t.Context(), path, 100); !errors.Is(err, tree.ErrNotInTree) {
			t.Errorf("%q: %q %v", path, b, err)
		}
	}
	if _, err := s.ReadFile(t.Context(), "link", 100); reason(err) != remote.ReasonTreeRefused {
		t.Errorf("link: %v", err)
	}
	_, err = s.ReadFile(t.Context(), ".devpilot.yaml", 9)
	if e, ok := remote.AsError(err); !ok || e.Reason != remote.ReasonFileTooLarge || !strings.Contains(e.Message, "9 bytes") {
		t.Errorf("too large: %v", err)
	}
}
