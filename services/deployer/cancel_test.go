package deployer_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/deployer"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

func (b *bench) cancel(app string, number int32) (*deployerv1.Deployment, error) {
	resp, err := b.client.CancelDeployment(b.member, &deployerv1.CancelDeploymentRequest{Workspace: workspace, App: app, Number: number})
	return resp.GetDeployment(), err
}

// stubborn is a hook that ignores being asked to end, and whose children do too; seconds tell it
// from those of other tests.
func stubborn(seconds int) string {
	return fmt.Sprintf(`trap '' TERM INT HUP
(trap '' TERM; setsid sleep %[1]s) &
sh -c 'trap "" TERM; sleep %[1]s; true' &
sleep %[1]s
sleep %[1]s`, nap(seconds))
}

// awaitHook waits until a hook of a deployment runs.
func (b *bench) awaitHook(app string, number int32, hook string) {
	b.t.Helper()
	testkit.Eventually(b.t, timeout, func() error {
		d, err := b.deployment(app, number)
		if err != nil || hookOf(d, hook).GetState() != deployerv1.HookRecord_RUNNING {
			return fmt.Errorf("hook %q of %d: %v, %v: %w", hook, number, hookOf(d, hook), d.GetError(), err)
		}
		return nil
	})
}

func TestCancel_killsARunningDeploymentWithAllItsHooksStarted(t *testing.T) {
	b := newBench(t)
	b.repo.Commit("main", "one", map[string]string{"index.html": "one"})
	b.create("web", web(false))
	b.deployed("web", deployerv1.Deployment_COMPLETED)
	b.update("web", &deployerv1.App{Hooks: []*deployerv1.DeploymentHook{
		hookAt(postSetup, "stubborn", stubborn(3211)), hookAt(postSetup, "after", "echo never"), hookAt(postRelease, "released", "echo never"),
	}}, "hooks")
	b.repo.Commit("main", "two", map[string]string{"index.html": "two"})
	n := b.deploy("web")
	awaitRunning(t, "sleep\x00"+nap(3211))
	began := time.Now()
	d, err := b.cancel("web", n)
	if err != nil || d.GetState() != deployerv1.Deployment_PROCESSING || d.GetCancelTime() == nil {
		t.Fatalf("the answer to a cancel: %v, %v", d, err)
	}
	wished := d.GetCancelTime().AsTime()
	if d, err = b.cancel("web", n); err != nil || !d.GetCancelTime().AsTime().Equal(wished) {
		t.Errorf("cancelled once more while it stops: %v, %v", d.GetCancelTime(), err)
	}
	d = b.await("web", n, deployerv1.Deployment_CANCELLED)
	took := time.Since(began)
	if left := running(t, "sleep\x00"+nap(3211)); len(left) != 0 {
		t.Errorf("processes %v outlived the deployment", left)
	}
	t.Logf("a hook that ignores SIGTERM was gone %v after the cancel", took.Round(time.Millisecond))
	if took > time.Minute { // the grace of 3 s, and what a busy machine adds
		t.Errorf("that took %v", took)
	}
	if d.GetError() != nil || d.GetCancelTime() != nil || len(d.GetNotes()) != 0 || d.GetCancelledBy().GetLabel() != "Jane Developer" || d.GetLive() || d.GetEndTime() == nil {
		t.Errorf("the cancelled deployment: %v", d)
	}
	if hookOf(d, "stubborn").GetState() != deployerv1.HookRecord_CANCELLED || hookOf(d, "after").GetState() != deployerv1.HookRecord_SKIPPED || hookOf(d, "released").GetState() != deployerv1.HookRecord_SKIPPED {
		t.Errorf("its hooks: %v", d.GetStages())
	}
	if b.live("web") != "one" || b.get("web").GetLive().GetNumber() != 1 {
		t.Errorf("live is %q", b.live("web"))
	}
	if again, err := b.cancel("web", n); err != nil || again.GetState() != deployerv1.Deployment_CANCELLED {
		t.Errorf("cancelled once more after its end: %v, %v", again, err)
	}
	_, err = b.cancel("web", 1)
	b.wantReason(err, apierr.ReasonNotCancellable)
	_, err = b.cancel("web", 99)
	b.wantReason(err, apierr.ReasonDeploymentNotFound)
	_, err = b.client.CancelDeployment(b.member, &deployerv1.CancelDeploymentRequest{Workspace: workspace, App: "web", Number: n, Etag: "old"})
	b.wantReason(err, apierr.ReasonEtagMismatch)
	// The lane goes on.
	b.update("web", &deployerv1.App{}, "hooks")
	b.deployed("web", deployerv1.Deployment_COMPLETED)
	if b.live("web") != "two" {
		t.Errorf("after the cancel %q is live", b.live("web"))
	}
}

func TestCancel_whatWaitsEndsAtOnce(t *testing.T) {
	b := newBench(t)
	b.repo.Commit("main", "one", map[string]string{"index.html": "one"})
	b.create("web", withHooks(hookAt(postSetup, "slow", "sleep "+nap(3212))))
	first := b.deploy("web")
	awaitRunning(t, "sleep\x00"+nap(3212))
	second := b.deploy("web")
	d, err := b.cancel("web", second)
	if err != nil || d.GetState() != deployerv1.Deployment_CANCELLED || d.GetCancelledBy().GetLabel() != "Jane Developer" || d.GetStartTime() != nil {
		t.Fatalf("cancelling what waits: %v, %v", d, err)
	}
	if d, err = b.deployment("web", first); err != nil || d.GetState() != deployerv1.Deployment_PROCESSING || d.GetCancelTime() != nil {
		t.Errorf("what runs: %v, %v", d, err)
	}
	log, end := b.log("web", second, &deployerv1.ReadLogRequest{Follow: true})
	if log != "" || end != deployerv1.Deployment_CANCELLED {
		t.Errorf("its log is %q and ends %v", log, end)
	}
	if _, err := b.cancel("web", first); err != nil {
		t.Fatal(err)
	}
	b.await("web", first, deployerv1.Deployment_CANCELLED)
}

func TestCancel_inEveryStage(t *testing.T) {
	b := newBench(t)
	b.repo.Commit("main", "one", map[string]string{"index.html": "one"})
	b.create("web", withHooks())
	for i, stage := range []deployerv1.Deployment_Stage{preExecution, preSourceControl, postSourceControl, postRelease} {
		sleep := "sleep " + nap(3220+i)
		b.update("web", &deployerv1.App{Hooks: []*deployerv1.DeploymentHook{hookAt(stage, "slow", sleep)}}, "hooks")
		n := b.deploy("web")
		b.awaitHook("web", n, "slow")
		if _, err := b.cancel("web", n); err != nil {
			t.Fatal(err)
		}
		d := b.await("web", n, deployerv1.Deployment_CANCELLED)
		live := stage == postRelease
		if d.GetLive() != live || d.GetReleaseKept() != live || d.GetStage() != stage || hookOf(d, "slow").GetState() != deployerv1.HookRecord_CANCELLED {
			t.Errorf("cancelled at %v: %v", stage, d)
		}
		if left := running(t, strings.ReplaceAll(sleep, " ", "\x00")); len(left) != 0 {
			t.Errorf("cancelled at %v, processes %v are left", stage, left)
		}
	}
	// The last one was live by then, and says so.
	if app := b.get("web"); app.GetLive().GetState() != deployerv1.Deployment_CANCELLED || b.live("web") != "one" {
		t.Errorf("live is %v", app.GetLive())
	}
	if d, _ := b.deployment("web", 4); !strings.Contains(strings.Join(d.GetNotes(), " "), "live") {
		t.Errorf("a cancel after the release says %v", d)
	}
	// While the repository is fetched.
	b.update("web", &deployerv1.App{}, "hooks")
	b.git.StallAfter(0)
	b.repo.Commit("main", "two", map[string]string{"index.html": "two"})
	n := b.deploy("web")
	testkit.Eventually(t, timeout, func() error {
		if d, err := b.deployment("web", n); err != nil || d.GetStage() != deployerv1.Deployment_SOURCE_CONTROL {
			return fmt.Errorf("%v, %w", d, err)
		}
		return nil
	})
	began := time.Now()
	if _, err := b.cancel("web", n); err != nil {
		t.Fatal(err)
	}
	b.await("web", n, deployerv1.Deployment_CANCELLED)
	if took := time.Since(began); took > time.Minute || b.live("web") != "one" {
		t.Errorf("cancelling a fetch took %v; live is %q", took, b.live("web"))
	}
}

func TestCancel_outlivesTheWorker(t *testing.T) {
	b := newBench(t, func(c *deployer.Config) { c.DrainTimeout = 50 * time.Millisecond })
	b.repo.Commit("main", "one", map[string]string{"index.html": "one"})
	b.create("web", withHooks(hookAt(postSetup, "stubborn", stubborn(3230))))
	n := b.deploy("web")
	awaitRunning(t, "sleep\x00"+nap(3230))
	// The wish comes just as the worker is told to stop: one of the two ends the run first.
	if _, err := b.cancel("web", n); err != nil {
		t.Fatal(err)
	}
	b.stopOne()
	if left := running(t, "sleep\x00"+nap(3230)); len(left) != 0 {
		t.Errorf("processes %v outlived the worker", left)
	}
	b.start()
	d := b.await("web", n, deployerv1.Deployment_CANCELLED)
	if d.GetCancelledBy().GetLabel() != "Jane Developer" || d.GetAttempt() > 2 {
		t.Errorf("%v", d)
	}
}

func TestCancel_whileNobodyServesTheServer(t *testing.T) {
	b := newBench(t, func(c *deployer.Config) { c.DrainTimeout = 50 * time.Millisecond })
	b.repo.Commit("main", "one", map[string]string{"index.html": "one"})
	b.create("web", withHooks(hookAt(postSetup, "slow", "sleep "+nap(3231))))
	n := b.deploy("web")
	awaitRunning(t, "sleep\x00"+nap(3231))
	b.stopOne() // the deployment goes back to waiting
	b.cfg.Worker = false
	b.start()
	if d, err := b.deployment("web", n); err != nil || d.GetState() != deployerv1.Deployment_PENDING || d.GetAttempt() != 1 {
		t.Fatalf("after its worker stopped: %v, %v", d, err)
	}
	if d, err := b.cancel("web", n); err != nil || d.GetState() != deployerv1.Deployment_CANCELLED {
		t.Fatalf("%v, %v", d, err)
	}
	b.stopOne()
	b.cfg.Worker = true
	b.start()
	b.update("web", &deployerv1.App{}, "hooks")
	b.deployed("web", deployerv1.Deployment_COMPLETED)
	if d, err := b.deployment("web", n); err != nil || d.GetState() != deployerv1.Deployment_CANCELLED || d.GetAttempt() != 1 {
		t.Errorf("a cancelled deployment was started again: %v, %v", d, err)
	}
}

func TestStop_afterTheReleaseIsFinishedByTheNextWorker(t *testing.T) {
	b := newBench(t, func(c *deployer.Config) { c.DrainTimeout = 50 * time.Millisecond })
	b.repo.Commit("main", "one", map[string]string{"index.html": "one"})
	b.create("web", web(false))
	b.deployed("web", deployerv1.Deployment_COMPLETED)
	b.update("web", &deployerv1.App{Hooks: []*deployerv1.DeploymentHook{
		hookAt(postSetup, "once", "echo once"), hookAt(postRelease, "slow", `[ "$DEVPILOT_ATTEMPT" = 2 ] || sleep `+nap(3232)),
	}}, "hooks")
	hash := b.repo.Commit("main", "two", map[string]string{"index.html": "two"})
	n := b.deploy("web")
	awaitRunning(t, "sleep\x00"+nap(3232))
	b.stopOne()
	// Its release is current: the records say so too, whatever becomes of it.
	b.cfg.Worker = false
	b.start()
	if app := b.get("web"); b.live("web") != "two" || app.GetLive().GetNumber() != n || app.GetLive().GetCommit().GetHash() != hash {
		t.Errorf("current is %q and the app says that %v is live", b.live("web"), app.GetLive())
	}
	b.stopOne()
	b.cfg.Worker = true
	b.start()
	d := b.await("web", n, deployerv1.Deployment_COMPLETED)
	if !d.GetLive() || d.GetAttempt() != 2 || b.live("web") != "two" {
		t.Errorf("%v", d)
	}
	if got := b.printed("web", n, "once"); len(got) != 1 {
		t.Errorf("a hook of a stage that was done ran again: %q", got)
	}
	if got := b.releases("web"); len(got) != 2 {
		t.Errorf("releases %q, want those of 1 and 2", got)
	}
}

func TestTimeout_endsADeploymentThatHangs(t *testing.T) {
	b := newBench(t, func(c *deployer.Config) { c.DeploymentTimeout = 10 * time.Second })
	b.repo.Commit("main", "one", map[string]string{"index.html": "one"})
	b.create("web", withHooks(hookAt(postSetup, "hangs", "sleep "+nap(3240))))
	d := b.deployed("web", deployerv1.Deployment_FAILED)
	if d.GetError().GetReason() != "DEPLOYMENT_TIMEOUT" || d.GetError().GetMessage() == "" || d.GetAttempt() != 1 || hookOf(d, "hangs").GetState() != deployerv1.HookRecord_CANCELLED {
		t.Errorf("%v", d)
	}
	if left := running(t, "sleep\x00"+nap(3240)); len(left) != 0 {
		t.Errorf("processes %v are left", left)
	}
	// So does one whose repository never comes.
	b.update("web", &deployerv1.App{}, "hooks")
	b.git.StallAfter(0)
	b.repo.Commit("main", "two", map[string]string{"index.html": "two"})
	if d = b.deployed("web", deployerv1.Deployment_FAILED); d.GetError().GetReason() != "DEPLOYMENT_TIMEOUT" {
		t.Errorf("%v", d.GetError())
	}
	b.git.StallAfter(-1)
	b.deployed("web", deployerv1.Deployment_COMPLETED)
}
