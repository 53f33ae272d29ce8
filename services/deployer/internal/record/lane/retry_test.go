package lane_test

import (
	"testing"
	"time"

	"devpilot.io/bitbucket/services/deployer/internal/record/lane"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

func TestReturn_waitsThenFailsAfterADay(t *testing.T) {
	b := newBench(t)
	why := &deployerv1.DeploymentError{Reason: "BITBUCKET_UNAVAILABLE", Message: "down"}
	b.push("e1", "a")
	for i := range 25 {
		if v := b.claim(1); v != lane.Start {
			t.Fatalf("try %d: %v", i, v)
		}
		wake := b.now.Add(time.Hour)
		b.must(lane.RetryLater(b.l, b.l.GetEpoch(), why, wake, lane.Result{Now: b.now}))
		if b.state(1) == deployerv1.Deployment_FAILED {
			if i != 24 {
				t.Fatalf("failed after %d hours", i)
			}
			return
		}
		b.want(1, deployerv1.Deployment_PENDING)
		d := b.records[1].GetDeployment()
		if d.GetWaitingFor().GetReason() != "BITBUCKET_UNAVAILABLE" || !d.GetRetryTime().AsTime().Equal(wake) {
			t.Fatalf("%v", d)
		}
		if v := b.claim(2); v != lane.Held {
			t.Fatalf("started too early: %v", v)
		}
		b.now = wake
	}
	t.Fatal("never failed")
}

// A worker that was stopped while it switched has gone live, and nobody knows: who finds its release
// current must learn which commit that is, also after an attempt between them that got nowhere.
func TestReturn_keepsTheCommitThatMayBeLive(t *testing.T) {
	b := newBench(t)
	b.push("e1", "a")
	b.claim(1)
	if _, err := lane.FixCommit(b.l, b.l.GetEpoch(), repository, &deployerv1.DeploymentCommit{Hash: "a"}, "a", b.now); err != nil {
		t.Fatal(err)
	}
	if v := b.claim(1); v != lane.TakeOver || b.l.GetRunning().GetHash() != "a" {
		t.Fatalf("taken over: %v, commit %q", v, b.l.GetRunning().GetHash())
	}
	why := &deployerv1.DeploymentError{Reason: "VOLUME_BUSY", Message: "another worker holds the directory"}
	b.must(lane.RetryLater(b.l, b.l.GetEpoch(), why, b.now, lane.Result{Now: b.now}))
	if v := b.claim(2); v != lane.Start || b.l.GetRunning().GetHash() != "a" {
		t.Fatalf("started again: %v, commit %q, want the one that may be live", v, b.l.GetRunning().GetHash())
	}
}

func TestReturn_newerPushTakesItsPlace(t *testing.T) {
	b := newBench(t)
	why := &deployerv1.DeploymentError{Reason: "BITBUCKET_UNAVAILABLE"}
	b.push("e1", "a")
	b.claim(1)
	b.push("e2", "b")
	b.must(lane.RetryLater(b.l, b.l.GetEpoch(), why, b.now.Add(time.Hour), lane.Result{Now: b.now}))
	b.want(1, deployerv1.Deployment_SUPERSEDED)
	if v := b.claim(1); v != lane.Held {
		t.Fatal(v)
	}
	b.push("e3", "c") // a new push tries at once
	if v := b.claim(3); v != lane.Start {
		t.Fatal(v)
	}
	why.Reason = "BITBUCKET_RATE_LIMITED"
	b.must(lane.RetryLater(b.l, b.l.GetEpoch(), why, b.now.Add(time.Hour), lane.Result{Now: b.now}))
	b.push("e4", "d") // but not against a limit
	if v := b.claim(4); v != lane.Held {
		t.Fatal(v)
	}
	_, err := lane.Accept(b.l, b.ask("m", "", deployerv1.Deployment_MANUAL)) // a person does
	b.must(err)
	if v := b.claim(5); v != lane.Start {
		t.Fatal(v)
	}
}

func TestYield_startsAgainAtOnce(t *testing.T) {
	b := newBench(t)
	b.push("e1", "a")
	b.claim(1)
	b.must(lane.Yield(b.l, b.l.GetEpoch(), lane.Result{Now: b.now}))
	b.want(1, deployerv1.Deployment_PENDING)
	if v := b.claim(1); v != lane.Start || b.l.GetRunning().GetJob().GetAttempt() != 2 {
		t.Fatal(v)
	}
}
