package delivery

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

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

// TestAdd_decidingNeverReplacesAFinalOutcome: that a decision is still to come is said before it, and
// may be heard after it.
func TestAdd_decidingNeverReplacesAFinalOutcome(t *testing.T) {
	t.Parallel()
	at := func(seconds int64, o *webhookv1.DeliveryOutcome) *webhookv1.DeliveryOutcome {
		o.Time = timestamppb.New(time.Unix(seconds, 0))
		return o
	}
	deciding := func(seconds int64, reason string) *webhookv1.DeliveryOutcome {
		return at(seconds, &webhookv1.DeliveryOutcome{App: "web", Change: 1, Kind: webhookv1.DeliveryOutcome_DECIDING, Reason: reason})
	}
	for name, final := range map[string]func() *webhookv1.DeliveryOutcome{
		"deployed": func() *webhookv1.DeliveryOutcome {
			return at(5, &webhookv1.DeliveryOutcome{App: "web", Change: 1, Kind: webhookv1.DeliveryOutcome_DEPLOYMENT, Deployment: 6, DeploymentState: "PENDING"})
		},
		"turned away": func() *webhookv1.DeliveryOutcome {
			return at(5, &webhookv1.DeliveryOutcome{App: "web", Change: 1, Kind: webhookv1.DeliveryOutcome_IGNORED, Reason: "PATHS_NOT_CHANGED"})
		},
	} {
		l, d := New(Config{Now: time.Now}), &webhookv1.Delivery{}
		one := func(o *webhookv1.DeliveryOutcome) bool { return l.add(d, []*webhookv1.DeliveryOutcome{o}) }
		// Others' decisions stay as they are: of another change, and of another app.
		others := []*webhookv1.DeliveryOutcome{
			{App: "web", Change: 2, Kind: webhookv1.DeliveryOutcome_DECIDING, Reason: "DECIDING"},
			{App: "api", Change: 1, Kind: webhookv1.DeliveryOutcome_DECIDING, Reason: "DECIDING"},
		}
		l.add(d, others)
		only := func(step string, want *webhookv1.DeliveryOutcome) {
			t.Helper()
			if out := d.GetOutcomes(); len(out) != 3 || !slices.ContainsFunc(out, func(o *webhookv1.DeliveryOutcome) bool { return proto.Equal(o, want) }) {
				t.Errorf("%s, %s: %v", name, step, out)
			}
		}
		// Of two that say so the newer stays, whichever comes first.
		if !one(deciding(2, "first")) || !one(deciding(3, "second")) || one(deciding(1, "late")) {
			t.Errorf("%s: of what is being decided the newest does not stay", name)
		}
		only("undecided", deciding(3, "second"))
		if !one(final()) {
			t.Errorf("%s: not noted", name)
		}
		only("decided", final())
		for _, late := range []int64{4, 5, 6} { // clocks differ: also one that seems to be later
			if one(deciding(late, "DECIDING")) {
				t.Errorf("%s: an outcome DECIDING of second %d changed it", name, late)
			}
		}
		only("told late", final())
	}
	// Heard in one go, the decision first.
	l, d := New(Config{Now: time.Now}), &webhookv1.Delivery{}
	l.add(d, []*webhookv1.DeliveryOutcome{{App: "web", Kind: webhookv1.DeliveryOutcome_IGNORED, Reason: "SKIP_PHRASE"}, {App: "web", Kind: webhookv1.DeliveryOutcome_DECIDING, Reason: "DECIDING"}})
	if len(d.GetOutcomes()) != 1 || d.GetOutcomes()[0].GetKind() != webhookv1.DeliveryOutcome_IGNORED {
		t.Errorf("in one go: %v", d.GetOutcomes())
	}
}
