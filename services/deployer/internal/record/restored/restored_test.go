package restored_test

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	"devpilot.io/bitbucket/services/deployer/internal/record/restored"
	"devpilot.io/bitbucket/services/deployer/internal/record/store"
)

// What records say beyond their lanes is undone, so that the lanes do it again; all else stays, and fences are raised.
func TestSettle_recordsNewerThanTheirLanes(t *testing.T) {
	t.Parallel()
	st, err := store.Open(t.Context(), kv.NewSession(testkit.JS(t), stream.Settings{}), logs.Discard())
	if err != nil {
		t.Fatal(err)
	}
	lane := &storev1.Lane{
		Generation: 2, LastNumber: 3, OutboxSeq: 10, Epoch: 7,
		Running: &storev1.Running{Job: &storev1.Job{Number: 2}, Epoch: 7, Wake: 99}, Waiting: &storev1.Job{Number: 3},
	}
	if _, err := st.Lanes.Create(t.Context(), "ws.web", lane); err != nil {
		t.Fatal(err)
	}
	if _, err := st.Servers.Create(t.Context(), "default", &storev1.Server{Id: "default", DataDirectory: "d"}); err != nil {
		t.Fatal(err)
	}
	put := func(app string, number int32, generation, applied int64, state deployerv1.Deployment_State) {
		d := &storev1.Deployment{Generation: generation, AppliedSeq: applied, Deployment: &deployerv1.Deployment{Number: number, State: state, EndTime: timestamppb.Now()}}
		if _, err := st.Deployments.Create(t.Context(), fmt.Sprintf("ws.%s.%d", app, number), d); err != nil {
			t.Fatal(err)
		}
	}
	put("web", 1, 2, 4, deployerv1.Deployment_COMPLETED)
	put("web", 2, 2, 12, deployerv1.Deployment_COMPLETED) // the lane still runs it
	put("web", 3, 2, 11, deployerv1.Deployment_SUPERSEDED)
	put("web", 4, 2, 13, deployerv1.Deployment_PENDING) // the lane does not know it
	put("web", 5, 1, 3, deployerv1.Deployment_FAILED)   // of the app before
	put("new", 1, 1, 1, deployerv1.Deployment_PENDING)  // without a lane
	for round, undone := range []int{4, 0} {            // the second time as after a death
		settled, err := restored.Settle(t.Context(), st)
		if err != nil || settled.Lanes != 1 || settled.Undone != undone {
			t.Fatalf("%d: %+v, %v", round, settled, err)
		}
	}
	for key, want := range map[string]deployerv1.Deployment_State{
		"web.1": deployerv1.Deployment_COMPLETED, "web.2": deployerv1.Deployment_PROCESSING, "web.3": deployerv1.Deployment_PENDING, "web.5": deployerv1.Deployment_FAILED, "web.4": 0, "new.1": 0,
	} {
		d, _, err := st.Deployments.Get(t.Context(), "ws."+key)
		if gone := err != nil; gone != (want == 0) || !gone && (d.GetDeployment().GetState() != want || d.GetAppliedSeq() > lane.OutboxSeq) {
			t.Errorf("%s: %v, %v", key, d, err)
		}
	}
	l, _, err := st.Lanes.Get(t.Context(), "ws.web")
	if err != nil || l.GetEpoch() <= lane.Epoch || l.GetRunning().GetWake() != 0 || l.GetLastNumber() != 3 {
		t.Errorf("the lane: %v, %v", l, err)
	}
	if s, _, err := st.Servers.Get(t.Context(), "default"); err != nil || !s.GetRestored() || s.GetDataDirectory() != "d" {
		t.Errorf("the server: %v, %v", s, err)
	}
}
