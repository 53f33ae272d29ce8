package reconcile

import (
	"strings"
	"testing"
	"time"

	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
	"devpilot.io/bitbucket/services/deployer/internal/record/rules"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

// TestFound_isInTheDecision: what comes of a push that was found stands in the lane with the decision, so
// that it is told whoever dies after it, and the same push has one key for all apps and polls.
func TestFound_isInTheDecision(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	r := New(Config{Now: func() time.Time { return now }})
	hash := strings.Repeat("ab", 20)
	c := change{ref: lane.Branch("main"), old: strings.Repeat("cd", 20), new: hash}
	since := map[string]time.Time{missingKey(&storev1.Missing{Branch: "main", Hash: hash}): now.Add(-time.Minute)}
	poll := &polling{state: &storev1.Reconciliation{}, since: since, time: now, hook: &storev1.WebhookView{State: "ACTIVE"}}
	decide := func(app string, v rules.Verdict) (*storev1.Lane, decision) {
		s := seen{key: lane.Key{Workspace: "acme", App: app}, app: &storev1.App{Id: app, Repository: "r", Branch: "main", AutoDeploy: true}}
		l := &storev1.Lane{}
		lane.Begin(l)
		d := decision{change: c, ask: r.ask(s, c, poll), verdict: v}
		if err := (&tally{}).one(s, l, d); err != nil {
			t.Fatal(err)
		}
		return l, d
	}
	told := func(l *storev1.Lane) *storev1.Decided {
		for _, c := range l.GetOutbox() {
			if d := c.GetDecided(); d != nil {
				return d
			}
		}
		return nil
	}
	deployed, one := decide("web", rules.Verdict{Deploys: true})
	turned, two := decide("api", rules.Verdict{Reason: "SKIP_PHRASE", Message: "skipped."})
	if d := told(deployed); d.GetNumber() != 1 || len(d.GetAskers()) != 1 || d.GetAskers()[0].GetFound() == nil || d.GetTime() == nil {
		t.Errorf("deployed: %v", d)
	}
	if d := told(turned); d.GetReason() != "SKIP_PHRASE" || len(d.GetAskers()) != 1 {
		t.Errorf("turned away: %v", d)
	}
	poll.time = now.Add(time.Second) // the next poll, of an app whose lane had moved
	_, three := decide("late", rules.Verdict{Deploys: true})
	key := one.ask.Askers[0].GetFound().GetKey()
	if key == "" || two.ask.Askers[0].GetFound().GetKey() != key || three.ask.Askers[0].GetFound().GetKey() != key {
		t.Error("apps speak of different pushes")
	}
	// A delivery that listed no changes made us poll: it hears, and nothing was found without one.
	poll.state.Asks = []*storev1.Ask{{Webhook: "w", Delivery: 3}}
	l, asked := decide("asked", rules.Verdict{Deploys: true})
	if told(l) != nil || len(asked.ask.Askers) != 1 || asked.ask.Askers[0].GetFound() != nil {
		t.Errorf("asked for by a delivery: %v, %v", told(l), asked.ask.Askers)
	}
}

// TestFound_ofSeveralPollsIsOnePush: an app that decides in a later poll, when no delivery is waited for,
// speaks of the push that another app decided about before; a branch that moved and came back was pushed anew.
func TestFound_ofSeveralPollsIsOnePush(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	r := New(Config{Now: func() time.Time { return now }})
	state := &storev1.Reconciliation{}
	key := func(app, at string, heads map[string]string) string {
		t.Helper()
		now = now.Add(time.Second)
		poll := &polling{state: state, time: now, found: remote.Heads{Branches: heads}}
		poll.forget()
		s := seen{key: lane.Key{Workspace: "acme", App: app}, app: &storev1.App{Id: app, Repository: "r", Branch: "main", AutoDeploy: true}}
		return r.finder(s, change{ref: lane.Branch("main"), old: "a", new: at}, poll).GetFound().GetKey()
	}
	first := key("web", "b", map[string]string{"main": "b"})
	if late := key("api", "b", map[string]string{"main": "b"}); late != first {
		t.Errorf("two pushes: %q and %q", first, late)
	}
	if other := key("web", "c", map[string]string{"main": "c"}); other == first {
		t.Error("another commit is the same push")
	}
	if back := key("web", "b", map[string]string{"main": "b"}); back == first {
		t.Error("a branch that came back is the same push")
	}
	now = now.Add(2 * foundFor)
	key("web", "d", map[string]string{"main": "d"})
	if len(state.GetFound()) != 1 {
		t.Errorf("kept: %v", state.GetFound())
	}
}
