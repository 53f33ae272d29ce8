package lane_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"devpilot.io/bitbucket/services/deployer/internal/record/lane"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

func candidateOf(event string, received int64) *storev1.Candidate {
	return lane.Request{
		Event: event, ReceiveTime: time.Unix(received, 0), Trigger: deployerv1.Deployment_PUSH, Repository: "r", Branch: "main", Server: "one",
		Commit: &deployerv1.DeploymentCommit{Hash: event}, Askers: []*storev1.Asker{{Webhook: "w", Delivery: int32(received)}},
	}.Candidate()
}

func TestPropose_inTheOrderOfReceiptAndEachOnce(t *testing.T) {
	l := &storev1.Lane{}
	lane.Begin(l)
	for _, c := range []*storev1.Candidate{candidateOf("a", 1), candidateOf("c", 3), candidateOf("b", 2)} {
		if err := lane.Propose(l, c); err != nil {
			t.Fatal(err)
		}
	}
	if err := lane.Propose(l, candidateOf("b", 2)); !errors.Is(err, lane.ErrSkip) {
		t.Errorf("twice: %v", err)
	}
	if !lane.HasWork(l) || lane.Decider(l) != "one" {
		t.Errorf("nobody is woken for %v", l)
	}
	if err := lane.Move(l, "two"); err != nil || lane.Decider(l) != "two" {
		t.Errorf("moved to %q: %v", lane.Decider(l), err)
	}
	for _, want := range []string{"a", "b", "c"} {
		first := l.GetCandidates()[0]
		if _, err := lane.Take(l, first.GetSeq()+100); !errors.Is(err, lane.ErrLost) {
			t.Errorf("another one is taken: %v", err)
		}
		if c, err := lane.Take(l, first.GetSeq()); err != nil || c.GetEvent() != want {
			t.Errorf("took %v (%v), want %s", c, err, want)
		}
	}
	for i := range lane.MaxCandidates {
		if err := lane.Propose(l, candidateOf(fmt.Sprint(i), int64(10+i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := lane.Propose(l, candidateOf("more", 1000)); !errors.Is(err, lane.ErrFull) {
		t.Errorf("without a bound: %v", err)
	}
	// The app goes: all who wait are to hear of it.
	if err := lane.Retire(l, l.GetGeneration(), 0); err != nil {
		t.Fatal(err)
	}
	if n := len(l.GetRemains()[0].GetCutShort()); lane.Undecided(l) || n != lane.MaxCandidates {
		t.Errorf("%d hear of it", n)
	}
}

// What a person named goes live instead of pushes that still wait for a decision; the latest commit does not.
func TestAccept_whatAPersonNamedOvertakesUndecidedPushes(t *testing.T) {
	for _, pinned := range []bool{true, false} {
		l := &storev1.Lane{}
		lane.Begin(l)
		if err := lane.Propose(l, candidateOf("a", 1)); err != nil {
			t.Fatal(err)
		}
		d, err := lane.Accept(l, lane.Request{
			Event: "named", ReceiveTime: time.Unix(2, 0), Now: time.Unix(2, 0), Trigger: deployerv1.Deployment_MANUAL, Repository: "r", Branch: "main", Server: "one",
			Commit: &deployerv1.DeploymentCommit{Hash: "older"}, Pinned: pinned,
		})
		if err != nil {
			t.Fatal(err)
		}
		want := int32(0)
		if pinned {
			want = d.Number
		}
		if got := l.GetCandidates()[0].GetOvertakenBy(); got != want {
			t.Errorf("pinned %t: overtaken by #%d, want #%d", pinned, got, want)
		}
		if made := l.GetOutbox()[0].GetCreated().GetDeployment(); made.GetChosen() != pinned || l.GetWaiting().GetPinned() != pinned {
			t.Errorf("pinned %t: %v", pinned, made)
		}
	}
}
