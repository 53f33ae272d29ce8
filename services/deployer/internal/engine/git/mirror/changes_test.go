package mirror

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"devpilot.io/bitbucket/services/deployer/internal/engine/git/gittest"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
)

func pushed(branch, from, to string) ChangesRequest {
	return ChangesRequest{Workspace: "acme-inc", Repository: source("").Repository, FullName: "acme/web", Branch: branch, Old: from, New: to}
}

func TestChanges_comparesTheTwoTrees(t *testing.T) {
	t.Parallel()
	f := setUp(t, Limits{})
	repo := f.git.Repo("acme/web")
	first := repo.Commit("main", "First", map[string]string{"a.txt": "long enough to be a rename\n", "dir/b.txt": "b", "c.txt": "c", "näme \"q\"\n.txt": "x"})
	second := repo.Commit("main", "Second\n\nbody", map[string]string{"moved/a.txt": "long enough to be a rename\n", "dir/b.txt": "b2", "c.txt": "c", "new": "n"})
	want := []string{"a.txt", "dir/b.txt", "moved/a.txt", "new", "näme \"q\"\n.txt"}

	c, err := f.mirrors.Changes(t.Context(), pushed("main", first, second))
	if err != nil || c.First || c.BaseUnknown || c.Truncated || c.Message != "Second\n\nbody" || !slices.Equal(c.Paths, want) {
		t.Fatalf("%+v %v", c, err)
	}
	// Both are there now: nobody is asked, and backwards works as well.
	before := len(f.git.Requests())
	if c, err = f.mirrors.Changes(t.Context(), pushed("main", second, first)); err != nil || c.Message != "First" || !slices.Equal(c.Paths, want) {
		t.Fatalf("back: %+v %v", c, err)
	}
	if c, err = f.mirrors.Changes(t.Context(), pushed("main", second, second)); err != nil || len(c.Paths) != 0 || c.BaseUnknown {
		t.Fatalf("nothing: %+v %v", c, err)
	}
	if n := len(f.git.Requests()) - before; n != 0 {
		t.Fatalf("%d requests", n)
	}
	for _, none := range []string{"", strings.Repeat("0", 40)} {
		if c, err = f.mirrors.Changes(t.Context(), pushed("main", none, second)); err != nil || !c.First || c.BaseUnknown || len(c.Paths) != 0 || c.Message == "" {
			t.Fatalf("first: %+v %v", c, err)
		}
	}
}

func TestChanges_forcedPushAndUnknownBase(t *testing.T) {
	t.Parallel()
	for _, server := range []string{"gives commits by hash", "does not"} {
		t.Run(server, func(t *testing.T) {
			f := setUp(t, Limits{})
			repo := f.git.Repo("acme/web")
			base := repo.Commit("main", "Base", map[string]string{"f": "0"})
			away := repo.Commit("main", "Away", map[string]string{"f": "0", "away": "1"})
			repo.Set("main", base)
			now := repo.Commit("main", "Now", map[string]string{"f": "0", "now": "1"})
			known := server != "does not"
			if !known {
				noHashes(f, repo)
			}
			c, err := f.mirrors.Changes(t.Context(), pushed("main", away, now))
			if err != nil || c.BaseUnknown == known || known && !slices.Equal(c.Paths, []string{"away", "now"}) {
				t.Fatalf("forced: %+v %v", c, err)
			}
			// An older commit of the same branch is had either way.
			must(t, f.mirrors.Discard(t.Context(), "acme-inc", source("").Repository))
			if c, err = f.mirrors.Changes(t.Context(), pushed("main", base, now)); err != nil || !slices.Equal(c.Paths, []string{"now"}) {
				t.Fatalf("forward: %+v %v", c, err)
			}
			c, err = f.mirrors.Changes(t.Context(), pushed("main", strings.Repeat("ab", 20), now))
			if err != nil || !c.BaseUnknown || c.First || c.Message != "Now" {
				t.Fatalf("base of nowhere: %+v %v", c, err)
			}
			if _, err = f.mirrors.Changes(t.Context(), pushed("main", base, strings.Repeat("ab", 20))); reason(err) != remote.ReasonCommitGone {
				t.Fatalf("head of nowhere: %v", err)
			}
		})
	}
}

func TestChanges_errors(t *testing.T) {
	t.Parallel()
	f := setUp(t, Limits{})
	hash := f.git.Repo("acme/web").Commit("main", "x", map[string]string{"f": "1"})
	for name, req := range map[string]ChangesRequest{
		"no new":     pushed("main", hash, ""),
		"option":     pushed("main", "--output=/tmp/pwned", hash),
		"ref":        pushed("main", "HEAD", hash),
		"short":      pushed("main", hash[:12], hash),
		"upper case": pushed("main", strings.ToUpper(strings.Repeat("ab", 20)), hash),
	} {
		if _, err := f.mirrors.Changes(t.Context(), req); reason(err) != remote.ReasonCommitGone {
			t.Errorf("%s: %v", name, err)
		}
	}
	f.git.Fail(func(*http.Request) (int, string) { return 503, "" })
	if e, ok := remote.AsError(errOf(f.mirrors.Changes(t.Context(), pushed("main", "", hash)))); !ok || !e.Temporary {
		t.Errorf("down: %+v", e)
	}
}

func errOf[T any](_ T, err error) error { return err }

func TestChanges_manyPathsAreCut(t *testing.T) {
	t.Parallel()
	f := setUp(t, Limits{})
	repo := f.git.Repo("acme/web")
	first := repo.Commit("main", "x", map[string]string{"f": "1"})
	// 10^5 paths from a few objects.
	level, mode := "x", "100644"
	for range 5 {
		var in []gittest.Entry
		for i := range 10 {
			in = append(in, gittest.E(mode, fmt.Sprint(i), level))
		}
		level, mode = repo.Tree(in...), "040000"
	}
	second := repo.CommitTree("main", level, "many")
	c, err := f.mirrors.Changes(t.Context(), pushed("main", first, second))
	if err != nil || !c.Truncated || len(c.Paths) != maxChangedPaths {
		t.Fatalf("%d %v %v", len(c.Paths), c.Truncated, err)
	}
}
