package app

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/deployer/internal/record/apps"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
	"devpilot.io/bitbucket/services/deployer/internal/record/store"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// laterLanes has the lane as it is when it is read a second time.
type laterLanes struct{ *storev1.Lane }

func (l laterLanes) Get(context.Context, string) (*storev1.Lane, uint64, error) {
	return proto.CloneOf(l.Lane), 1, nil
}

func (laterLanes) Create(context.Context, string, *storev1.Lane, ...kv.CreateOption) (uint64, error) {
	return 0, errors.ErrUnsupported
}

func (laterLanes) CompareAndSet(context.Context, string, *storev1.Lane, uint64) (uint64, error) {
	return 0, errors.ErrUnsupported
}

// A run ends, and its record is written, between the reads of the lane and of the record: whoever
// sees that it is COMPLETED also sees that it is live.
func TestDeployment_thatEndsWhileItIsReadIsSeenWhole(t *testing.T) {
	s, err := store.Open(t.Context(), testkit.JS(t), testkit.Logger(t).Logger)
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
	if _, err := s.Lanes.Create(t.Context(), k.String(), running); err != nil {
		t.Fatal(err)
	}
	app := New(Config{Records: &apps.Records{Store: s}, Store: s, Copies: store.NewCopies(s, nil), Dispatcher: &lane.Dispatcher{Lanes: laterLanes{ended}}, Now: time.Now})
	d, err := app.Deployment(t.Context(), k, 7)
	if err != nil || !d.GetLive() || !d.GetReleaseKept() {
		t.Errorf("%v, %v", d, err)
	}
}
