package mirror

import (
	"strings"
	"testing"
	"time"

	"devpilot.io/bitbucket/services/deployer/internal/engine/git/gittest"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
)

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
			if _, _, err := f.deploy("main"); reason(err) != remote.ReasonRepositoryTooLarge {
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
	if _, _, err := f.deploy("main"); reason(err) != remote.ReasonRepositoryTooLarge {
		t.Fatal(err)
	}
	if d := time.Since(begin); d > 2*time.Minute {
		t.Fatalf("took %v", d)
	}
}
