package deployer_test

import (
	"fmt"
	"strings"
	"testing"

	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/deployer"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	eventsv1 "devpilot.io/bitbucket/proto/gen/devpilot/events/v1"
)

// Of the branches that match a pattern the one that moved last counts.
func TestSync_ofAPatternTheBranchThatMovedLast(t *testing.T) {
	b := newBench(t, func(c *deployer.Config) { doubting(c) })
	app := web(true)
	app.Branch = "release/*"
	b.create("web", app)
	b.unseen("web")
	for i, name := range []string{"release/1", "release/2"} {
		hash := b.repo.Commit(name, name, map[string]string{"index.html": name})
		b.deliver(func(e *eventsv1.PushEvent) {
			e.Ref, e.Action, e.New = name, eventsv1.PushEvent_CREATED, &eventsv1.Commit{Hash: hash, Message: name}
		})
		b.await("web", int32(i+1), deployerv1.Deployment_COMPLETED) // two
		if s := b.stands("web", deployerv1.Sync_IN_SYNC, "", hash); s.GetBranch() != name {
			t.Errorf("%v", s)
		}
	}
	// Branches that are gone were pushed all the same: that nothing was would be untrue.
	for _, name := range []string{"release/2", "release/1"} {
		b.deliver(func(e *eventsv1.PushEvent) {
			e.Ref, e.Action, e.New = name, eventsv1.PushEvent_DELETED, nil
		})
	}
	testkit.Eventually(t, timeout, func() error {
		s := b.get("web").GetSync()
		if s.GetState() != deployerv1.Sync_UNKNOWN || s.GetReason() != "NO_BRANCH" || !strings.Contains(s.GetMessage(), "release/*") {
			return fmt.Errorf("%v", s)
		}
		return nil
	})
}

func (b *bench) unseen(app string) {
	b.t.Helper()
	if s := b.get(app).GetSync(); s.GetState() != deployerv1.Sync_UNKNOWN || s.GetReason() != "NOT_SEEN" || s.GetMessage() == "" {
		b.t.Errorf("nothing pushed yet: %v", s)
	}
}

// releases is an app that watches release/*, and a way to push to one of these branches: no delivery tells of it.
func (b *bench) watchingReleases() (push func(name string) string) {
	b.t.Helper()
	push = func(name string) string {
		b.t.Helper()
		return b.repo.Commit("release/"+name, "pushed to "+name, map[string]string{"index.html": name + b.repo.Head("release/"+name)})
	}
	push("0")
	app := web(false)
	app.Branch = "release/*"
	b.create("web", app)
	b.unseen("web")
	b.noted(b.stores(), "web")
	return push
}

func (b *bench) deployBranch(branch string, number int32) {
	b.t.Helper()
	if _, err := b.client.CreateDeployment(b.member, &deployerv1.CreateDeploymentRequest{Workspace: workspace, App: "web", Branch: branch}); err != nil {
		b.t.Fatal(err)
	}
	b.await("web", number, deployerv1.Deployment_COMPLETED)
}

// asideAre waits until an app is behind by a branch, and by so many of them.
func (b *bench) asideAre(branch string, branches int32, says string) {
	b.t.Helper()
	testkit.Eventually(b.t, timeout, func() error {
		s := b.get("web").GetSync()
		if s.GetState() != deployerv1.Sync_BEHIND || s.GetReason() != "AUTO_DEPLOY_OFF" || s.GetBranch() != "release/"+branch || s.GetBranches() != branches || !strings.HasSuffix(s.GetMessage(), says) {
			return fmt.Errorf("%v, want release/%s, %d branches, %q", s, branch, branches, says)
		}
		return nil
	})
}

// An app that deploys no pushes tells of them all the same, also where it watches several branches: which one
// was pushed to last, and how many stand aside.
func TestSync_offOfAPattern_tellsWhichBranchesStandAside(t *testing.T) {
	b := newBench(t, doubting)
	push := b.watchingReleases()
	b.deployBranch("release/0", 1)
	b.stands("web", deployerv1.Sync_IN_SYNC, "", b.repo.Head("release/0"))

	push("1")
	b.asideAre("1", 1, "or switch it on.")
	push("2")
	b.asideAre("2", 2, "1 more branch that matches release/* is not live either: release/1.")
	push("0")
	b.asideAre("0", 3, "2 more branches that match release/* are not live either: release/2, release/1.")
	if n := b.latest("web"); n != 1 {
		t.Fatalf("a push deployed: #%d", n)
	}

	// What was pushed before that which a person deploys was passed over on purpose; what came after it stands aside still.
	b.deployBranch("release/2", 2)
	b.asideAre("0", 1, "or switch it on.")
	b.deployBranch("release/0", 3)
	b.stands("web", deployerv1.Sync_IN_SYNC, "", b.repo.Head("release/0"))
	push("1")
	b.asideAre("1", 1, "or switch it on.")
	b.repo.Delete("release/1")
	b.stands("web", deployerv1.Sync_IN_SYNC, "", b.repo.Head("release/0"))
}

// Where an app's branches are stays known when its pushes begin to deploy: what stood aside is named until it is
// live, and none of it deploys by that.
func TestSync_ofAPatternSwitchedOn_namesWhatStoodAside(t *testing.T) {
	b := newBench(t, doubting)
	push := b.watchingReleases()
	b.deployBranch("release/0", 1)
	zero := b.repo.Head("release/0")
	b.set("web", true)
	b.stands("web", deployerv1.Sync_IN_SYNC, "", zero)
	b.noted(b.stores(), "web")
	b.stands("web", deployerv1.Sync_IN_SYNC, "", zero)
	b.set("web", false)
	push("1")
	two := push("2")
	b.asideAre("2", 2, "1 more branch that matches release/* is not live either: release/1.")
	b.set("web", true)
	if s := b.stands("web", deployerv1.Sync_BEHIND, "NOT_DEPLOYED", two); s.GetBranches() != 2 {
		t.Errorf("%v", s)
	}
	b.noted(b.stores(), "web")
	for _, q := range []*deployerv1.ExplainRequest{{Branch: "release/2", App: "web"}, {Commit: two, App: "web"}} {
		if why := b.whyOf(q); why.GetReason() != "NOT_DEPLOYED" || why.GetCommit() != two {
			t.Errorf("%v: %v", q, why)
		}
	}
	if n := b.latest("web"); n != 1 {
		t.Fatalf("switching on deployed: #%d", n)
	}
	three := push("3")
	b.await("web", 2, deployerv1.Deployment_COMPLETED)
	b.stands("web", deployerv1.Sync_IN_SYNC, "", three)
}
