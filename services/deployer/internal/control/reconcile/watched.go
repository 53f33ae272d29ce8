package reconcile

import (
	"hash/fnv"
	"io"
	"slices"
	"strings"

	"devpilot.io/bitbucket/services/deployer/internal/record/rules"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

// watchedPatterns is a digest of the patterns of branches and tags that are watched, 0 without any. With
// another one what is there is the baseline, so it tells too whether pushes deploy.
func watchedPatterns(idx *storev1.RepositoryIndex) uint64 {
	var all []string
	for _, w := range idx.GetWatches() {
		switch {
		case w.GetAutoDeploy() && (rules.IsGlob(w.GetBranch()) || len(w.GetTags()) > 0):
			all = append(all, w.GetApp()+"\n"+w.GetBranch()+"\n"+strings.Join(w.GetTags(), "\n"))
		case rules.IsGlob(w.GetBranch()):
			all = append(all, w.GetApp()+"\noff\n"+w.GetBranch())
		}
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	h := fnv.New64a()
	_, _ = io.WriteString(h, strings.Join(slices.Compact(all), "\x00")) // never fails
	return h.Sum64()
}

// anyAuto tells whether pushes to the repository deploy anything: where none do, it has no webhook.
func anyAuto(idx *storev1.RepositoryIndex) bool {
	return slices.ContainsFunc(idx.GetWatches(), func(w *storev1.Watch) bool { return w.GetAutoDeploy() })
}

// anyWatch tells whether an app watches the repository: with auto-deploy off, to tell whether its branch
// has moved on.
func anyWatch(idx *storev1.RepositoryIndex) bool { return len(idx.GetWatches()) > 0 }
