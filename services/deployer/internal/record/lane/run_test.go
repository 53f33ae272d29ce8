package lane_test

import (
	"errors"
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/services/deployer/internal/record/lane"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

func TestClaim_verdicts(t *testing.T) {
	b := newBench(t)
	if v := b.claim(1); v != lane.Idle {
		t.Fatal(v)
	}
	b.push("e1", "a")
	if v := lane.Claim(proto.CloneOf(b.l), lane.Claimant{Wake: 1, Server: "eu", Now: b.now}); v != lane.Elsewhere {
		t.Fatal(v)
	}
	if v := b.claim(1); v != lane.Start {
		t.Fatal(v)
	}
	if v := b.claim(2); v != lane.Busy {
		t.Fatal(v)
	}
	epoch := b.l.GetEpoch()
	b.fix("a")
	if v := b.claim(1); v != lane.TakeOver || b.l.GetEpoch() != epoch+1 || b.l.GetRunning().GetJob().GetAttempt() != 2 {
		t.Fatal(v, b.l)
	}
	if b.l.GetRunning().GetHash() != "a" {
		t.Error("the successor does not know what its predecessor may have made live")
	}
	if err := lane.Complete(b.l, epoch, lane.Result{Now: b.now}); !errors.Is(err, lane.ErrLost) {
		t.Fatalf("the replaced attempt could complete: %v", err)
	}
	if err := lane.Orphan(b.l, b.l.GetEpoch()); err != nil {
		t.Fatal(err)
	}
	if v := b.claim(99); v != lane.TakeOver {
		t.Fatalf("an orphan was not taken over: %v", v)
	}
}

// A consumer that was made anew, with a restart of the store, delivers everything for the first time, also
// what a living worker holds. Only what it delivers again is proof that the holder fell silent.
func TestClaim_aFirstDeliveryTakesNobodysRun(t *testing.T) {
	b := newBench(t)
	b.push("e1", "a")
	if v := b.claim(1); v != lane.Start {
		t.Fatal(v)
	}
	epoch := b.l.GetEpoch()
	other := lane.Claimant{Wake: 1, First: true, Server: "default", Worker: "other", Now: b.now}
	if v := lane.Claim(b.l, other); v != lane.Leave || b.l.GetEpoch() != epoch {
		t.Fatalf("the holder's run was taken by a first delivery: %v", v)
	}
	own := other
	own.Worker = "w"
	if v := lane.Claim(proto.CloneOf(b.l), own); v != lane.TakeOver {
		t.Errorf("the holder itself tries again: %v", v)
	}
	other.First = false
	if v := lane.Claim(proto.CloneOf(b.l), other); v != lane.TakeOver {
		t.Errorf("the wake-up came again: %v", v)
	}
	other.First = true
	if err := lane.Orphan(b.l, b.l.GetEpoch()); err != nil {
		t.Fatal(err)
	}
	if v := lane.Claim(b.l, other); v != lane.TakeOver {
		t.Errorf("an orphan has no holder: %v", v)
	}
}

func TestFixCommit_headMovedOnAndLiveAlready(t *testing.T) {
	b := newBench(t)
	b.deploy("e1", "a")
	b.push("e2", "b")
	b.push("e3", "a") // A, B, A before anybody looked
	if v := b.claim(3); v != lane.Start {
		t.Fatal(v)
	}
	if live := b.fix("a"); live != 1 {
		t.Fatalf("live %d", live)
	}
	b.must(lane.Supersede(b.l, b.l.GetEpoch(), 1, lane.Result{Now: b.now}))
	b.want(3, deployerv1.Deployment_SUPERSEDED)

	b.push("e4", "c")
	b.claim(4)
	if live := b.fix("d"); live != 0 {
		t.Fatal(live)
	}
	b.complete()
	d := b.records[4].GetDeployment()
	if d.GetCommit().GetHash() != "d" || d.GetRequestedCommit().GetHash() != "c" {
		t.Fatalf("%v", d)
	}
	if h := lane.HeadOf(b.l, repository, "main"); h.GetHash() != "d" || h.GetSource() != storev1.Head_FETCH {
		t.Fatalf("%v", h)
	}

	// A person gets what they ask for, even of what is live.
	_, err := lane.Accept(b.l, b.ask("m", "", deployerv1.Deployment_MANUAL))
	b.must(err)
	b.claim(5)
	if live := b.fix("d"); live != 0 {
		t.Fatal("a manual deployment was turned away")
	}
}

func TestComplete_keepsSoManyReleases(t *testing.T) {
	b := newBench(t)
	for i := range 6 {
		b.deploy(fmt.Sprint(i), fmt.Sprint(i))
	}
	var kept []int32
	for _, k := range b.l.GetKept() {
		kept = append(kept, k.GetNumber())
	}
	if fmt.Sprint(kept) != "[4 5 6]" || b.l.GetLive().GetNumber() != 6 {
		t.Fatalf("kept %v, live %v", kept, b.l.GetLive())
	}
}

func TestRetire_leavesNothingToAnOlderWorker(t *testing.T) {
	b := newBench(t)
	b.deploy("e1", "a")
	b.push("e2", "b")
	b.claim(2)
	epoch, generation := b.l.GetEpoch(), b.l.GetGeneration()
	b.must(lane.Retire(b.l, generation, 77))
	if err := lane.Retire(b.l, generation, 77); !errors.Is(err, lane.ErrSkip) {
		t.Fatal(err)
	}
	if err := lane.Complete(b.l, epoch, lane.Result{}); !errors.Is(err, lane.ErrLost) {
		t.Fatal(err)
	}
	if _, err := lane.Accept(b.l, b.ask("e3", "c", deployerv1.Deployment_PUSH)); !errors.Is(err, lane.ErrRetired) {
		t.Fatal(err)
	}
	if v := b.claim(2); v != lane.Removal {
		t.Fatal(v)
	}
	// The name is used again before all is removed.
	if again := lane.Begin(b.l); again != generation+1 || b.l.GetFirstEpoch() <= epoch {
		t.Fatalf("%v", b.l)
	}
	if n := b.push("n1", "x"); n != 1 {
		t.Fatal(n)
	}
	if rec := b.records[1]; rec.GetGeneration() != generation+1 || rec.GetDeployment().GetCommit().GetHash() != "x" {
		t.Fatalf("the old record is still there: %v", rec)
	}
	lane.Removed(b.l, generation, true, "")
	lane.Removed(b.l, generation, false, "default")
	if len(b.l.GetRemains()) != 0 {
		t.Fatal(b.l.GetRemains())
	}
	if v := b.claim(5); v != lane.Start {
		t.Fatal(v)
	}
}
