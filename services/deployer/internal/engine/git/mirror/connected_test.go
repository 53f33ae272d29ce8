package mirror

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"devpilot.io/bitbucket/services/deployer/internal/engine/git/gittest"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
)

// recorded has every git that is started by us written down: the returned function names the commands since
// it was last called. It must be called before setUp.
func recorded(t *testing.T) func() []string {
	t.Helper()
	git, err := exec.LookPath("git")
	must(t, err)
	dir := t.TempDir()
	list := filepath.Join(dir, "list")
	script := fmt.Sprintf("#!/bin/sh\nfor a in \"$@\"; do case \"$a\" in -*) ;; *) echo \"$a\" >>'%s'; break;; esac; done\nexec '%s' \"$@\"\n", list, git)
	must(t, os.WriteFile(filepath.Join(dir, "git"), []byte(script), 0o700)) // it is to be run
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	return func() []string {
		b, err := os.ReadFile(list)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		must(t, os.WriteFile(list, nil, 0o600))
		return slices.DeleteFunc(strings.Fields(string(b)), func(c string) bool { return c == "upload-pack" })
	}
}

// TestConnected_startsFewProcesses: what a deployment of a branch that moved on takes, and what looking at
// branches does.
func TestConnected_startsFewProcesses(t *testing.T) {
	commands := recorded(t)
	f := setUp(t, Limits{})
	repo := f.git.Repo("acme/web")
	files := map[string]string{"f": "1", "same": "same"}
	first := repo.Commit("main", "one", files)
	_, _, err := f.deploy("main")
	must(t, err)
	commands()
	files["f"] = "2"
	second := repo.Commit("main", "two", files)
	dir, head, err := f.deploy("main")
	if err != nil || head.Hash != second || filesIn(t, dir)["f"] != "2" {
		t.Fatalf("%v, %v", head, err)
	}
	if got := commands(); !slices.Equal(got, []string{"index-pack", "log", "ls-tree", "cat-file"}) {
		t.Errorf("of what moved on: %v", got)
	}
	if _, _, err = f.deploy("main"); err != nil {
		t.Fatal(err)
	}
	if got := commands(); !slices.Equal(got, []string{"log", "ls-tree", "cat-file"}) {
		t.Errorf("of what is here: %v", got)
	}
	if _, _, err := f.fetchSource(commitSource("main", first, true)); err != nil {
		t.Fatal(err)
	}
	if got := commands(); !slices.Equal(got, []string{"rev-list", "log", "ls-tree", "cat-file"}) {
		t.Errorf("of a commit that is here: %v", got)
	}
	for range 3 {
		_, err = f.mirrors.Heads(t.Context(), "acme-inc", "acme/web", remote.Wanted{Branch: every, Tag: every})
		must(t, err)
	}
	if got := commands(); len(got) > 0 {
		t.Errorf("looking at branches starts %v", got)
	}
}

// TestConnected_leavesWhatGitWouldLeave: refs, their logs and the end of history are those of git fetch, and
// git takes the repository for one.
func TestConnected_leavesWhatGitWouldLeave(t *testing.T) {
	t.Parallel()
	f := setUp(t, Limits{})
	repo := f.git.Repo("acme/web")
	all := commits(repo, "main", 5)
	side := commits(repo, "side", 7)
	repo.Git("-c", "user.name=Jane", "-c", "user.email=jane@example.test", "tag", "-a", "-m", "m", "v1", all[1])
	tag := source("")
	tag.Tag = "v1"
	state := func(old bool) string {
		f.git.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
			if old && r.Header.Get("Accept") == "application/x-git-upload-pack-advertisement" { // of ours: git takes anything
				r.Header.Del("Git-Protocol")
			}
			return false
		})
		for _, head := range []string{all[4], all[4], all[2], side[6]} {
			repo.Set("main", head)
			_, _, err := f.deploy("main")
			must(t, err)
		}
		for _, src := range []Source{tag, commitSource("main", all[0], true)} {
			_, _, err := f.fetchSource(src)
			must(t, err)
		}
		return f.refState()
	}
	ours := state(false)
	must(t, f.mirrors.Discard(t.Context(), "acme-inc", source("").Repository))
	if gits := state(true); ours != gits {
		t.Errorf("ours:\n%s\ngit's:\n%s", ours, gits)
	}
}

// refState is what a mirror has beside objects, in git's words.
func (f *fixture) refState() string {
	f.t.Helper()
	git := func(args ...string) string {
		out, err := exec.CommandContext(f.t.Context(), "git", append([]string{"--git-dir=" + f.gitDir()}, args...)...).CombinedOutput()
		if err != nil {
			f.t.Fatalf("git %v: %v: %s", args, err, out)
		}
		return string(out)
	}
	git("fsck", "--strict")
	shallow, err := os.ReadFile(filepath.Join(f.gitDir(), "shallow"))
	must(f.t, err)
	boundary := strings.Fields(string(shallow))
	slices.Sort(boundary)
	said := git("for-each-ref") + strings.Join(boundary, "\n")
	for _, ref := range strings.Fields(git("for-each-ref", "--format=%(refname)")) {
		said += "\n" + ref + "\n" + git("reflog", "show", "--format=%H", ref)
	}
	return said
}

// TestConnected_anotherBranchBringsWhatDiffers: what one branch brought need not come again for another.
func TestConnected_anotherBranchBringsWhatDiffers(t *testing.T) {
	t.Parallel()
	f := setUp(t, Limits{FetchBytes: 600_000})
	repo := f.git.Repo("acme/web")
	large := noise(500_000)
	repo.Commit("main", "x", map[string]string{"large": large})
	_, _, err := f.deploy("main")
	must(t, err)
	repo.Commit("dev", "x", map[string]string{"large": large, "f": "1"})
	before := sizeOf(f.gitDir())
	if dir, _, err := f.deploy("dev"); err != nil || filesIn(t, dir)["f"] != "1" {
		t.Fatal(err)
	}
	if grew := sizeOf(f.gitDir()) - before; grew > 100_000 {
		t.Errorf("%d bytes came", grew)
	}
}

// TestConnected_whatIsLackingIsFetchedAnew: a server that sends less than a commit leads to leaves nothing
// that would be taken for whole later.
func TestConnected_whatIsLackingIsFetchedAnew(t *testing.T) {
	t.Parallel()
	f := setUp(t, Limits{})
	repo := f.git.Repo("acme/web")
	hash := repo.CommitTree("main", repo.Tree(gittest.E("100644", "f", "1"), gittest.E("100644", "g", "2")), "x")
	lacking := repo.Git("rev-parse", hash+"^{tree}")
	answerPack(f, hash, func() string { return repo.Input(hash+"\n"+lacking+"\n", "pack-objects", "--stdout", "-q") })
	if dir, _, err := f.deploy("main"); err == nil {
		t.Fatalf("%v was deployed", filesIn(t, dir))
	}
	f.git.Intercept(nil)
	must(t, f.mirrors.Discard(t.Context(), "acme-inc", source("").Repository)) // as a deployment does that finds it damaged
	if dir, _, err := f.deploy("main"); err != nil || len(filesIn(t, dir)) != 2 {
		t.Fatal(err)
	}
}
