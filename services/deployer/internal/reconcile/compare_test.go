package reconcile

import (
	"math/rand/v2"
	"slices"
	"testing"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

func TestNatural_newestVersionComesLast(t *testing.T) {
	t.Parallel()
	want := []string{"1.0", "1.0.1", "1.2", "1.10", "2", "a", "a1b", "a01b", "a2", "a10", "b", "release-9", "release-10", "release-10-rc1", "v", "v1.9", "v1.10", "v1.10.0", "v20261122", "v99999999999999999999998", "v99999999999999999999999"}
	for range 20 {
		got := slices.Clone(want)
		rand.Shuffle(len(got), func(i, j int) { got[i], got[j] = got[j], got[i] })
		slices.SortFunc(got, natural)
		// a1b and a01b say the same number: the caller tells them apart.
		if i, j := slices.Index(got, "a1b"), slices.Index(got, "a01b"); i > j {
			got[i], got[j] = got[j], got[i]
		}
		if !slices.Equal(got, want) {
			t.Fatalf("got %q", got)
		}
	}
	for _, a := range want {
		for _, b := range want {
			if natural(a, b) != -natural(b, a) {
				t.Errorf("%q and %q", a, b)
			}
		}
	}
}

func TestWatchedPatterns_changeWithWhatIsLookedFor(t *testing.T) {
	t.Parallel()
	index := func(watches ...*storev1.Watch) *storev1.RepositoryIndex {
		return &storev1.RepositoryIndex{Watches: watches}
	}
	single := &storev1.Watch{App: "web", Branch: "main", AutoDeploy: true}
	glob := &storev1.Watch{App: "web", Branch: "feature/*", AutoDeploy: true, Version: 1}
	tags := &storev1.Watch{App: "web", Branch: "main", AutoDeploy: true, Tags: []string{"v*"}}
	if n := watchedPatterns(index(single, &storev1.Watch{App: "web", Branch: "x/*"})); n != 0 {
		t.Errorf("a single branch, and one that does not deploy: %d", n)
	}
	a := watchedPatterns(index(glob, tags))
	if a == 0 || a != watchedPatterns(index(tags, glob, &storev1.Watch{App: "web", Branch: "feature/*", AutoDeploy: true, Version: 2}, single)) {
		t.Error("order, versions and single branches count")
	}
	for _, other := range [][]*storev1.Watch{{glob}, {tags}, {glob, {App: "api", Branch: "main", AutoDeploy: true, Tags: []string{"v*"}}}, {glob, {App: "web", Branch: "main", AutoDeploy: true, Tags: []string{"v*", "w*"}}}} {
		if watchedPatterns(index(other...)) == a {
			t.Errorf("%v is the same", other)
		}
	}
}
