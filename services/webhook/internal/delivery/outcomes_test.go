package delivery

import (
	"fmt"
	"testing"
	"time"

	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// TestAdd_theEndOfADeploymentStays: outcomes come in any order and more than once.
func TestAdd_theEndOfADeploymentStays(t *testing.T) {
	t.Parallel()
	made := func(state, message string) *webhookv1.DeliveryOutcome {
		reason := ""
		if state == "FAILED" {
			reason = "HOOK_FAILED"
		}
		return &webhookv1.DeliveryOutcome{App: "web", Kind: webhookv1.DeliveryOutcome_DEPLOYMENT, Deployment: 6, DeploymentState: state, Reason: reason, Message: message}
	}
	for _, order := range [][]string{
		{"PENDING", "FAILED"}, {"FAILED", "PENDING"}, {"", "PENDING", "FAILED", "FAILED", "PENDING"}, {"", "FAILED", ""}, {"PENDING", "", "FAILED"},
	} {
		l := New(Config{Now: time.Now})
		d := &webhookv1.Delivery{Outcomes: []*webhookv1.DeliveryOutcome{{App: "api", Kind: webhookv1.DeliveryOutcome_IGNORED, Reason: "SKIP_PHRASE"}}}
		for i, state := range order {
			l.add(d, []*webhookv1.DeliveryOutcome{made(state, fmt.Sprint(i, state))})
		}
		if len(d.GetOutcomes()) != 2 || d.GetOutcomes()[1].GetDeploymentState() != "FAILED" || d.GetOutcomes()[1].GetTime() == nil {
			t.Errorf("%q: %v", order, d.GetOutcomes())
		}
		if l.add(d, []*webhookv1.DeliveryOutcome{made("FAILED", "again"), made("PENDING", "again")}) {
			t.Errorf("%q: changed by what was known", order)
		}
	}
	// As many as fit, and the ends of those all the same.
	l, d := New(Config{Now: time.Now}), &webhookv1.Delivery{}
	for n := range int32(maxOutcomes + 5) {
		l.add(d, []*webhookv1.DeliveryOutcome{{Kind: webhookv1.DeliveryOutcome_DEPLOYMENT, Deployment: n, DeploymentState: "PENDING"}})
	}
	l.add(d, []*webhookv1.DeliveryOutcome{{Kind: webhookv1.DeliveryOutcome_DEPLOYMENT, Deployment: 3, DeploymentState: "COMPLETED"}})
	if len(d.GetOutcomes()) != maxOutcomes || d.GetOutcomes()[3].GetDeploymentState() != "COMPLETED" {
		t.Errorf("%d outcomes, %v", len(d.GetOutcomes()), d.GetOutcomes()[3])
	}
}
