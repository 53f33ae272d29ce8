package lane_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/services/deployer/internal/record/lane"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

func (b *bench) depart(from, to string) lane.Departed {
	b.t.Helper()
	d, err := lane.Depart(b.l, lane.Departure{From: from, To: to, Branch: "main", Now: b.now})
	b.must(err)
	return d
}

func (b *bench) claimOn(server string, wake uint64) lane.Verdict {
	v := lane.Claim(b.l, lane.Claimant{Wake: wake, Server: server, Worker: "w-" + server, Now: b.now})
	b.flush()
	return v
}

// What ran, what waited, what is undecided and what was live all go over in one decision. What was live comes
// first, and whoever ran there has lost.
func TestDepart_allOfItGoesOver(t *testing.T) {
	b := newBench(t)
	b.deploy("e1", "a")
	b.push("e2", "b")
	b.claim(2)
	b.fix("b")
	old := b.l.GetEpoch()
	b.push("e3", "c")
	b.must(lane.Propose(b.l, b.ask("e4", "d", deployerv1.Deployment_PUSH).Candidate()))
	if !lane.Concerns(b.l, "default") {
		t.Fatal("the lane has nothing on its server")
	}

	got := b.depart("default", "eu")
	if got != (lane.Departed{Again: 4, TakenBack: 2, Waiting: 3, Undecided: 1}) {
		t.Fatalf("%+v", got)
	}
	if lane.Concerns(b.l, "default") || !lane.Concerns(b.l, "eu") || lane.Decider(b.l) != "eu" || !slices.Equal(lane.WakeTargets(b.l), []string{"eu"}) {
		t.Fatalf("something stayed: %v", b.l)
	}
	if err := lane.Complete(b.l, old, lane.Result{Now: b.now, Directory: "2"}); !errors.Is(err, lane.ErrLost) {
		t.Fatalf("the dead server's worker ends its deployment: %v", err)
	}
	b.want(2, deployerv1.Deployment_SUPERSEDED) // by 3, which waited behind it
	for n, note := range map[int32]string{2: "It ran on server default, which died", 3: "It waited for server default, which died", 4: "Deployment #1 was live on server default, which died"} {
		if d := b.records[n].GetDeployment(); d.GetServer() != "eu" || !strings.HasPrefix(strings.Join(d.GetNotes(), ""), note) {
			t.Errorf("deployment %d: %v", n, d)
		}
	}
	d := b.records[4].GetDeployment()
	if d.GetTrigger() != deployerv1.Deployment_MOVED || d.GetSourceNumber() != 1 || d.GetCommit().GetHash() != "a" || d.GetBranch() != "main" {
		t.Fatalf("%v", d)
	}
	if v := b.claim(9); v != lane.Elsewhere {
		t.Fatalf("the dead server comes back: %v", v)
	}

	if v := b.claimOn("eu", 5); v != lane.Start || b.l.GetRunning().GetJob().GetNumber() != 4 {
		t.Fatalf("%v %v", v, b.l.GetRunning())
	}
	b.fix("a")
	b.complete()
	if live := b.l.GetLive(); live.GetServer() != "eu" || live.GetHash() != "a" || live.GetLost() || live.GetChosen() || lane.Origin(b.l) != 1 {
		t.Fatalf("%v", live)
	}
	for _, k := range b.l.GetKept() {
		if k.GetServer() != "eu" {
			t.Errorf("a release of the dead server is kept: %v", k)
		}
	}
	if v := b.claimOn("eu", 6); v != lane.Start || b.l.GetRunning().GetJob().GetNumber() != 3 {
		t.Fatalf("%v %v", v, b.l.GetRunning())
	}
	b.fix("c")
	b.complete()
	if b.l.GetLive().GetNumber() != 3 || lane.Origin(b.l) != 3 {
		t.Fatalf("%v", b.l.GetLive())
	}
}

func TestDepart_twiceIsOnce(t *testing.T) {
	b := newBench(t)
	b.deploy("e1", "a")
	b.push("e2", "b")
	b.depart("default", "eu")
	before := proto.CloneOf(b.l)
	if _, err := lane.Depart(b.l, lane.Departure{From: "default", To: "eu", Now: b.now}); !errors.Is(err, lane.ErrSkip) || !proto.Equal(before, b.l) {
		t.Fatalf("%v: %v", err, b.l)
	}
	// The other one dies as well, before anything ran there.
	if got := b.depart("eu", "us"); got != (lane.Departed{Waiting: 2}) || b.l.GetLastNumber() != 3 {
		t.Fatalf("%+v", got)
	}
	if b.claimOn("us", 3) != lane.Start || b.l.GetRunning().GetJob().GetNumber() != 3 {
		t.Fatalf("%v", b.l.GetRunning())
	}
}

// Who asks may have read the app before it was moved. After the app was given its server again, that one is meant.
func TestDepart_whatIsAskedForThereLaterGoesOver(t *testing.T) {
	b := newBench(t)
	b.depart("default", "eu")
	b.push("e1", "a")
	if got := b.records[1].GetDeployment().GetServer(); got != "eu" || b.l.GetWaiting().GetServer() != "eu" {
		t.Fatalf("it waits for %s", got)
	}
	b.must(lane.Propose(b.l, b.ask("e2", "b", deployerv1.Deployment_PUSH).Candidate()))
	if lane.Decider(b.l) != "eu" {
		t.Fatalf("%s decides", lane.Decider(b.l))
	}
	b.must(lane.Move(b.l, "default"))
	b.push("e3", "c")
	if b.l.GetWaiting().GetServer() != "default" || lane.Decider(b.l) != "default" {
		t.Fatalf("%v", b.l)
	}
}

// Nothing takes the place of what was live: a newer push waits behind it, also where it fails for now, where pushes
// cancel what runs, and where the push is of the same commit.
func TestDepart_whatWasLiveGoesFirst(t *testing.T) {
	b := newBench(t)
	b.deploy("e1", "a")
	b.depart("default", "eu")
	b.claimOn("eu", 2)
	ask := b.ask("e2", "a", deployerv1.Deployment_PUSH)
	ask.CancelRunning = true
	if _, err := lane.Accept(b.l, ask); err != nil {
		t.Fatal(err)
	}
	b.flush()
	if lane.Wished(b.l, b.l.GetEpoch()) != nil {
		t.Fatal("what was live is cancelled for a push")
	}
	why := &deployerv1.DeploymentError{Reason: "BITBUCKET_UNAVAILABLE", Message: "down"}
	b.must(lane.RetryLater(b.l, b.l.GetEpoch(), why, b.now, lane.Result{Now: b.now, Remote: true}))
	b.want(2, deployerv1.Deployment_PENDING)
	if !lane.AwaitsBitbucket(b.l) {
		t.Fatal("nobody waits for Bitbucket")
	}
	b.must(lane.ReleaseRemote(b.l))
	if b.claimOn("eu", 3) != lane.Start || b.l.GetRunning().GetJob().GetNumber() != 2 {
		t.Fatalf("%v", b.l.GetRunning())
	}
	b.must(lane.Fail(b.l, b.l.GetEpoch(), deployerv1.Deployment_FAILED, why, lane.Result{Now: b.now}))
	// Although the commit counts as live, nothing is served: the push is deployed.
	if b.claimOn("eu", 4) != lane.Start || b.l.GetRunning().GetJob().GetNumber() != 3 {
		t.Fatalf("%v", b.l.GetRunning())
	}
	if by := b.fix("a"); by != 0 {
		t.Fatalf("superseded by %d, which nobody has", by)
	}
	b.complete()
	b.want(3, deployerv1.Deployment_COMPLETED)
}

// What a person chose stays chosen, a rollback whose release died deploys its commit, and a cancelled deployment
// ends.
func TestDepart_keepsWhatPeopleWished(t *testing.T) {
	b := newBench(t)
	b.deploy("e1", "a")
	b.deploy("e2", "b")
	back := b.ask("r", "a", deployerv1.Deployment_ROLLBACK)
	back.Directory, back.SourceNumber = "1", 1
	if _, err := lane.Accept(b.l, back); err != nil {
		t.Fatal(err)
	}
	b.flush()
	b.claim(3)
	b.must(lane.TakeRelease(b.l, b.l.GetEpoch()))
	b.must(lane.Complete(b.l, b.l.GetEpoch(), lane.Result{Now: b.now, Directory: "1", Retention: 5}))
	again := b.ask("r2", "b", deployerv1.Deployment_ROLLBACK)
	again.Directory, again.SourceNumber = "2", 2
	if _, err := lane.Accept(b.l, again); err != nil {
		t.Fatal(err)
	}
	b.flush()
	b.depart("default", "eu")
	if w := b.l.GetWaiting(); w.GetDirectory() != "" || !w.GetPinned() || w.GetHash() != "b" {
		t.Fatalf("the rollback: %v", w)
	}
	b.claimOn("eu", 5)
	b.fix("a")
	b.complete()
	if !b.l.GetLive().GetChosen() || lane.Origin(b.l) != 3 {
		t.Fatalf("%v", b.l.GetLive())
	}
	b.depart("eu", "us")
	b.must(lane.Cancel(b.l, b.l.GetAhead().GetNumber(), nil, b.now))
	b.want(6, deployerv1.Deployment_CANCELLED)
	b.claimOn("us", 6)
	if b.l.GetRunning().GetJob().GetNumber() != 4 {
		t.Fatalf("%v", b.l.GetRunning())
	}
	b.must(lane.Cancel(b.l, 4, nil, b.now))
	if got := b.depart("us", "eu"); got.TakenBack != 4 {
		t.Fatalf("%+v", got)
	}
	b.want(4, deployerv1.Deployment_CANCELLED)
	if lane.Upcoming(b.l) != nil || b.l.GetRunning() != nil {
		t.Fatalf("%v", b.l)
	}
}

// A push that failed for a reason outside its commit is still owed, although what was live got a newer number.
func TestDepart_whatIsOwedStaysOwed(t *testing.T) {
	b := newBench(t)
	b.deploy("e1", "a")
	b.push("e2", "b")
	b.depart("default", "eu")
	b.claimOn("eu", 3)
	b.fix("a")
	b.complete()
	b.claimOn("eu", 4)
	b.must(lane.Fail(b.l, b.l.GetEpoch(), deployerv1.Deployment_FAILED, &deployerv1.DeploymentError{Reason: "TIMEOUT"}, lane.Result{Now: b.now, Outside: true}))
	if b.l.GetOwed().GetJob().GetNumber() != 2 {
		t.Fatalf("owed: %v", b.l.GetOwed())
	}
}

func TestDepart_ofNothing(t *testing.T) {
	for name, l := range map[string]*storev1.Lane{"no lane": {}, "a deleted app": {Generation: 1, Retired: true}} {
		if _, err := lane.Depart(l, lane.Departure{From: "default", To: "eu"}); !errors.Is(err, lane.ErrSkip) {
			t.Errorf("%s: %v", name, err)
		}
		if lane.Concerns(l, "default") {
			t.Errorf("%s concerns a server", name)
		}
	}
}
