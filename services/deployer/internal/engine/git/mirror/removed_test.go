package mirror

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
)

// The cache directory is a cache: whoever removes it, or a part of it, at any time costs a fetch, not
// a deployment.
func TestFetch_afterTheCacheWasRemoved(t *testing.T) {
	t.Parallel()
	for _, what := range []string{".", "mirrors", "temporary", "scratch", "mirrors/*", "mirrors/*/*", "mirrors/*/*/*"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			f := setUp(t, Limits{FreeBytes: 1})
			repo := f.git.Repo("acme/web")
			for i := range 3 {
				want := repo.Commit("main", "x", map[string]string{"f": fmt.Sprint(i)})
				heads, err := f.mirrors.Heads(t.Context(), "acme-inc", "acme/web", remote.Wanted{Branch: named("main"), Tag: every})
				if err != nil || heads.Branches["main"] != want {
					t.Fatalf("round %d: heads %v, %v", i, heads, err)
				}
				dir, head, err := f.deploy("main")
				if err != nil || head.Hash != want {
					t.Fatalf("round %d: %v, %v", i, head, err)
				}
				if got := filesIn(t, dir)["f"]; got != fmt.Sprint(i) {
					t.Fatalf("round %d: deployed %q", i, got)
				}
				gone, err := filepath.Glob(filepath.Join(f.dir, what))
				if err != nil || len(gone) == 0 {
					t.Fatalf("nothing to remove: %v", err)
				}
				for _, p := range gone {
					if err := os.RemoveAll(p); err != nil {
						t.Fatal(err)
					}
				}
			}
		})
	}
}
