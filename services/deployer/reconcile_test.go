package deployer_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/deployer"
	"devpilot.io/bitbucket/services/deployer/internal/record/store"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	eventsv1 "devpilot.io/bitbucket/proto/gen/devpilot/events/v1"
)

// quick has the reconciler look often, and wait for deliveries hardly at all.
func quick(c *deployer.Config) {
	c.ReconcileInterval, c.ReconcileGrace = 250*time.Millisecond, 10*time.Millisecond
}

// tag sets a tag; an empty hash removes it.
func (b *bench) tag(name, hash string) {
	b.t.Helper()
	b.ref("tags/"+name, hash)
}

func (b *bench) ref(name, hash string) {
	b.t.Helper()
	path := filepath.Join(b.repo.Dir, "refs", filepath.FromSlash(name))
	if hash == "" {
		if err := os.Remove(path); err != nil {
			b.t.Fatal(err)
		}
		return
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(path+".lock", []byte(hash+"\n"), 0o644); err != nil {
		b.t.Fatal(err)
	}
	if err := os.Rename(path+".lock", path); err != nil { // git finds it whole
		b.t.Fatal(err)
	}
}

func (b *bench) stores() *store.Store {
	b.t.Helper()
	st, err := store.Open(b.t.Context(), b.nats.JS(), b.logs.Logger)
	if err != nil {
		b.t.Fatal(err)
	}
	return st
}

// noted waits until a look has noted what matches the app's patterns as they are.
func (b *bench) noted(st *store.Store, app string) *storev1.SeenRefs {
	b.t.Helper()
	var seen *storev1.SeenRefs
	testkit.Eventually(b.t, timeout, func() error {
		a, _, err := st.Apps.Get(b.t.Context(), workspace+"."+app)
		if err != nil {
			return err
		}
		l, _, err := st.Lanes.Get(b.t.Context(), workspace+"."+app)
		if err != nil {
			return err
		}
		if seen, _, err = st.Seen.Get(b.t.Context(), workspace+"."+app); err != nil {
			return err
		}
		tags, branches := seen.GetTags(), seen.GetBranches()
		if tags.GetBaseline() != l.GetTagBaseline() || !slices.Equal(tags.GetPatterns(), a.GetRules().GetTags()) {
			return fmt.Errorf("tags: %v of baseline %d", tags.GetPatterns(), tags.GetBaseline())
		}
		if strings.Contains(a.GetBranch(), "*") && (branches.GetBaseline() != l.GetBranchBaseline() || !slices.Equal(branches.GetPatterns(), []string{a.GetBranch()})) {
			return fmt.Errorf("branches: %v of baseline %d", branches.GetPatterns(), branches.GetBaseline())
		}
		return nil
	})
	return seen
}

// polls waits until the repository was polled twice from beginning to end.
func (b *bench) polls() {
	b.t.Helper()
	count := func() (n int) {
		for _, r := range b.git.Requests() {
			if strings.HasSuffix(r, "/info/refs?service=git-upload-pack") {
				n++
			}
		}
		return n
	}
	before := count()
	testkit.Eventually(b.t, timeout, func() error {
		if n := count() - before; n < 4 {
			return fmt.Errorf("%d questions", n)
		}
		return nil
	})
}

// latest is the app's last number.
func (b *bench) latest(app string) int32 { return b.get(app).GetLatest().GetNumber() }

func taggers() *deployerv1.App {
	a := web(true)
	a.Rules = &deployerv1.AppRules{Tags: []string{"v*", "release-?"}}
	return a
}

func TestReconcile_missedTags(t *testing.T) {
	b := newBench(t, quick)
	old := b.repo.Commit("main", "old", map[string]string{"index.html": "old"})
	for i := range 500 {
		b.tag(fmt.Sprintf("v0.%d", i), old)
	}
	b.create("web", taggers())
	st := b.stores()
	seen := b.noted(st, "web")
	if n := len(seen.GetTags().GetRefs()); n != 500*28 {
		t.Errorf("%d bytes of refs", n)
	}
	b.polls()
	if n := b.latest("web"); n != 0 {
		t.Fatalf("old tags deployed: %d", n)
	}

	// Lost deliveries: a new tag, though its commit says [skip ci], as tools that release write it.
	one := b.repo.Commit("main", "one [skip ci]", map[string]string{"index.html": "one"})
	b.tag("v1.0", one)
	d := b.await("web", 1, deployerv1.Deployment_COMPLETED)
	if d.GetTag() != "v1.0" || d.GetBranch() != "" || d.GetTrigger() != deployerv1.Deployment_RECONCILED || d.GetCommit().GetHash() != one || b.live("web") != "one" {
		t.Errorf("live %q, %v", b.live("web"), d)
	}
	tag := func(name, hash string) int32 {
		t.Helper()
		return b.pushed(name, "", hash, "", func(e *eventsv1.PushEvent) { e.RefType = eventsv1.PushEvent_TAG })
	}
	late := tag("v1.0", one)
	b.awaitSaid(late, "Deployed as #1, which Devpilot had found by itself before this delivery came")

	// Tags that nobody watches, one that moves, one that goes, and one that comes again.
	two := b.repo.Commit("main", "two [skip ci]", map[string]string{"index.html": "two"})
	b.tag("nightly", two)
	b.tag("release-10", two)
	b.tag("v0.7", two)
	if d = b.await("web", 2, deployerv1.Deployment_COMPLETED); d.GetTag() != "v0.7" || b.live("web") != "two" {
		t.Errorf("moved: live %q, %v", b.live("web"), d)
	}
	b.tag("v0.8", "")
	b.tag("v1.0", "")
	b.polls()
	if n := b.latest("web"); n != 2 {
		t.Fatalf("tags that went deployed: %d", n)
	}
	b.tag("v0.8", one)
	if d = b.await("web", 3, deployerv1.Deployment_COMPLETED); d.GetTag() != "v0.8" || b.live("web") != "one" {
		t.Errorf("set again: live %q, %v", b.live("web"), d)
	}
	// A delivered one is not looked for any more.
	b.tag("v2.0", two)
	delivered := tag("v2.0", two)
	testkit.Eventually(t, timeout, func() error { // whoever was faster
		if said := b.world.said(delivered); !contains(said, "Deployed as #4") {
			return fmt.Errorf("%q", said)
		}
		return nil
	})
	b.await("web", 4, deployerv1.Deployment_COMPLETED)
	// Several at once: the newest version is the last.
	three := b.repo.Commit("main", "three [skip ci]", map[string]string{"index.html": "three"})
	b.git.Fail(func(*http.Request) (int, string) { return http.StatusServiceUnavailable, "away" })
	b.tag("v2.8", one)
	b.tag("v2.9", one)
	b.tag("v2.10", three)
	b.git.Fail(nil)
	testkit.Eventually(t, timeout, func() error {
		if app := b.get("web"); app.GetLatest().GetNumber() != 7 || app.GetLive().GetCommit().GetHash() != three {
			return fmt.Errorf("latest %v, live %v", app.GetLatest(), app.GetLive())
		}
		return nil
	})
	b.polls()
	if n := b.latest("web"); n != 7 {
		t.Errorf("latest is %d", n)
	}
}

func TestReconcile_whatIsWatchedChanges(t *testing.T) {
	b := newBench(t, quick)
	hash := b.repo.Commit("main", "old", map[string]string{"index.html": "old"})
	for i := range 50 {
		b.tag(fmt.Sprintf("v%d", i), hash)
		b.tag(fmt.Sprintf("w%d", i), hash)
		b.repo.Set(fmt.Sprintf("feature/%d", i), hash)
	}
	b.create("web", web(true))
	st := b.stores()
	for i, step := range []struct {
		app  *deployerv1.App
		mask []string
	}{
		{&deployerv1.App{Rules: &deployerv1.AppRules{Tags: []string{"v*"}}}, []string{"rules.tags"}},
		{&deployerv1.App{Rules: &deployerv1.AppRules{Tags: []string{"v*", "w*"}}}, []string{"rules.tags"}},
		{&deployerv1.App{Branch: "feature/*"}, []string{"branch"}},
		{&deployerv1.App{AutoDeploy: false}, []string{"auto_deploy"}},
		{&deployerv1.App{AutoDeploy: true}, []string{"auto_deploy"}},
		{&deployerv1.App{Branch: "main"}, []string{"branch"}},
		{&deployerv1.App{Branch: "{feature,main}/**"}, []string{"branch"}},
	} {
		if !b.update("web", step.app, step.mask...).GetAutoDeploy() { // meanwhile everything moves
			moved := b.repo.Commit("main", fmt.Sprint("moved ", i), map[string]string{"index.html": "moved"})
			for i := range 50 {
				b.tag(fmt.Sprintf("v%d", i), moved)
				b.repo.Set(fmt.Sprintf("feature/%d", i), moved)
			}
			b.tag("v50", moved)
			b.repo.Set("feature/50", moved)
			continue
		}
		b.noted(st, "web")
		b.polls()
		if n := b.latest("web"); n != 0 {
			t.Fatalf("step %d deployed: %v", i, b.get("web").GetLatest())
		}
	}
	// And still finds what comes.
	b.repo.Commit("feature/7", "new", map[string]string{"index.html": "new"})
	if d := b.await("web", 1, deployerv1.Deployment_COMPLETED); d.GetBranch() != "feature/7" {
		t.Errorf("%v", d)
	}
	b.tag("w7", b.repo.Head("feature/7"))
	if d := b.await("web", 2, deployerv1.Deployment_SUPERSEDED); d.GetTag() != "w7" { // its commit is live
		t.Errorf("%v", d)
	}
	if _, err := b.client.DeleteApp(b.admin, &deployerv1.DeleteAppRequest{Workspace: workspace, App: "web"}); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, timeout, func() error {
		seen, _, err := st.Seen.Get(t.Context(), workspace+".web")
		if err == nil {
			return fmt.Errorf("what a deleted app saw is still there: %d bytes", len(seen.GetTags().GetRefs()))
		}
		return nil
	})
}

func TestReconcile_hundredsOfBranchesUnderAPattern(t *testing.T) {
	b := newBench(t, quick)
	base := b.repo.Commit("main", "base", map[string]string{"index.html": "base", "docs/a.md": "0"})
	for i := range 500 {
		b.repo.Set(fmt.Sprintf("feature/%03d", i), base)
	}
	a := web(true)
	a.Branch, a.Rules = "feature/*", &deployerv1.AppRules{PathsIgnore: []string{"docs/**"}}
	b.create("web", a)
	st := b.stores()
	if n := len(b.noted(st, "web").GetBranches().GetRefs()); n != 500*28 {
		t.Errorf("%d bytes of refs", n)
	}
	b.polls()
	next := int32(1)
	found := func(branch, content string) *deployerv1.Deployment {
		t.Helper()
		hash := b.repo.Commit(branch, content, map[string]string{"index.html": content, "docs/a.md": "0"})
		d := b.await("web", next, deployerv1.Deployment_COMPLETED)
		if d.GetBranch() != branch || d.GetCommit().GetHash() != hash || b.live("web") != content || d.GetTrigger() != deployerv1.Deployment_RECONCILED {
			t.Errorf("%s: live %q, %v", branch, b.live("web"), d)
		}
		next++
		return d
	}
	found("feature/000", "one that moved")
	if d := found("feature/499", "another"); len(d.GetNotes()) != 0 {
		t.Errorf("what it changed was not known: %q", d.GetNotes())
	}
	found("feature/new", "a new one")
	b.awaitSaid(b.pushed("feature/new", "", b.repo.Head("feature/new"), ""), "Deployed as #3, which Devpilot had found by itself before this delivery came")

	// The rules hold: skip phrases, and paths from the commit that the branch was seen at last.
	turned := func(n int) {
		t.Helper()
		testkit.Eventually(t, timeout, func() error {
			if have := strings.Count(b.logs.Text(), "push found by polling, and turned away"); have != n {
				return fmt.Errorf("%d turned away", have)
			}
			return nil
		})
	}
	b.repo.Commit("feature/250", "docs", map[string]string{"index.html": "base", "docs/a.md": "1"})
	turned(1)
	b.repo.Commit("feature/251", "not this [skip ci]", map[string]string{"index.html": "x", "docs/a.md": "0"})
	turned(2)
	var shown []string
	for _, p := range b.get("web").GetTurnedAway() {
		shown = append(shown, p.GetBranch()+" "+p.GetReason())
		if p.GetCommit() != b.repo.Head(p.GetBranch()) || p.GetMessage() == "" || p.GetTime() == nil {
			t.Errorf("%v", p)
		}
	}
	if !slices.Equal(shown, []string{"feature/251 SKIP_PHRASE", "feature/250 PATHS_UNCHANGED"}) {
		t.Errorf("shown: %q", shown)
	}
	// Branches that go deploy nothing, and may come again.
	for _, branch := range []string{"feature/000", "feature/100", "feature/499"} {
		b.ref("heads/"+branch, "")
	}
	b.polls()
	if n := b.latest("web"); n != next-1 {
		t.Errorf("latest is %d", n)
	}
	found("feature/100", "again")

	// All at once, and their deliveries come late: each is deployed once. Git is asked nothing about them.
	b.update("web", &deployerv1.App{Rules: &deployerv1.AppRules{Skip: &deployerv1.SkipPhrases{}}}, "rules")
	hashes := map[string]string{}
	for i := range 60 {
		branch := fmt.Sprintf("feature/%03d", 300+i)
		hashes[branch] = b.repo.Commit(branch, branch, map[string]string{"index.html": branch, "docs/a.md": "0"})
	}
	testkit.Eventually(t, timeout, func() error {
		if n := b.latest("web"); n != next-1+60 {
			return fmt.Errorf("latest is %d", n)
		}
		return nil
	})
	for branch, hash := range hashes {
		delivery := b.pushed(branch, base, hash, branch)
		testkit.Eventually(t, timeout, func() error {
			if said := b.world.said(delivery); !contains(said, "had found by itself") {
				return fmt.Errorf("%s: %q", branch, said)
			}
			return nil
		})
	}
	if n := b.latest("web"); n != next-1+60 {
		t.Errorf("late deliveries deployed again: %d", n)
	}
}

// TestReconcile_racesWithDeliveries: of many pushes of branches and tags, some delivered, some twice, some late and some never, each makes exactly one deployment.
func TestReconcile_racesWithDeliveries(t *testing.T) {
	b := newBench(t, func(c *deployer.Config) {
		c.ReconcileInterval, c.ReconcileGrace = 200*time.Millisecond, time.Millisecond
	})
	b.start() // two deployers look
	base := b.repo.Commit("main", "base", map[string]string{"index.html": "base"})
	a := taggers()
	a.Branch, a.Rules.Skip = "feature/*", &deployerv1.SkipPhrases{} // git is asked nothing about what is found
	b.create("web", a)
	st := b.stores()
	b.noted(st, "web")
	type push struct{ branch, tag, hash string }
	var pushes []push
	var late sync.WaitGroup
	var mu sync.Mutex
	for i := range 60 {
		p := push{hash: b.repo.Commit("main", fmt.Sprint(i), map[string]string{"index.html": fmt.Sprint(i)})}
		if i%2 == 0 {
			p.tag = fmt.Sprintf("v%d", i)
			b.tag(p.tag, p.hash)
		} else {
			p.branch = fmt.Sprintf("feature/%d", i)
			b.repo.Set(p.branch, p.hash)
		}
		pushes = append(pushes, p)
		deliver := func() {
			mu.Lock()
			defer mu.Unlock()
			b.pushed(p.branch+p.tag, "", p.hash, "", func(e *eventsv1.PushEvent) {
				if p.tag != "" {
					e.RefType = eventsv1.PushEvent_TAG
				}
				b.publish(e) // and once more
			})
		}
		switch i % 5 {
		case 0: // lost
		case 1, 2:
			deliver()
		default:
			late.Go(func() {
				timer := time.NewTimer(rand.N(400 * time.Millisecond))
				defer timer.Stop()
				select {
				case <-timer.C:
				case <-t.Context().Done():
				}
				deliver()
			})
		}
	}
	late.Wait()
	count := func() (made map[push]int) {
		made = map[push]int{}
		for n := range b.latest("web") {
			d, err := b.deployment("web", n+1)
			if err != nil {
				t.Fatal(err)
			}
			made[push{d.GetBranch(), d.GetTag(), d.GetCommit().GetHash()}]++
		}
		return made
	}
	testkit.Eventually(t, 2*timeout, func() error {
		if n := b.latest("web"); int(n) < len(pushes) {
			return fmt.Errorf("%d of %d", n, len(pushes))
		}
		return nil
	})
	b.polls()
	made := count()
	for _, p := range pushes {
		if made[p] != 1 {
			t.Errorf("%v made %d deployments", p, made[p])
		}
	}
	if len(made) != len(pushes) || base == "" {
		t.Errorf("%d different deployments of %d pushes", len(made), len(pushes))
	}
}

// TestReconcile_oneQuestionAPoll: what Bitbucket is asked does not grow with apps, branches and tags.
func TestReconcile_oneQuestionAPoll(t *testing.T) {
	b := newBench(t, func(c *deployer.Config) {
		c.ReconcileInterval, c.ReconcileGrace = 300*time.Millisecond, 10*time.Millisecond
	})
	hash := b.repo.Commit("main", "base", map[string]string{"index.html": "base"})
	for i := range 100 {
		b.tag(fmt.Sprint("v", i), hash)
		b.repo.Set(fmt.Sprint("feature/", i), hash)
	}
	st := b.stores()
	for i := range 5 {
		a := taggers()
		a.Branch = []string{"main", "feature/*", "{feature,other}/*", "dev", "**"}[i]
		b.create(fmt.Sprint("app-", i), a)
		b.noted(st, fmt.Sprint("app-", i))
	}
	before, begin := len(b.git.Requests()), time.Now()
	for range 5 {
		b.polls()
	}
	looks := float64(time.Since(begin)) / float64(270*time.Millisecond) // the interval less what it is spread by
	if asked := len(b.git.Requests()) - before; float64(asked) > 3*(looks+2) {
		t.Errorf("%d requests in at most %.0f looks", asked, looks)
	}
}
