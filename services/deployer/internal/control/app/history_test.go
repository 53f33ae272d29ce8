package app

import (
	"context"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/deployer/internal/record/apps"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
	"devpilot.io/bitbucket/services/deployer/internal/record/store"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// readLanes returns one lane after the other, and the last one from then on.
type readLanes struct {
	lane.Lanes
	reads []*storev1.Lane
}

func (r *readLanes) Get(context.Context, string) (*storev1.Lane, uint64, error) {
	l := r.reads[0]
	if len(r.reads) > 1 {
		r.reads = r.reads[1:]
	}
	return proto.CloneOf(l), 1, nil
}

// A run ends, and its record is written, between the reads of the lane and of the record: whoever
// sees that it is COMPLETED also sees that it is live.
func TestDeployment_thatEndsWhileItIsReadIsSeenWhole(t *testing.T) {
	s, err := store.Open(t.Context(), testkit.JS(t), 1, testkit.Logger(t).Logger)
	if err != nil {
		t.Fatal(err)
	}
	k := lane.Key{Workspace: "acme-inc", App: "web"}
	if _, err := s.Apps.Create(t.Context(), k.String(), &storev1.App{Workspace: k.Workspace, Id: k.App, Generation: 1}); err != nil {
		t.Fatal(err)
	}
	rec := &storev1.Deployment{Generation: 1, Deployment: &deployerv1.Deployment{Number: 7, State: deployerv1.Deployment_COMPLETED}}
	if _, err := s.Deployments.Create(t.Context(), k.Record(7), rec); err != nil {
		t.Fatal(err)
	}
	running := &storev1.Lane{Generation: 1, LastNumber: 7, Live: &storev1.Live{Number: 6}, Running: &storev1.Running{Job: &storev1.Job{Number: 7}}}
	ended := &storev1.Lane{Generation: 1, LastNumber: 7, Live: &storev1.Live{Number: 7}, Kept: []*storev1.Kept{{Number: 7}}}
	app := New(Config{Records: &apps.Records{Store: s}, Store: s, Keeper: &lane.Keeper{Lanes: &readLanes{reads: []*storev1.Lane{running, ended}}}, Now: time.Now})
	d, err := app.Deployment(t.Context(), k, 7)
	if err != nil || !d.GetLive() || !d.GetReleaseKept() {
		t.Errorf("%v, %v", d, err)
	}
}
