package lane_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/services/deployer/internal/record/lane"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

var start = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

const repository = "85d08b4e-571d-44e9-a507-fa476535aa98"

// bench drives one lane and the records that follow from it, without any store.
type bench struct {
	t       *testing.T
	l       *storev1.Lane
	records map[int32]*storev1.Deployment
	now     time.Time

	retention int32
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, retention: 2, l: &storev1.Lane{}, records: map[int32]*storev1.Deployment{}, now: start}
	lane.Begin(b.l)
	return b
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
	b.flush()
}

func (b *bench) flush() {
	for _, c := range b.l.GetOutbox() {
		for range 2 { // written twice changes nothing
			if rec, ok := lane.Apply(b.records[c.GetNumber()], "acme-inc", "web", b.l.GetGeneration(), c); ok {
				b.records[c.GetNumber()] = rec
			}
		}
	}
	b.l.Outbox = nil
}

func (b *bench) ask(event, hash string, trigger deployerv1.Deployment_Trigger) lane.Request {
	a := lane.Request{Event: event, ReceiveTime: b.now, Trigger: trigger, Repository: repository, Branch: "main", Server: "default", Now: b.now}
	if hash != "" {
		a.Commit = &deployerv1.DeploymentCommit{Hash: hash, Message: "m " + hash}
	}
	return a
}

func (b *bench) push(event, hash string) int32 {
	b.t.Helper()
	d, err := lane.Accept(b.l, b.ask(event, hash, deployerv1.Deployment_PUSH))
	if err != nil && !errors.Is(err, lane.ErrSkip) {
		b.t.Fatal(err)
	}
	b.flush()
	return d.Number
}

func (b *bench) claim(wake uint64) lane.Verdict {
	v := lane.Claim(b.l, lane.Claimant{Wake: wake, Server: "default", Worker: "w", Now: b.now})
	b.flush()
	return v
}

func (b *bench) fix(hash string) int32 {
	b.t.Helper()
	live, err := lane.FixCommit(b.l, b.l.GetEpoch(), repository, &deployerv1.DeploymentCommit{Hash: hash}, hash, b.now)
	b.must(err)
	return live
}

func (b *bench) complete() {
	b.t.Helper()
	r := b.l.GetRunning()
	b.must(lane.Complete(b.l, b.l.GetEpoch(), lane.Result{Now: b.now, Directory: fmt.Sprint(r.GetJob().GetNumber()), Retention: b.retention}))
}

func (b *bench) deploy(event, hash string) int32 {
	b.t.Helper()
	n := b.push(event, hash)
	if v := b.claim(uint64(n)); v != lane.Start {
		b.t.Fatalf("claim of %d: %v", n, v)
	}
	b.fix(hash)
	b.complete()
	return n
}

func (b *bench) state(n int32) deployerv1.Deployment_State {
	return b.records[n].GetDeployment().GetState()
}

func (b *bench) want(n int32, s deployerv1.Deployment_State) {
	b.t.Helper()
	if got := b.state(n); got != s {
		b.t.Errorf("deployment %d is %v, want %v", n, got, s)
	}
}

func TestAccept_latestWinsAndEventsCountOnce(t *testing.T) {
	b := newBench(t)
	if n := b.push("e1", "a"); n != 1 {
		t.Fatal(n)
	}
	if v := b.claim(10); v != lane.Start {
		t.Fatal(v)
	}
	for i := range 5 {
		if n := b.push(fmt.Sprintf("e%d", i+2), "b"); n != int32(i+2) {
			t.Fatal(n)
		}
	}
	if n := b.push("e3", "b"); n != 3 || b.l.GetLastNumber() != 6 {
		t.Fatalf("the same event again: %d", n)
	}
	b.want(1, deployerv1.Deployment_PROCESSING)
	for n := int32(2); n <= 5; n++ {
		b.want(n, deployerv1.Deployment_SUPERSEDED)
		if by := b.records[n].GetDeployment().GetSupersededBy(); by != n+1 {
			t.Errorf("%d superseded by %d", n, by)
		}
	}
	b.want(6, deployerv1.Deployment_PENDING)
}

func TestAccept_forgottenEventsAreNotNew(t *testing.T) {
	b := newBench(t)
	b.push("first", "a")
	for i := range 600 {
		b.now = b.now.Add(time.Minute)
		b.push(fmt.Sprintf("e%d", i), "b")
	}
	before := b.l.GetLastNumber()
	old := b.ask("first", "a", deployerv1.Deployment_PUSH)
	old.ReceiveTime = start
	if d, err := lane.Accept(b.l, old); !errors.Is(err, lane.ErrSkip) || d.Number != 0 {
		t.Fatalf("%+v %v", d, err)
	}
	old.Replay = true
	if d, err := lane.Accept(b.l, old); err != nil || !d.New || b.l.GetLastNumber() != before+1 {
		t.Fatalf("replay: %+v %v", d, err)
	}
	// One that was held up for a while is new.
	late := b.ask("late", "c", deployerv1.Deployment_PUSH)
	late.ReceiveTime = b.l.GetForgottenTime().AsTime().Add(-time.Minute)
	if d, err := lane.Accept(b.l, late); err != nil || !d.New {
		t.Fatalf("late: %+v %v", d, err)
	}
}

func TestAccept_lateDeliveryOfAReconciledHead(t *testing.T) {
	b := newBench(t)
	d, err := lane.Accept(b.l, b.ask("reconciled:1", "a", deployerv1.Deployment_RECONCILED))
	b.must(err)
	late, err := lane.Accept(b.l, b.ask("hook.1.0", "a", deployerv1.Deployment_PUSH))
	b.must(err)
	if late.Number != d.Number || !late.Reconciled || late.New {
		t.Fatalf("%+v", late)
	}
	// A push of the same commit after that is a push of its own: A, B, A.
	if n := b.push("hook.2.0", "b"); n != 2 {
		t.Fatal(n)
	}
	if n := b.push("hook.3.0", "a"); n != 3 {
		t.Fatal(n)
	}
}

func TestAccept_backlogIsRefusedUntilWritten(t *testing.T) {
	b := newBench(t)
	var err error
	for i := 0; err == nil && i < 1000; i++ {
		_, err = lane.Accept(b.l, b.ask(fmt.Sprint(i), "a", deployerv1.Deployment_PUSH))
	}
	if !errors.Is(err, lane.ErrBacklog) {
		t.Fatal(err)
	}
	b.flush()
	if _, err := lane.Accept(b.l, b.ask("after", "a", deployerv1.Deployment_PUSH)); err != nil {
		t.Fatal(err)
	}
}

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

func TestApply_endsOnceAndIgnoresOtherGenerations(t *testing.T) {
	b := newBench(t)
	b.deploy("e1", "a")
	rec := b.records[1]
	late := &storev1.RecordChange{Seq: rec.GetAppliedSeq() + 5, Number: 1, Change: &storev1.RecordChange_Ended{Ended: &storev1.Ended{State: deployerv1.Deployment_FAILED, Time: timestamppb.Now()}}}
	next, _ := lane.Apply(rec, "acme-inc", "web", 1, late)
	if next.GetDeployment().GetState() != deployerv1.Deployment_COMPLETED {
		t.Fatal("an end was overwritten")
	}
	if _, ok := lane.Apply(rec, "acme-inc", "web", 2, late); ok {
		t.Fatal("a change of another generation was made")
	}
	if _, ok := lane.Apply(nil, "acme-inc", "web", 1, late); ok {
		t.Fatal("a record was made of its end")
	}
}

func TestHasWork_andWhomToWake(t *testing.T) {
	b := newBench(t)
	if lane.HasWork(b.l) || len(lane.WakeTargets(b.l)) != 0 {
		t.Fatal("work where there is none")
	}
	b.push("e1", "a")
	if fmt.Sprint(lane.WakeTargets(b.l)) != "[default]" || !lane.HasWork(b.l) {
		t.Fatal(lane.WakeTargets(b.l))
	}
	b.must(lane.Move(b.l, "eu"))
	if fmt.Sprint(lane.WakeTargets(b.l)) != "[eu]" {
		t.Fatal(lane.WakeTargets(b.l))
	}
}
