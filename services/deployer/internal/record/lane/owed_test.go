package lane_test

import (
	"testing"
	"time"

	"devpilot.io/bitbucket/services/deployer/internal/record/lane"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// fail ends the run for a reason outside its commit, or inside.
func (b *bench) fail(outside, remote bool) {
	b.t.Helper()
	why := &deployerv1.DeploymentError{Reason: "REPOSITORY_NOT_FOUND"}
	b.must(lane.Fail(b.l, b.l.GetEpoch(), deployerv1.Deployment_FAILED, why, lane.Result{Now: b.now, Outside: outside, Remote: remote}))
}

// run accepts a wish and starts it.
func (b *bench) run(a lane.Request) int32 {
	b.t.Helper()
	d, err := lane.Accept(b.l, a)
	b.must(err)
	if v := b.claim(uint64(d.Number)); v != lane.Start {
		b.t.Fatalf("claim of %d: %v", d.Number, v)
	}
	return d.Number
}

func TestOwed_theNewestPushThatFailedForReasonsOutsideItsCommit(t *testing.T) {
	push, manual := deployerv1.Deployment_PUSH, deployerv1.Deployment_MANUAL
	for name, c := range map[string]struct {
		play func(b *bench)
		owed int32
	}{
		"outside":       {func(b *bench) { b.run(b.ask("e1", "a", push)); b.fail(true, true) }, 1},
		"inside":        {func(b *bench) { b.run(b.ask("e1", "a", push)); b.fail(false, false) }, 0},
		"deploy latest": {func(b *bench) { b.run(b.ask("e1", "", manual)); b.fail(true, true) }, 1},
		"live all the same": {func(b *bench) {
			b.run(b.ask("e1", "a", push))
			b.must(lane.Fail(b.l, b.l.GetEpoch(), deployerv1.Deployment_FAILED, &deployerv1.DeploymentError{}, lane.Result{Now: b.now, Outside: true, Live: true, Directory: "1"}))
		}, 0},
		"redeploy": {func(b *bench) {
			a := b.ask("e1", "a", deployerv1.Deployment_REDEPLOY)
			a.Pinned = true
			b.run(a)
			b.fail(true, true)
		}, 0},
		"rollback": {func(b *bench) {
			a := b.ask("e1", "a", deployerv1.Deployment_ROLLBACK)
			a.Directory = "1"
			b.run(a)
			b.fail(true, false)
		}, 0},
		"cancelled": {func(b *bench) {
			b.run(b.ask("e1", "a", push))
			b.must(lane.Cancel(b.l, 1, nil, b.now))
			b.must(lane.Cancelled(b.l, b.l.GetEpoch(), lane.Result{Now: b.now}))
		}, 0},
		"not wanted any more": {func(b *bench) {
			b.run(b.ask("e1", "a", push))
			b.must(lane.Fail(b.l, b.l.GetEpoch(), deployerv1.Deployment_CANCELLED, &deployerv1.DeploymentError{Reason: "AUTO_DEPLOY_OFF"}, lane.Result{Now: b.now}))
		}, 0},
		"a newer one waits": {func(b *bench) { b.run(b.ask("e1", "a", push)); b.push("e2", "b"); b.fail(true, true) }, 0},
		"a newer one after": {func(b *bench) { b.run(b.ask("e1", "a", push)); b.fail(true, true); b.push("e2", "b") }, 0},
		"a newer one, cancelled": {func(b *bench) {
			b.run(b.ask("e1", "a", push))
			b.fail(true, true)
			b.push("e2", "b")
			b.must(lane.Cancel(b.l, 2, nil, b.now))
		}, 0},
		"a rollback after": {func(b *bench) {
			b.run(b.ask("e1", "a", push))
			b.fail(true, true)
			a := b.ask("e2", "0", deployerv1.Deployment_ROLLBACK)
			a.Directory = "0"
			_, err := lane.Accept(b.l, a)
			b.must(err)
		}, 0},
		"a push that a rule turned away after": {func(b *bench) {
			b.run(b.ask("e1", "a", push))
			b.fail(true, true)
			b.must(lane.TurnAway(b.l, b.ask("e2", "b", push)))
		}, 1},
		"the branch is gone": {func(b *bench) {
			b.run(b.ask("e1", "a", push))
			b.fail(true, true)
			b.must(lane.RefDeleted(b.l, b.ask("e2", "", push)))
		}, 0},
		"the branch is gone, as a poll found": {func(b *bench) {
			b.run(b.ask("e1", "a", push))
			b.fail(true, true)
			b.must(lane.Gone(b.l, repository, lane.Branch("main"), b.now))
		}, 0},
		"auto-deploy was switched on anew": {func(b *bench) {
			b.run(b.ask("e1", "a", push))
			b.fail(true, true)
			lane.Baseline(b.l, repository, "main", "a", b.now)
		}, 0},
		"other branches are watched": {func(b *bench) {
			b.run(b.ask("e1", "a", push))
			b.fail(true, true)
			lane.ForgetBranches(b.l)
		}, 0},
		"other tags are watched": {func(b *bench) {
			b.run(b.ask("e1", "a", push))
			b.fail(true, true)
			lane.ForgetTags(b.l)
		}, 1},
		"a day of trouble": {func(b *bench) {
			b.run(b.ask("e1", "a", push))
			b.l.Running.Job.FirstFailureTime = b.l.GetRunning().GetStartTime()
			b.now = b.now.Add(lane.RetryLimit)
			b.must(lane.RetryLater(b.l, b.l.GetEpoch(), &deployerv1.DeploymentError{Reason: "BITBUCKET_UNAVAILABLE"}, b.now, lane.Result{Now: b.now, Outside: true, Remote: true}))
		}, 1},
		"as often as it may": {func(b *bench) {
			a := b.ask("e1", "a", deployerv1.Deployment_RECONCILED)
			a.Retries = lane.MostRetries
			b.run(a)
			b.fail(true, true)
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			c.play(b)
			if n := b.l.GetOwed().GetJob().GetNumber(); n != c.owed {
				t.Errorf("owes %d, want %d", n, c.owed)
			}
		})
	}
}

func TestOwedAt_atOnceWhereBitbucketTellsTheEnd(t *testing.T) {
	for _, c := range []struct {
		remote  bool
		retries int32
		want    time.Duration
	}{{true, 0, 0}, {true, 1, 2 * time.Minute}, {true, 11, time.Hour}, {false, 0, time.Minute}, {false, 3, 8 * time.Minute}, {false, 11, time.Hour}} {
		b := newBench(t)
		a := b.ask("e1", "a", deployerv1.Deployment_RECONCILED)
		a.Retries = c.retries
		b.run(a)
		b.fail(true, c.remote)
		if d := lane.OwedAt(b.l.GetOwed()).Sub(b.now); d != c.want {
			t.Errorf("%v: after %v", c, d)
		}
	}
}

// TestRetry_saysNothingAboutTheBranch: what was seen of the branch stays as it was.
func TestRetry_saysNothingAboutTheBranch(t *testing.T) {
	b := newBench(t)
	b.run(b.ask("e1", "a", deployerv1.Deployment_PUSH))
	b.fail(true, true)
	b.must(lane.TurnAway(b.l, b.ask("e2", "b", deployerv1.Deployment_PUSH)))
	a := b.ask("owed:1", "a", deployerv1.Deployment_RECONCILED)
	a.Retries = 1
	b.run(a)
	if h := lane.HeadOf(b.l, repository, lane.Branch("main")); h.GetHash() != "b" || h.GetSource() != storev1.Head_EVENT {
		t.Errorf("%v", h)
	}
	if n := b.l.GetRunning().GetJob().GetRetries(); n != 1 || b.l.GetOwed() != nil {
		t.Errorf("%d retries, owed %v", n, b.l.GetOwed())
	}
}

// TestRetry_ofWhatAPersonAskedFor: a person asks for the branch's latest commit without naming it. Once it
// is known which that is, a retry is for that one, also where it was found by an attempt before the one
// that failed, and whatever was pushed and turned away since.
func TestRetry_ofWhatAPersonAskedFor(t *testing.T) {
	for name, again := range map[string]func(b *bench){
		"failed at once":    func(*bench) {},
		"after a take-over": func(b *bench) { b.claim(1) },
		"after a wait": func(b *bench) {
			b.must(lane.RetryLater(b.l, b.l.GetEpoch(), &deployerv1.DeploymentError{Reason: "DISK_FULL"}, b.now, lane.Result{Now: b.now}))
			b.claim(2)
		},
	} {
		b := newBench(t)
		b.run(b.ask("m", "", deployerv1.Deployment_MANUAL))
		b.fix("a")
		again(b)
		b.must(lane.TurnAway(b.l, b.ask("e2", "b", deployerv1.Deployment_PUSH)))
		b.fail(true, true)
		if job := b.l.GetOwed().GetJob(); job.GetNumber() != 1 || job.GetHash() != "a" {
			t.Errorf("%s: owes %d at %q, want 1 at a", name, job.GetNumber(), job.GetHash())
		}
	}
}

func TestDoubt_isBelievedAfterMinutesInWhichTheRestWasWell(t *testing.T) {
	const enough = 3 * time.Minute
	now := start
	job := &storev1.Job{}
	see := func(reason string, well bool, after time.Duration) bool {
		now = now.Add(after)
		job.Doubt = lane.Doubting(job, reason, well, now)
		return lane.Believed(job.GetDoubt(), enough, now)
	}
	for i, s := range []struct {
		reason   string
		well     bool
		after    time.Duration
		believed bool
	}{
		{"A", true, 0, false},
		{"A", true, 4 * time.Minute, false}, // twice is not often
		{"A", false, time.Minute, false},    // all is away: nothing is known
		{"A", true, time.Minute, false},
		{"A", true, time.Minute, false},
		{"A", true, time.Minute, false},
		{"B", true, time.Minute, false}, // another answer
		{"A", true, time.Second, false},
		{"A", true, time.Minute, false},
		{"A", true, 119 * time.Second, false},
		{"A", true, time.Second, true},
	} {
		if got := see(s.reason, s.well, s.after); got != s.believed {
			t.Errorf("%d: %v after %v", i, got, job.GetDoubt())
		}
	}
}

// TestClaim_onlyDeathsCount: a deployment that waited for Bitbucket a hundred times is none whose workers die.
func TestClaim_onlyDeathsCount(t *testing.T) {
	b := newBench(t)
	b.push("e1", "a")
	for i := range 100 {
		if v := b.claim(uint64(i + 1)); v != lane.Start {
			t.Fatal(v)
		}
		b.must(lane.RetryLater(b.l, b.l.GetEpoch(), &deployerv1.DeploymentError{Reason: "BITBUCKET_UNAVAILABLE"}, b.now, lane.Result{Now: b.now}))
	}
	b.claim(1000)
	if v := b.claim(1000); v != lane.TakeOver {
		t.Fatal(v)
	}
	if j := b.l.GetRunning().GetJob(); j.GetDeaths() != 1 || j.GetAttempt() != 102 {
		t.Errorf("%v", j)
	}
}

func TestReleaseRemote_onlyWhatWaitsForBitbucketToAnswer(t *testing.T) {
	for name, c := range map[string]struct {
		reason  string
		remote  bool
		doubt   *storev1.Doubt
		release bool
	}{
		"away":    {"BITBUCKET_UNAVAILABLE", true, nil, true},
		"limited": {"BITBUCKET_RATE_LIMITED", true, nil, false},
		"disk":    {"DISK_FULL", false, nil, false},
		"doubted": {"REPOSITORY_NOT_FOUND", true, &storev1.Doubt{Reason: "REPOSITORY_NOT_FOUND"}, false},
	} {
		b := newBench(t)
		b.run(b.ask("e1", "a", deployerv1.Deployment_PUSH))
		wake := b.now.Add(time.Minute)
		b.must(lane.Doubt(b.l, b.l.GetEpoch(), c.doubt))
		b.must(lane.RetryLater(b.l, b.l.GetEpoch(), &deployerv1.DeploymentError{Reason: c.reason}, wake, lane.Result{Now: b.now, Outside: true, Remote: c.remote}))
		if err := lane.ReleaseRemote(b.l); (err == nil) != c.release {
			t.Errorf("%s: %v", name, err)
		}
		want := lane.Held
		if c.release {
			want = lane.Start
		}
		if v := b.claim(77); v != want {
			t.Errorf("%s: claim: %v", name, v)
		}
	}
}
