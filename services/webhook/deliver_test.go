package webhook_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/pkg/testkit"
	eventsv1 "devpilot.io/bitbucket/proto/gen/devpilot/events/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
	"devpilot.io/bitbucket/services/webhook"
)

// ready is a stack with one replica and a webhook on acme/web.
func ready(t *testing.T) (*replica, *webhookv1.Webhook, string) {
	t.Helper()
	s := newStack(t)
	s.auth.connect("c1")
	r := s.start()
	w := r.watch(fullName, web, "main", "staging")
	return r, w, r.secret(w.GetId())
}

// wantEvents waits until the stream of pushes holds n events and returns them.
func (s *stack) wantEvents(n int) []*eventsv1.PushEvent {
	s.t.Helper()
	var events []*eventsv1.PushEvent
	testkit.Eventually(s.t, timeout, func() error {
		if events = s.pushEvents(); len(events) != n {
			return fmt.Errorf("%d push events, want %d: %v", len(events), n, events)
		}
		return nil
	})
	return events
}

func TestDelivery_everyChangeOfAPushCounts(t *testing.T) {
	r, w, _ := ready(t)
	before, err := r.control.Refs(r.background(), fullName)
	if err != nil {
		t.Fatal(err)
	}
	commit := []emulator.CommitSpec{{Message: "Change\n\nwith a body", AuthorName: "Jane Developer", AuthorEmail: "jane@example.test"}}
	results, err := r.control.Push(r.background(), fullName, "",
		emulator.RefChange{Branch: "main", Commits: commit},
		emulator.RefChange{Branch: "release/1.0", Orphan: true, Commits: commit}, // forced
		emulator.RefChange{Branch: "new", From: "main"},
		emulator.RefChange{Branch: "feature/login", Delete: true},
		emulator.RefChange{Tag: "v2.0", From: "main"},
	)
	if err != nil {
		t.Fatal(err)
	}
	byRef := map[string]emulator.RefResult{}
	for _, res := range results {
		byRef[strings.TrimPrefix(strings.TrimPrefix(res.Ref, "refs/heads/"), "refs/tags/")] = res
	}
	if before["refs/heads/feature/login"] == "" {
		t.Fatal("the emulator's repository has no branch to delete")
	}
	events := r.wantEvents(5)
	want := map[string]eventsv1.PushEvent_Action{
		"main": eventsv1.PushEvent_UPDATED, "release/1.0": eventsv1.PushEvent_UPDATED, "new": eventsv1.PushEvent_CREATED,
		"feature/login": eventsv1.PushEvent_DELETED, "v2.0": eventsv1.PushEvent_CREATED,
	}
	for i, e := range events {
		if e.GetId() != fmt.Sprintf("%s.1.%d", w.GetId(), i) || e.GetChange() != int32(i) || e.GetDelivery() != 1 || e.GetWorkspace() != workspace ||
			e.GetRepository() != web || e.GetRepositoryFullName() != fullName || e.GetReceiveTime() == nil || e.GetReplay() {
			t.Errorf("event %d: %v", i, e)
		}
		if e.GetAction() != want[e.GetRef()] {
			t.Errorf("%s: %v, want %v", e.GetRef(), e.GetAction(), want[e.GetRef()])
		}
		if e.GetOld().GetHash() != byRef[e.GetRef()].Old || e.GetNew().GetHash() != byRef[e.GetRef()].New {
			t.Errorf("%s: %s → %s, want %v", e.GetRef(), e.GetOld().GetHash(), e.GetNew().GetHash(), byRef[e.GetRef()])
		}
		if (e.GetRefType() == eventsv1.PushEvent_TAG) != (e.GetRef() == "v2.0") || e.GetForced() != (e.GetRef() == "release/1.0") {
			t.Errorf("event %v", e)
		}
		if e.GetRef() == "main" && (!strings.Contains(e.GetNew().GetMessage(), "with a body") || e.GetNew().GetAuthorEmail() != "jane@example.test" || e.GetActor().GetLabel() == "") {
			t.Errorf("event %v", e)
		}
	}
	d := r.await(w.GetId(), 1)[0]
	if len(d.GetChanges()) != 5 || d.GetAnswerStatus() != 202 || d.GetEventKey() != "repo:push" || d.GetRequestUuid() == "" || d.GetAttempt() != 1 || d.GetBodyBytes() == 0 {
		t.Errorf("delivery %v", d)
	}
	for _, c := range d.GetChanges() {
		if c.GetRef() == "main" && c.GetMessage() != "Change" {
			t.Errorf("change %v", c)
		}
	}
}

func TestDelivery_thatNeedsNothingIsAnswered200AndShown(t *testing.T) {
	r, w, secret := ready(t)
	other := strings.Replace(string(pushBody("main", hash(1))), web, "00000000-1111-4222-8333-444455556666", 1)
	tag := strings.ReplaceAll(string(pushBody("v1", hash(1))), `"type":"branch"`, `"type":"tag"`)
	for i, tc := range []struct {
		event, body string
		status      int
		says        string
		reason      string
		events      int
	}{
		{"diagnostics:ping", `{"test":true}`, 200, "works", "EVENT_NOT_USED", 0},
		{"repo:fork", `{"actor":{}}`, 200, "repo:fork", "EVENT_NOT_USED", 0},
		{"repo:push", tag, 202, "tag v1 updated", "", 1},
		{"repo:push", other, 200, "This webhook is for acme/web", "OTHER_REPOSITORY", 0},
		{"repo:push", `{"push":{"changes":[]},"repository":{"uuid":"{` + web + `}"}}`, 202, "asks Bitbucket for its branches", "", 1},
	} {
		before := len(r.pushEvents())
		status, message := r.post(post{url: w.GetUrl(), secret: secret, body: []byte(tc.body), header: map[string]string{"X-Event-Key": tc.event}})
		if status != tc.status || !strings.Contains(message, tc.says) {
			t.Errorf("%s: %d %q", tc.event, status, message)
		}
		d := r.await(w.GetId(), i+1)[0]
		if d.GetAnswerStatus() != int32(tc.status) || d.GetAnswerMessage() != message {
			t.Errorf("%s: delivery %v", tc.event, d)
		}
		reason := ""
		if len(d.GetOutcomes()) > 0 {
			reason = d.GetOutcomes()[0].GetReason()
		}
		if reason != tc.reason {
			t.Errorf("%s: outcome %q, want %q", tc.event, reason, tc.reason)
		}
		events := r.wantEvents(before + tc.events)
		if strings.Contains(tc.says, "asks Bitbucket") && events[len(events)-1].GetAction() != eventsv1.PushEvent_UNKNOWN {
			t.Errorf("an empty push: %v", events[len(events)-1])
		}
	}
}

func TestDelivery_refusedPublishesNothing(t *testing.T) {
	r, w, secret := ready(t)
	good := pushBody("main", hash(1))
	for name, tc := range map[string]struct {
		p      post
		status int
		says   string
	}{
		"wrong signature":   {post{url: w.GetUrl(), secret: "wrong", body: good}, 401, "does not match"},
		"missing signature": {post{url: w.GetUrl(), body: good}, 401, "missing"},
		"changed body":      {post{url: w.GetUrl(), body: append(good, ' '), header: map[string]string{"X-Hub-Signature": "sha256=" + strings.Repeat("0", 64)}}, 401, "does not match"},
		"unknown webhook":   {post{url: r.publicURL + "/webhooks/bitbucket/" + strings.Repeat("a", 26), secret: secret, body: good}, 404, "no such webhook"},
		"2 MiB":             {post{url: w.GetUrl(), secret: secret, body: make([]byte, 2<<20)}, 413, "512 KiB"},
		"broken JSON":       {post{url: w.GetUrl(), secret: secret, body: []byte(`{"push":`)}, 400, "not JSON"},
	} {
		status, message := r.post(tc.p)
		if status != tc.status || !strings.Contains(message, tc.says) {
			t.Errorf("%s: %d %q", name, status, message)
		}
	}
	// They are shown beside the real ones, with numbers of their own.
	var refused []*webhookv1.Delivery
	testkit.Eventually(t, timeout, func() error {
		resp, err := r.people.ListDeliveries(r.admin(), &webhookv1.ListDeliveriesRequest{Workspace: workspace, Webhook: w.GetId(), Refused: true})
		if err != nil {
			return err
		}
		if refused = resp.GetDeliveries(); len(refused) != 3 {
			return fmt.Errorf("%d refused requests", len(refused))
		}
		return nil
	})
	if d := refused[0]; d.GetNumber() != 3 || !d.GetRefused() || d.GetAnswerStatus() != 401 {
		t.Errorf("refused: %v", d)
	}
	if n := len(r.deliveries(w.GetId())); n != 0 {
		t.Errorf("%d deliveries", n)
	}
	if e := r.pushEvents(); len(e) != 0 {
		t.Errorf("events %v", e)
	}
	resp, err := http.Get(w.GetUrl())
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != "POST" {
		t.Errorf("GET: %d, Allow %q", resp.StatusCode, resp.Header.Get("Allow"))
	}
}

func TestDelivery_natsAwayForAMomentIsWaitedFor(t *testing.T) {
	s := newStack(t)
	s.config = func(c *webhook.Config) { c.Hold = 2 * time.Minute }
	s.auth.connect("c1")
	r := s.start()
	w := r.watch(fullName, web, "main", "staging")
	secret := r.secret(w.GetId())
	s.nats.Stop()
	answers := make(chan int, 10)
	before := s.turn.Load()
	for i := range cap(answers) {
		go func() {
			status, _, err := deliver(post{url: w.GetUrl(), secret: secret, body: pushBody("main", hash(i)), header: map[string]string{"X-Request-UUID": fmt.Sprint("r", i)}})
			if err != nil {
				t.Errorf("deliver: %v", err)
			}
			answers <- status
		}()
	}
	testkit.Eventually(t, timeout, func() error {
		if n := int(s.turn.Load() - before); n < cap(answers) {
			return fmt.Errorf("%d of %d deliveries have arrived", n, cap(answers))
		}
		return nil
	})
	<-time.After(time.Second) // the outage lasts
	if n := len(answers); n != 0 {
		t.Errorf("%d deliveries were answered while nobody could store them, the first with %d", n, <-answers)
	}
	s.restartNATS()
	for range cap(answers) {
		if status := <-answers; status != http.StatusAccepted {
			t.Errorf("answered %d", status)
		}
	}
	r.await(w.GetId(), cap(answers))
	s.wantEvents(cap(answers))
}

func TestDelivery_natsAwayForLongIsRefusedAndNothingAppearsLater(t *testing.T) {
	s := newStack(t)
	s.config = func(c *webhook.Config) { c.Hold = time.Second }
	s.auth.connect("c1")
	r := s.start()
	w := r.watch(fullName, web, "main")
	secret := r.secret(w.GetId())
	s.nats.Stop()
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			start := time.Now()
			status, message, err := deliver(post{url: w.GetUrl(), secret: secret, body: pushBody("main", hash(i))})
			if err != nil || status != 503 || !strings.Contains(message, "sends it again") {
				t.Errorf("answered %d %q, %v", status, message, err)
			}
			if took := time.Since(start); took < time.Second || took > time.Minute {
				t.Errorf("held for %v", took)
			}
		})
	}
	wg.Wait()
	// What needs nothing is answered all the same; a stranger's path cannot be looked up.
	if status, _ := s.post(post{url: w.GetUrl(), secret: secret, body: []byte(`{}`), header: map[string]string{"X-Event-Key": "repo:fork"}}); status != 200 {
		t.Errorf("another event: %d", status)
	}
	if status, _ := s.post(post{url: s.publicURL + "/webhooks/bitbucket/" + strings.Repeat("b", 26), secret: secret, body: []byte(`{}`)}); status != 503 {
		t.Errorf("unknown webhook while nobody can be asked: %d", status)
	}
	s.restartNATS()
	// A delivery after the trouble is the first and only one.
	testkit.Eventually(t, timeout, func() error {
		status, _, err := deliver(post{url: w.GetUrl(), secret: secret, body: pushBody("main", hash(99)), header: map[string]string{"X-Request-UUID": "after"}})
		if err != nil || status != 202 {
			return fmt.Errorf("answered %d: %w", status, err)
		}
		return nil
	})
	d := r.await(w.GetId(), 1)[0]
	if d.GetNumber() != 1 || d.GetChanges()[0].GetNewHash() != hash(99) {
		t.Errorf("delivery %v", d)
	}
	if e := s.wantEvents(1); e[0].GetNew().GetHash() != hash(99) {
		t.Errorf("events %v", e)
	}
}

func TestDelivery_beforeTheFirstFullPassIs503(t *testing.T) {
	r, w, secret := ready(t)
	r.stop()
	r.nats.Stop()
	fresh := r.startUnreadyOn(r.js)
	if err := fresh.service.Ready(r.background()); err == nil {
		t.Fatal("ready without a store")
	}
	if status, _ := r.post(post{url: w.GetUrl(), secret: secret, body: pushBody("main", hash(1))}); status != 503 {
		t.Errorf("answered %d before anything is known", status)
	}
	r.restartNATS()
	testkit.Eventually(t, timeout, func() error { return fresh.service.Ready(r.background()) })
	if status, _ := r.post(post{url: w.GetUrl(), secret: secret, body: pushBody("main", hash(1))}); status != 202 {
		t.Errorf("answered %d once ready", status)
	}
}

func TestDelivery_bitbucketsRepeatIsOneDelivery(t *testing.T) {
	r, w, secret := ready(t)
	send := func(n int, request, attempt string) {
		t.Helper()
		if status, message := r.post(post{url: w.GetUrl(), secret: secret, body: pushBody("main", hash(n)),
			header: map[string]string{"X-Request-UUID": request, "X-Attempt-Number": attempt}}); status != 202 {
			t.Fatalf("answered %d %s", status, message)
		}
	}
	send(1, "first", "1")
	r.await(w.GetId(), 1)
	send(1, "first", "2")
	send(1, "first", "3")
	send(2, "second", "1")
	send(2, "third", "1") // another request with the same content is another delivery
	testkit.Eventually(t, timeout, func() error {
		if first := r.await(w.GetId(), 3)[2]; first.GetNumber() != 1 || first.GetAttempt() != 3 {
			return fmt.Errorf("the repeated delivery: %v", first)
		}
		return nil
	})
	r.wantEvents(3)
}
