package lane_test

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/services/deployer/internal/record/lane"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

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
