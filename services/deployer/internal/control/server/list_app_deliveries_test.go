package server

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

func TestOutcomesFor_everyChangeThatWasDecidedHasOne(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	a := &storev1.App{Id: "web", Branch: "release/*", Rules: &deployerv1.AppRules{Tags: []string{"v*"}}}
	change := func(ref string, kind webhookv1.DeliveryChange_RefType) *webhookv1.DeliveryChange {
		return &webhookv1.DeliveryChange{Ref: ref, RefType: kind}
	}
	other := func(change int32, age time.Duration) *webhookv1.DeliveryOutcome {
		return &webhookv1.DeliveryOutcome{Change: change, App: "api", Kind: webhookv1.DeliveryOutcome_DEPLOYMENT, Deployment: 4, Time: timestamppb.New(now.Add(-age))}
	}
	d := &webhookv1.Delivery{
		Changes: []*webhookv1.DeliveryChange{
			0: change("dev", webhookv1.DeliveryChange_BRANCH),
			1: change("release/1", webhookv1.DeliveryChange_BRANCH),
			2: change("release/2", webhookv1.DeliveryChange_BRANCH),
			3: change("release/3", webhookv1.DeliveryChange_BRANCH),
			4: change("nightly", webhookv1.DeliveryChange_TAG),
			5: change("other", webhookv1.DeliveryChange_BRANCH),
			6: change("gone", webhookv1.DeliveryChange_BRANCH),
		},
		Outcomes: []*webhookv1.DeliveryOutcome{
			other(0, 0), other(1, 0), {Change: 1, App: "web", Message: "its own"}, other(2, 2*time.Minute), other(3, time.Second), other(4, 0),
			{Change: 5, Message: "for nobody"},
		},
	}
	got := map[int32]string{}
	for _, o := range outcomesFor(a, d, now) {
		if _, twice := got[o.GetChange()]; twice || o.GetApp() != "web" && o.GetApp() != "" {
			t.Errorf("%v", o)
		}
		got[o.GetChange()] = o.GetReason() + ": " + o.GetMessage()
	}
	for change, want := range map[int32]string{
		0: "BRANCH_NOT_WATCHED: Branch dev is not watched by web",
		1: ": its own",
		2: "BRANCH_NOT_WATCHED: Branch release/2 was not watched by web when it was pushed",
		3: "", // being decided
		4: "TAG_NOT_WATCHED: Tag nightly is not watched by web",
		5: ": for nobody",
		6: "",
	} {
		if got[change] != want {
			t.Errorf("change %d: %q, want %q", change, got[change], want)
		}
	}
}
