package webhook_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/testkit"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
	"devpilot.io/bitbucket/services/webhook"
)

// asAdmin calls Bitbucket's REST as an admin of the repository does with a client of their own.
func (s *stack) asAdmin(method, hookUUID string, body map[string]any) {
	s.t.Helper()
	pair, err := s.control.IssueTokens(s.background(), "jane-dev", "webhook", "repository", "account")
	if err != nil {
		s.t.Fatalf("issue tokens: %v", err)
	}
	address := s.bitbucket.APIURL() + "/repositories/" + fullName + "/hooks"
	if hookUUID != "" {
		address += "/" + url.PathEscape("{"+hookUUID+"}")
	}
	raw, err := json.Marshal(body)
	if err != nil {
		s.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(s.background(), method, address, bytes.NewReader(raw))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+pair.AccessToken)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		s.t.Fatalf("%s %s: %s", method, address, resp.Status)
	}
}

// edit changes fields of our hook; a PUT replaces all but the secret.
func (s *stack) edit(w *webhookv1.Webhook, change map[string]any) {
	s.t.Helper()
	body := map[string]any{"description": "edited", "url": w.GetUrl(), "active": true, "events": []string{"repo:push"}}
	for k, v := range change {
		body[k] = v
	}
	s.asAdmin(http.MethodPut, w.GetBitbucketUuid(), body)
}

// hookCalls counts the calls at the routes of webhooks by method.
func (s *stack) hookCalls() map[string]int {
	s.t.Helper()
	list, err := s.control.Requests(s.background(), 0, "")
	if err != nil {
		s.t.Fatalf("requests: %v", err)
	}
	n := map[string]int{}
	for _, r := range list {
		if strings.Contains(r.Route, "/hooks") {
			n[r.Method]++
		}
	}
	return n
}

// miss tells of a push that polling found although its delivery should have come.
func (r *replica) miss(key string) {
	r.t.Helper()
	r.record(outcomeOf(foundPush(key, time.Now()), "app-main", "PENDING"))
}

func inHealth(want webhookv1.Webhook_Health) func(*webhookv1.Webhook) error {
	return func(w *webhookv1.Webhook) error {
		if w.GetHealth() != want {
			return fmt.Errorf("health %v (%s) in state %v (%s), want %v", w.GetHealth(), w.GetHealthMessage(), w.GetState(), w.GetMessage(), want)
		}
		return nil
	}
}

// repairs is how a repair is told.
var repairs = map[webhookv1.Webhook_Health]string{
	webhookv1.Webhook_DELETED: "it was deleted", webhookv1.Webhook_URL_CHANGED: "its URL was changed", webhookv1.Webhook_EVENTS_CHANGED: "its triggers were changed",
	webhookv1.Webhook_SECRET_CHANGED: "its secret was removed", webhookv1.Webhook_INACTIVE: "it was switched off",
}

func wasRepaired(what webhookv1.Webhook_Health) func(*webhookv1.Webhook) error {
	return func(w *webhookv1.Webhook) error {
		if !strings.Contains(w.GetLastRepair(), repairs[what]) || w.GetLastRepairTime() == nil {
			return fmt.Errorf("repaired %q at %v, want %v; health %v", w.GetLastRepair(), w.GetLastRepairTime(), what, w.GetHealth())
		}
		return inHealth(webhookv1.Webhook_REGISTERED)(w)
	}
}

// doubting is a stack whose doubts are looked into at once.
func doubting(t *testing.T) (*stack, *replica, *webhookv1.Webhook) {
	t.Helper()
	return doubtingEvery(t, time.Millisecond)
}

// doubtingEvery is one whose doubts are looked into at once, and again after a pause.
func doubtingEvery(t *testing.T, pause time.Duration) (*stack, *replica, *webhookv1.Webhook) {
	t.Helper()
	s := newStack(t)
	s.config = func(c *webhook.Config) { c.Timing.Suspect = pause }
	s.auth.connect("c1")
	r := s.start()
	w := r.watch(fullName, web, "main")
	if err := inHealth(webhookv1.Webhook_REGISTERED)(w); err != nil {
		t.Fatal(err)
	}
	return s, r, w
}

// TestHealth_aMissedPushHasTheHookComparedAndRepaired: what a person with the right can change about the
// hook at Bitbucket, found by the push that came without a delivery, not days later.
func TestHealth_aMissedPushHasTheHookComparedAndRepaired(t *testing.T) {
	for what, change := range map[webhookv1.Webhook_Health]func(s *stack, w *webhookv1.Webhook){
		webhookv1.Webhook_DELETED:        func(s *stack, w *webhookv1.Webhook) { s.asAdmin(http.MethodDelete, w.GetBitbucketUuid(), nil) },
		webhookv1.Webhook_URL_CHANGED:    func(s *stack, w *webhookv1.Webhook) { s.edit(w, map[string]any{"url": s.publicURL + "/elsewhere"}) },
		webhookv1.Webhook_EVENTS_CHANGED: func(s *stack, w *webhookv1.Webhook) { s.edit(w, map[string]any{"events": []string{"repo:fork"}}) },
		webhookv1.Webhook_SECRET_CHANGED: func(s *stack, w *webhookv1.Webhook) { s.edit(w, map[string]any{"secret": nil}) },
	} {
		t.Run(what.String(), func(t *testing.T) {
			s, r, w := doubting(t)
			other := s.addHook(emulator.Hook{URL: "https://ci.example.com/hook"})
			change(s, w)
			r.miss("one")
			w = r.eventually(w.GetId(), wasRepaired(what))
			if w.GetState() != webhookv1.Webhook_ACTIVE || w.GetFoundPushes() != 1 || w.GetLastFoundTime() == nil {
				t.Errorf("webhook %v", w)
			}
			s.wantHooks(fullName, w.GetUrl(), 1)
			for _, h := range s.hooks(fullName) {
				if h.UUID != w.GetBitbucketUuid() && (h.UUID != other.UUID || h.URL != other.URL) {
					t.Errorf("another's hook became %+v", h)
				}
			}
			if _, err := s.control.Commit(s.background(), fullName, "main", "Change", map[string]string{"a": "b"}); err != nil {
				t.Fatal(err)
			}
			r.eventually(w.GetId(), func(w *webhookv1.Webhook) error {
				if w.GetLastVerifiedTime() == nil {
					return fmt.Errorf("no delivery came")
				}
				return nil
			})
		})
	}
}

// TestHealth_aPushFoundAtAReconnectHasTheHookCompared: it may have come after deliveries were taken again, and
// without one. It is not counted with those whose delivery did not come.
func TestHealth_aPushFoundAtAReconnectHasTheHookCompared(t *testing.T) {
	s, r, w := doubting(t)
	s.edit(w, map[string]any{"active": false})
	f := foundPush("one", time.Now())
	f.Found = webhookv1.Delivery_RESUMED
	r.record(outcomeOf(f, "app-main", "PENDING"))
	w = r.eventually(w.GetId(), inHealth(webhookv1.Webhook_INACTIVE))
	if w.GetFoundPushes() != 0 || w.GetLastFoundTime() != nil {
		t.Errorf("webhook %v", w)
	}
}

// TestHealth_aDeactivatedHookIsLeftSoUntilAPersonSays, also by a rotation and a change of the watches.
func TestHealth_aDeactivatedHookIsLeftSoUntilAPersonSays(t *testing.T) {
	s, r, w := doubting(t)
	s.edit(w, map[string]any{"active": false})
	r.miss("one")
	w = r.eventually(w.GetId(), inHealth(webhookv1.Webhook_INACTIVE))
	if w.GetState() != webhookv1.Webhook_DRIFTED || w.GetReason() != "WEBHOOK_DEACTIVATED" || !strings.Contains(w.GetHealthMessage(), "press Repair") {
		t.Errorf("webhook %v", w)
	}
	if _, err := r.people.RotateWebhookSecret(r.admin(), &webhookv1.RotateWebhookSecretRequest{Workspace: workspace, Webhook: w.GetId()}); err != nil {
		t.Fatal(err)
	}
	s.auth.connect("c2")
	if h := s.hooks(fullName); len(h) != 1 || h[0].Active {
		t.Fatalf("hooks %+v", h)
	}
	resp, err := r.people.RepairWebhook(r.admin(), &webhookv1.RepairWebhookRequest{Workspace: workspace, Webhook: w.GetId()})
	if err != nil {
		t.Fatal(err)
	}
	if err := wasRepaired(webhookv1.Webhook_INACTIVE)(resp.GetWebhook()); err != nil {
		t.Error(err)
	}
	s.wantHooks(fullName, w.GetUrl(), 1)
}

// TestHealth_saysWhyItCannotBeRepaired.
func TestHealth_saysWhyItCannotBeRepaired(t *testing.T) {
	t.Run("not admin any more", func(t *testing.T) {
		s, r, w := doubting(t)
		s.permission("write")
		r.miss("one")
		w = r.eventually(w.GetId(), inHealth(webhookv1.Webhook_NOT_ADMIN))
		if !strings.Contains(w.GetHealthMessage(), "not an admin of acme/web") || w.GetRetryTime() == nil {
			t.Errorf("webhook %v", w)
		}
		s.permission("admin")
		if _, err := r.people.RepairWebhook(r.admin(), &webhookv1.RepairWebhookRequest{Workspace: workspace, Webhook: w.GetId()}); err != nil {
			t.Fatal(err)
		}
		r.eventually(w.GetId(), func(w *webhookv1.Webhook) error {
			if h := w.GetHealth(); h != webhookv1.Webhook_DELIVERIES_MISSING && h != webhookv1.Webhook_REGISTERED {
				return inHealth(webhookv1.Webhook_REGISTERED)(w)
			}
			return nil
		})
	})
	t.Run("limit of webhooks", func(t *testing.T) {
		s, r, w := doubting(t)
		s.asAdmin(http.MethodDelete, w.GetBitbucketUuid(), nil)
		s.addHook(emulator.Hook{URL: "https://ci.example.com/hook"})
		if err := s.control.Switch(s.background(), func(c *emulator.Switches) { c.MaxHooks = 1 }); err != nil {
			t.Fatal(err)
		}
		r.miss("one")
		w = r.eventually(w.GetId(), inHealth(webhookv1.Webhook_LIMIT_REACHED))
		if w.GetState() != webhookv1.Webhook_DRIFTED || !strings.Contains(w.GetHealthMessage(), "as many webhooks as Bitbucket allows") {
			t.Errorf("webhook %v", w)
		}
	})
}

// TestHealth_lostDeliveriesAreSaidUntilOneComes although Bitbucket has all as it should be, and cost few
// calls however many are lost.
func TestHealth_lostDeliveriesAreSaidUntilOneComes(t *testing.T) {
	s := newStack(t)
	s.auth.connect("c1")
	r := s.start()
	w := r.watch(fullName, web, "main")
	before := s.hookCalls()
	for i := range 30 {
		r.miss(fmt.Sprint(i))
	}
	w = r.eventually(w.GetId(), inHealth(webhookv1.Webhook_DELIVERIES_MISSING))
	if w.GetFoundPushes() != 30 || !strings.Contains(w.GetHealthMessage(), "without a delivery") {
		t.Errorf("webhook %v", w)
	}
	if after := s.hookCalls(); after["GET"] > before["GET"]+1 || after["PUT"] != before["PUT"] {
		t.Errorf("calls %v after %v", after, before)
	}
	if _, err := s.control.Commit(s.background(), fullName, "main", "Change", map[string]string{"a": "b"}); err != nil {
		t.Fatal(err)
	}
	r.eventually(w.GetId(), inHealth(webhookv1.Webhook_REGISTERED))
}

// TestHealth_anotherSecretIsSaidAndWrittenAgain: it shows in nothing but refused signatures. However many
// there are, they cause one write until the pause is over, and what is refused meanwhile is said.
func TestHealth_anotherSecretIsSaidAndWrittenAgain(t *testing.T) {
	s, r, w := doubtingEvery(t, time.Hour)
	before := s.hookCalls()
	s.edit(w, map[string]any{"secret": "of somebody else"})
	if _, err := s.control.Commit(s.background(), fullName, "main", "Change", map[string]string{"a": "b"}); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, timeout, func() error {
		if n := s.hookCalls()["PUT"] - before["PUT"]; n != 2 {
			return fmt.Errorf("%d writes; one is the admin's", n)
		}
		return nil
	})
	if _, err := s.control.Commit(s.background(), fullName, "main", "Change", map[string]string{"a": "c"}); err != nil {
		t.Fatal(err)
	}
	r.await(w.GetId(), 1)
	r.eventually(w.GetId(), inHealth(webhookv1.Webhook_REGISTERED))
	for i := range 50 {
		s.post(post{url: w.GetUrl(), secret: "another", body: pushBody("main", hash(i))})
	}
	w = r.eventually(w.GetId(), inHealth(webhookv1.Webhook_SECRET_CHANGED))
	if !strings.Contains(w.GetHealthMessage(), "wrong signature") || w.GetHealthTime() == nil {
		t.Errorf("webhook %v", w)
	}
	after := s.hookCalls()
	if puts := after["PUT"] - before["PUT"]; puts != 2 || after["GET"]-before["GET"] > 1 || after["POST"] != before["POST"] {
		t.Errorf("calls %v after %v", after, before)
	}
}

// TestRotate_byAge: an old secret is replaced by itself, and accepted beside the new one.
func TestRotate_byAge(t *testing.T) {
	s := newStack(t)
	s.auth.connect("c1")
	s.config = func(c *webhook.Config) { c.Timing.SecretAge, c.Timing.Sweep = time.Millisecond, 20*time.Millisecond }
	r := s.start()
	w := r.watch(fullName, web, "main")
	w = r.eventually(w.GetId(), func(w *webhookv1.Webhook) error {
		if w.GetOldSecretExpireTime() == nil {
			return fmt.Errorf("not rotated")
		}
		return nil
	})
	if left := time.Until(w.GetOldSecretExpireTime().AsTime()); left < 23*time.Hour {
		t.Errorf("the old secret is accepted for %v more", left)
	}
	if _, err := s.control.Commit(s.background(), fullName, "main", "Change", map[string]string{"a": "b"}); err != nil {
		t.Fatal(err)
	}
	if d := r.await(w.GetId(), 1)[0]; d.GetAnswerStatus() != 202 {
		t.Errorf("delivery %v", d)
	}
	// Not again while the old one is accepted.
	if n := s.hookCalls()["PUT"]; n != 1 {
		t.Errorf("%d writes", n)
	}
}

// TestPublicURL_movedHooksLeaveNoneBehind: extras with the old address go, others' hooks stay.
func TestPublicURL_movedHooksLeaveNoneBehind(t *testing.T) {
	s := newStack(t)
	s.auth.connect("c1")
	s.publicURL = "https://old.example.com"
	r := s.start()
	w := r.watch(fullName, web, "main")
	s.addHook(emulator.Hook{URL: w.GetUrl()})
	others := s.addHook(emulator.Hook{URL: "https://old.example.com/webhooks/bitbucket/others"})
	r.stop()
	s.publicURL = s.front.URL
	r = s.start()
	moved := r.eventually(w.GetId(), func(w *webhookv1.Webhook) error {
		if hooks := s.hooks(fullName); len(hooks) != 2 {
			return fmt.Errorf("%d hooks", len(hooks))
		}
		return inHealth(webhookv1.Webhook_REGISTERED)(w)
	})
	s.wantHooks(fullName, moved.GetUrl(), 1)
	s.wantHooks(fullName, w.GetUrl(), 0)
	s.wantHooks(fullName, others.URL, 1)
	if _, err := r.people.ListWebhooks(r.as(identity.RoleMember), &webhookv1.ListWebhooksRequest{Workspace: workspace}); err != nil {
		t.Error(err)
	}
}
