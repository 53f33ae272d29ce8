package deployer_test

import (
	"flag"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/deployer"

	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// release commits a content, deploys it and returns the commit.
func (b *bench) release(app, content string) string {
	b.t.Helper()
	hash := b.repo.Commit("main", content, map[string]string{"index.html": content})
	b.deployed(app, deployerv1.Deployment_COMPLETED)
	return hash
}

func (b *bench) rollBack(number int32) (*deployerv1.Deployment, error) {
	resp, err := b.client.RollBackApp(b.member, &deployerv1.RollBackAppRequest{Workspace: workspace, App: "web", Deployment: number})
	return resp.GetDeployment(), err
}

func (b *bench) redeploy(number int32) (*deployerv1.Deployment, error) {
	resp, err := b.client.RedeployDeployment(b.member, &deployerv1.RedeployDeploymentRequest{Workspace: workspace, App: "web", Number: number})
	return resp.GetDeployment(), err
}

func TestRedeploy_takesTheSameCommitEvenOneThatWasThrownAway(t *testing.T) {
	b := newBench(t)
	first := b.repo.Commit("main", "one", map[string]string{"index.html": "one"})
	b.create("web", web(false))
	b.deployed("web", deployerv1.Deployment_COMPLETED)
	second := b.release("web", "two")
	b.release("web", "three")
	req := &deployerv1.RedeployDeploymentRequest{Workspace: workspace, App: "web", Number: 1, RequestId: "again"}
	for range 2 {
		resp, err := b.client.RedeployDeployment(b.member, req)
		if err != nil || resp.GetDeployment().GetNumber() != 4 {
			t.Fatalf("%v, %v", resp, err)
		}
	}
	d := b.await("web", 4, deployerv1.Deployment_COMPLETED)
	if d.GetTrigger() != deployerv1.Deployment_REDEPLOY || d.GetCommit().GetHash() != first || d.GetSourceNumber() != 1 || d.GetBranch() != "main" || b.live("web") != "one" {
		t.Errorf("live %q, %v", b.live("web"), d)
	}
	// The branch is rewritten, and the second commit is on none any more.
	b.repo.Set("main", first)
	b.repo.Commit("main", "rewritten", map[string]string{"index.html": "rewritten"})
	if _, err := b.redeploy(2); err != nil {
		t.Fatal(err)
	}
	if d = b.await("web", 5, deployerv1.Deployment_COMPLETED); d.GetCommit().GetHash() != second || b.live("web") != "two" {
		t.Errorf("live %q, %v", b.live("web"), d)
	}
	_, err := b.redeploy(77)
	b.wantReason(err, apierr.ReasonDeploymentNotFound)
	b.world.do(func() { b.world.state, b.world.connection = authv1.Integration_NOT_CONNECTED, "" })
	b.changed()
	testkit.Eventually(t, timeout, func() error {
		if _, err := b.redeploy(1); !apierr.Has(err, apierr.ReasonNotConnected) {
			return fmt.Errorf("a redeploy without Bitbucket: %w", err)
		}
		return nil
	})
}

func TestRedeploy_needsACommit(t *testing.T) {
	b := newBench(t)
	b.create("web", web(false)) // its branch does not exist
	b.deployed("web", deployerv1.Deployment_FAILED)
	_, err := b.redeploy(1)
	b.wantReason(err, apierr.ReasonNotRedeployable)
}

func TestRollBack_needsNeitherBitbucketNorGit(t *testing.T) {
	b := newBench(t)
	first := b.repo.Commit("main", "one", map[string]string{"index.html": "one"})
	b.create("web", withHooks(hookAt(preExecution, "before", "echo before"), hookAt(postSetup, "set up", "echo set up"), hookAt(postRelease, "after", `echo "$DEVPILOT_TRIGGER $DEVPILOT_COMMIT $(cat index.html) $(pwd)"`)))
	b.deployed("web", deployerv1.Deployment_COMPLETED)
	b.release("web", "two")
	b.git.Fail(func(*http.Request) (int, string) { return http.StatusServiceUnavailable, "away" })
	b.world.do(func() { b.world.state, b.world.connection = authv1.Integration_NOT_CONNECTED, "" })
	b.changed()
	before := len(b.git.Requests())

	began := time.Now()
	d, err := b.rollBack(0) // the one before
	if err != nil {
		t.Fatal(err)
	}
	if d.GetNumber() != 3 || d.GetTrigger() != deployerv1.Deployment_ROLLBACK || d.GetSourceNumber() != 1 || d.GetCommit().GetHash() != first || d.GetActor().GetLabel() != "Jane Developer" {
		t.Errorf("the rollback: %v", d)
	}
	d = b.await("web", 3, deployerv1.Deployment_COMPLETED)
	t.Logf("rolled back in %v", time.Since(began).Round(time.Millisecond))
	if b.live("web") != "one" || !d.GetLive() || !d.GetReleaseKept() || d.GetProgressPercent() != 100 {
		t.Errorf("live %q, %v", b.live("web"), d)
	}
	want := []string{"ROLLBACK " + first + " one " + b.appDir("web") + "/releases/1"}
	if got := b.printed("web", 3, ""); !slices.Equal(got, want) {
		t.Errorf("the hooks of a rollback printed %q, want %q", got, want)
	}
	if after := len(b.git.Requests()); after != before {
		t.Errorf("a rollback asked git %d times", after-before)
	}
	// Forth again: 2 is kept, and so is 3, which is the release of 1 once more.
	if d, err = b.rollBack(0); err != nil || d.GetSourceNumber() != 2 {
		t.Fatalf("%v, %v", d, err)
	}
	b.await("web", 4, deployerv1.Deployment_COMPLETED)
	if d, err = b.rollBack(3); err != nil || d.GetSourceNumber() != 3 {
		t.Fatalf("%v, %v", d, err)
	}
	b.await("web", 5, deployerv1.Deployment_COMPLETED)
	if b.live("web") != "one" || !slices.Equal(b.releases("web"), []string{"1", "2"}) {
		t.Errorf("live %q, releases %q", b.live("web"), b.releases("web"))
	}
	if app := b.get("web"); app.GetLive().GetNumber() != 5 || app.GetLive().GetTrigger() != deployerv1.Deployment_ROLLBACK {
		t.Errorf("live is %v", app.GetLive())
	}
	_, err = b.rollBack(99)
	b.wantReason(err, apierr.ReasonDeploymentNotFound)
}

func TestRetention_countsReleasesAndNeverTakesTheLiveOne(t *testing.T) {
	b := newBench(t)
	b.repo.Commit("main", "one", map[string]string{"index.html": "one"})
	a := web(false)
	a.Retention = 2
	b.create("web", a)
	b.deployed("web", deployerv1.Deployment_COMPLETED)
	for _, content := range []string{"two", "three", "four"} {
		b.release("web", content)
	}
	awaitReleases := func(want ...string) {
		t.Helper()
		testkit.Eventually(t, timeout, func() error {
			if got := b.releases("web"); !slices.Equal(got, want) {
				return fmt.Errorf("releases %q, want %q", got, want)
			}
			return nil
		})
	}
	awaitReleases("2", "3", "4")
	_, err := b.rollBack(1)
	b.wantReason(err, apierr.ReasonReleaseGone)
	// The oldest one goes live and stays, however many come and fail after it.
	if _, err := b.rollBack(2); err != nil {
		t.Fatal(err)
	}
	b.await("web", 5, deployerv1.Deployment_COMPLETED)
	b.update("web", &deployerv1.App{Hooks: []*deployerv1.DeploymentHook{hookAt(postSetup, "fail", "false")}}, "hooks")
	for range 3 {
		b.deployed("web", deployerv1.Deployment_FAILED)
	}
	if b.live("web") != "two" {
		t.Errorf("live is %q", b.live("web"))
	}
	b.update("web", &deployerv1.App{Retention: 1}, "hooks", "retention")
	b.release("web", "five")
	awaitReleases("2", "9") // 9 is live, and 2 was live before it
	for n, kept := range map[int32]bool{1: false, 2: true, 3: false, 4: false, 5: true, 6: false, 9: true} {
		d, err := b.deployment("web", n)
		if err != nil || d.GetReleaseKept() != kept || d.GetLive() != (n == 9) {
			t.Errorf("deployment %d: kept %v, want %v; live %v; %v", n, d.GetReleaseKept(), kept, d.GetLive(), err)
		}
	}
	_, err = b.rollBack(6)
	b.wantReason(err, apierr.ReasonReleaseGone)
}

func TestRollBack_pausingAutoDeployIsForAdmins(t *testing.T) {
	b := newBench(t)
	b.repo.Commit("main", "one", map[string]string{"index.html": "one"})
	b.create("web", web(true))
	b.deployed("web", deployerv1.Deployment_COMPLETED)
	b.release("web", "two")
	req := &deployerv1.RollBackAppRequest{Workspace: workspace, App: "web", Deployment: 1, PauseAutoDeploy: true}
	_, err := b.client.RollBackApp(b.member, req)
	b.wantReason(err, apierr.ReasonPermissionDenied)
	if app := b.get("web"); app.GetLatest().GetNumber() != 2 || !app.GetAutoDeploy() {
		t.Fatalf("a refused rollback did something: %v", app)
	}
	if _, err := b.client.RollBackApp(b.admin, req); err != nil {
		t.Fatal(err)
	}
	b.await("web", 3, deployerv1.Deployment_COMPLETED)
	_, delivery := b.push("three")
	b.awaitOutcome(delivery, "web", "AUTO_DEPLOY_OFF")
	if app := b.get("web"); app.GetAutoDeploy() || app.GetLatest().GetNumber() != 3 || b.live("web") != "one" {
		t.Errorf("live %q, %v", b.live("web"), app)
	}
}

func TestRollBack_isNotUndoneByLooking(t *testing.T) {
	b := newBench(t, func(c *deployer.Config) {
		c.ReconcileInterval, c.ReconcileGrace = 100*time.Millisecond, 10*time.Millisecond
	})
	b.repo.Commit("main", "one", map[string]string{"index.html": "one"})
	b.create("web", web(true))
	b.deployed("web", deployerv1.Deployment_COMPLETED)
	b.repo.Commit("main", "two", map[string]string{"index.html": "two"}) // found by looking: a delivery would race with that
	b.await("web", 2, deployerv1.Deployment_COMPLETED)
	if _, err := b.rollBack(1); err != nil {
		t.Fatal(err)
	}
	b.await("web", 3, deployerv1.Deployment_COMPLETED)
	asked := len(b.git.Requests())
	testkit.Eventually(t, timeout, func() error { // it looks a few times more
		if n := len(b.git.Requests()); n < asked+4 {
			return fmt.Errorf("%d polls", n-asked)
		}
		return nil
	})
	if app := b.get("web"); b.live("web") != "one" || app.GetLatest().GetNumber() != 3 {
		t.Errorf("live %q, latest %v", b.live("web"), app.GetLatest())
	}
}

func TestCancelRunning_aNewerPushTakesThePlace(t *testing.T) {
	b := newBench(t)
	b.repo.Commit("main", "one", map[string]string{"index.html": "one"})
	a := withHooks(hookAt(postSetup, "slow unless three", `[ "$(cat index.html)" = three ] || sleep `+nap(3250)))
	a.AutoDeploy, a.CancelRunning = true, true
	b.create("web", a)
	_, first := b.push("two")
	b.awaitHook("web", 1, "slow unless three")
	b.push("three")
	d := b.await("web", 1, deployerv1.Deployment_SUPERSEDED)
	if d.GetSupersededBy() != 2 || d.GetCancelledBy() != nil || d.GetLive() || hookOf(d, "slow unless three").GetState() != deployerv1.HookRecord_CANCELLED {
		t.Errorf("what gave way: %v", d)
	}
	if left := running(t, "sleep\x00"+nap(3250)); len(left) != 0 {
		t.Errorf("processes %v are left", left)
	}
	b.await("web", 2, deployerv1.Deployment_COMPLETED)
	if b.live("web") != "three" {
		t.Errorf("live is %q", b.live("web"))
	}
	b.awaitSaid(first, "Deployed as #1")
	if log, _ := b.log("web", 1, &deployerv1.ReadLogRequest{}); !strings.Contains(log, "stopped") {
		t.Errorf("the log says %q", log)
	}
}

var burst = flag.Int("burst", 300, "how many pushes TestBurst makes; 1000 is the promise, and takes a minute with the race detector")

// However many pushes come while one deployment runs, there is one more run: `-burst 1000` for the
// number that was promised.
func TestBurst_ofPushesMakesTwoRuns(t *testing.T) {
	pushes := int32(*burst) // a flag of a test
	b := newBench(t)
	b.repo.Commit("main", "before", map[string]string{"index.html": "before"})
	a := withHooks(hookAt(postSetup, "wait", "[ $DEVPILOT_DEPLOYMENT != 1 ] || sleep "+nap(3260)))
	a.AutoDeploy = true
	b.create("web", a)
	b.push("first")
	b.awaitHook("web", 1, "wait")
	last := b.repo.Commit("main", "last", map[string]string{"index.html": "last"})
	began := time.Now()
	for range pushes - 1 {
		b.deliver(nil)
	}
	testkit.Eventually(t, 4*time.Minute, func() error {
		if n := b.get("web").GetLatest().GetNumber(); n != pushes {
			return fmt.Errorf("%d of %d pushes have a number", n, pushes)
		}
		return nil
	})
	t.Logf("%d pushes were decided in %v", pushes-1, time.Since(began).Round(time.Millisecond))
	if _, err := b.cancel("web", 1); err != nil { // what runs ends
		t.Fatal(err)
	}
	b.await("web", pushes, deployerv1.Deployment_COMPLETED)
	states, runs := map[deployerv1.Deployment_State]int{}, 0
	token := ""
	for {
		page, err := b.client.ListDeployments(b.member, &deployerv1.ListDeploymentsRequest{Workspace: workspace, App: "web", PageSize: 200, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range page.GetDeployments() {
			states[d.GetState()]++
			if d.GetAttempt() > 0 {
				runs++
			}
			if d.GetState() == deployerv1.Deployment_SUPERSEDED && d.GetSupersededBy() != d.GetNumber()+1 {
				t.Errorf("deployment %d was superseded by %d", d.GetNumber(), d.GetSupersededBy())
			}
		}
		if token = page.GetNextPageToken(); token == "" {
			break
		}
	}
	if runs != 2 || states[deployerv1.Deployment_SUPERSEDED] != int(pushes)-2 || states[deployerv1.Deployment_CANCELLED] != 1 || states[deployerv1.Deployment_COMPLETED] != 1 {
		t.Errorf("%d runs, states %v", runs, states)
	}
	if app := b.get("web"); b.live("web") != "last" || app.GetLive().GetCommit().GetHash() != last || app.GetLive().GetNumber() != pushes {
		t.Errorf("live %q, %v", b.live("web"), app.GetLive())
	}
}
