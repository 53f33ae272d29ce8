package reconcile

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
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
	off := &storev1.Watch{App: "web", Branch: "feature/*", Tags: []string{"v*"}}
	if n := watchedPatterns(index(single, &storev1.Watch{App: "web", Branch: "main", Tags: []string{"v*"}})); n != 0 {
		t.Errorf("a single branch, and tags that do not deploy: %d", n)
	}
	if n := watchedPatterns(index(off)); n == 0 || n == watchedPatterns(index(glob)) {
		t.Errorf("a pattern whose pushes do not deploy: %d, and once they do %d", n, watchedPatterns(index(glob)))
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

// TestChanges_anOldAnswerDeploysNothing: Bitbucket may answer from before its last push; what a delivery told of meanwhile is not gone, and not new when it shows.
func TestChanges_anOldAnswerDeploysNothing(t *testing.T) {
	t.Parallel()
	const repository = "85d08b4e-571d-44e9-a507-fa476535aa98"
	hash := strings.Repeat("ab", 20)
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	l := &storev1.Lane{}
	lane.Begin(l)
	for _, ref := range []lane.Ref{lane.Tag("v1"), lane.Branch("main")} {
		lane.SetHead(l, ref, &storev1.Head{Hash: hash, Source: storev1.Head_EVENT, Time: timestamppb.New(now), Repository: repository})
	}
	a := &storev1.App{Id: "web", Repository: repository, Branch: "main", AutoDeploy: true, Rules: &deployerv1.AppRules{Tags: []string{"v*"}}}
	known := lane.Known{Repository: repository, Lane: l, Seen: lane.Polled(nil, l, lane.Found{}, lane.Found{Patterns: []string{"v*"}})}
	s := seen{app: a, lane: l, known: known}
	r := New(Config{Now: func() time.Time { return now }})
	poll := &polling{state: &storev1.Reconciliation{}, since: map[string]time.Time{}, missing: map[string]*storev1.Missing{}}
	compare := func(found remote.Heads) (due []change, missing int) {
		poll.found = found
		branches, tags := r.found(t.Context(), s, poll)
		due, all := r.ripe(t.Context(), s, append(changes(s, false, branches), changes(s, true, tags)...), poll)
		clear(poll.since)
		for key, m := range all {
			poll.since[key] = m.GetTime().AsTime()
		}
		return due, len(all)
	}
	old := remote.Heads{Branches: map[string]string{}, Tags: map[string]string{}}
	current := remote.Heads{Branches: map[string]string{"main": hash}, Tags: map[string]string{"v1": hash}}
	if due, missing := compare(old); len(due) != 0 || missing != 2 {
		t.Fatalf("at once: %v, %d missing", due, missing)
	}
	now = now.Add(30 * time.Second)
	if due, missing := compare(current); len(due) != 0 || missing != 0 {
		t.Fatalf("the newer answer: %v, %d missing", due, missing)
	}
	if due, missing := compare(old); len(due) != 0 || missing != 2 {
		t.Fatalf("the old one again: %v, %d missing", due, missing)
	}
	poll.atOnce = true // no delivery is on its way: what is gone may be an untruth all the same
	now = now.Add(179 * time.Second)
	if due, _ := compare(old); len(due) != 0 {
		t.Fatalf("before three minutes: %v", due)
	}
	poll.atOnce = false
	now = now.Add(time.Second)
	if due, missing := compare(old); len(due) != 2 || due[0].new != "" || missing != 2 {
		t.Fatalf("after three minutes: %v, %d missing", due, missing)
	}
	// The REST API is asked about branches, once a minute at most; tags it is not asked about.
	w := &says{}
	r.cfg.Witness = w
	for i, c := range []struct {
		gone bool
		due  int
	}{{false, 1}, {true, 2}} {
		*w = says{gone: c.gone}
		now = now.Add(time.Minute)
		if due, _ := compare(old); len(due) != c.due || len(w.asked) != 1 || w.asked[0] != "main" {
			t.Errorf("%d: %v, asked about %q", i, due, w.asked)
		}
		if due, _ := compare(old); len(due) != 1 || len(w.asked) != 1 {
			t.Errorf("%d, at once again: %v, asked about %q", i, due, w.asked)
		}
	}
}

// says is a REST API that has nothing, or all.
type says struct {
	gone  bool
	asked []string
}

func (s *says) Well(_ context.Context, _, _, branch, _ string) (well, confirmed bool) {
	s.asked = append(s.asked, branch)
	return s.gone, s.gone
}

func (s *says) Empty(context.Context, string, string) (bool, error) { return s.gone, nil }
