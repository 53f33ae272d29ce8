package deployer_test

import (
	"strings"
	"testing"

	"devpilot.io/bitbucket/services/deployer"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// waitingPush has a push wait for git, and returns its commit and number.
func (b *bench) waitingPush(content string, number int32) string {
	b.t.Helper()
	old := b.repo.Head("main")
	hash := b.repo.Commit("main", content, map[string]string{"index.html": content})
	b.pushed("main", old, hash, content)
	b.await("web", number, deployerv1.Deployment_PENDING)
	return hash
}

// TestRules_holdForTheCommitThatIsDeployed: while a push waits its branch moves on to a commit that a rule
// turns away, told of or not. The newest push that the rules let through goes live.
func TestRules_holdForTheCommitThatIsDeployed(t *testing.T) {
	rules := func(set func(a *deployerv1.App)) *deployerv1.App {
		a := web(true)
		set(a)
		return a
	}
	for name, c := range map[string]struct {
		app     *deployerv1.App
		message string
		files   map[string]string
		reason  string
	}{
		"skip phrase": {web(true), "not this [skip ci]", map[string]string{"index.html": "skipped"}, "SKIP_PHRASE"},
		"own phrase": {rules(func(a *deployerv1.App) {
			a.Rules = &deployerv1.AppRules{Skip: &deployerv1.SkipPhrases{Phrases: []string{"#no"}}}
		}), "not this #NO", map[string]string{"index.html": "skipped"}, "SKIP_PHRASE"},
		"paths": {rules(func(a *deployerv1.App) { a.Rules = &deployerv1.AppRules{PathsIgnore: []string{"docs/**"}} }),
			"docs", map[string]string{"index.html": "two", "docs/a.md": "skipped"}, "PATHS_UNCHANGED"},
		"its own file": {rules(func(a *deployerv1.App) { a.ConfigAsCode = true }),
			"not this #file", map[string]string{"index.html": "skipped", ".devpilot.yaml": "version: 1\nrules:\n  skipPhrases: [\"#file\"]\n"}, "SKIP_PHRASE"},
	} {
		for _, told := range []bool{true, false} {
			t.Run(name+map[bool]string{true: ", told of", false: ", not told of"}[told], func(t *testing.T) {
				b := newBench(t, doubting, func(c *deployer.Config) { c.ReconcileGrace = timeout })
				b.repo.Commit("main", "zero", map[string]string{"index.html": "zero"})
				b.create("web", c.app)
				b.git.Intercept(lies["500"])
				one := b.waitingPush("one", 1)
				two := b.waitingPush("two", 2)
				skipped := b.repo.Commit("main", c.message, c.files)
				b.git.Intercept(nil)
				if told {
					b.awaitOutcome(b.pushed("main", two, skipped, c.message), "web", c.reason)
				}
				d := b.await("web", 2, deployerv1.Deployment_COMPLETED)
				if d.GetCommit().GetHash() != two || b.live("web") != "two" || one == two {
					t.Errorf("live %q: %v", b.live("web"), d.GetCommit())
				}
				b.polls()
				if b.live("web") != "two" || b.latest("web") != 2 {
					t.Errorf("after polls: live %q, latest %d", b.live("web"), b.latest("web"))
				}
				// A person may want it all the same.
				if _, err := b.client.CreateDeployment(b.member, &deployerv1.CreateDeploymentRequest{Workspace: workspace, App: "web"}); err != nil {
					t.Fatal(err)
				}
				if d = b.await("web", 3, deployerv1.Deployment_COMPLETED); d.GetCommit().GetHash() != skipped {
					t.Errorf("deploy latest: %v", d.GetCommit())
				}
			})
		}
	}
}

// TestRules_aPushThatWasForcedAwayIsNotDeployed, nor is what took its place where a rule turns that away.
func TestRules_aPushThatWasForcedAwayIsNotDeployed(t *testing.T) {
	b := newBench(t, doubting, func(c *deployer.Config) { c.ReconcileGrace = timeout })
	zero := b.repo.Commit("main", "zero", map[string]string{"index.html": "zero"})
	b.create("web", web(true))
	b.push("live")
	b.await("web", 1, deployerv1.Deployment_COMPLETED)
	b.git.Intercept(lies["500"])
	b.waitingPush("two", 2)
	b.repo.Set("main", zero)
	b.repo.Commit("main", "instead [skip ci]", map[string]string{"index.html": "skipped"})
	b.git.Intercept(nil)
	d := b.await("web", 2, deployerv1.Deployment_CANCELLED)
	if notes := strings.Join(d.GetNotes(), " "); !strings.Contains(notes, "[skip ci]") || b.live("web") != "live" {
		t.Errorf("live %q: %q", b.live("web"), notes)
	}
}

// TestRules_holdForARetryToo: what failed is tried again, and its branch has moved on to a commit that does not deploy.
func TestRules_holdForARetryToo(t *testing.T) {
	b := newBench(t, doubting, func(c *deployer.Config) { c.ReconcileGrace = timeout })
	b.repo.Commit("main", "zero", map[string]string{"index.html": "zero"})
	b.create("web", web(true))
	b.git.Intercept(lies["404"])
	b.world.do(func() { b.world.unreachable[repoID] = true })
	hash, _ := b.push("one")
	b.await("web", 1, deployerv1.Deployment_FAILED)
	skipped := b.repo.Commit("main", "not this [skip ci]", map[string]string{"index.html": "skipped"})
	b.awaitOutcome(b.pushed("main", hash, skipped, "not this [skip ci]"), "web", "SKIP_PHRASE")
	b.git.Intercept(nil)
	b.world.do(func() { b.world.unreachable[repoID] = false })
	if d := b.retried(2, 1); d.GetCommit().GetHash() != hash || b.live("web") != "one" {
		t.Errorf("live %q: %v", b.live("web"), d.GetCommit())
	}
}
