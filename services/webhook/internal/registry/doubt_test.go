package registry

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

func answer(kind bitbucket.Kind, status int, message string) func(context.Context) error {
	return func(context.Context) error {
		return &bitbucket.Error{Kind: kind, Status: status, Route: bitbucket.RouteHooks, Subject: "acme/web", Message: message}
	}
}

func soon() Timing {
	return Timing{RetryFirst: 5 * time.Millisecond, RetryMost: 20 * time.Millisecond, RetryGiven: time.Hour}
}

func stands(state webhookv1.Webhook_State, reason apierr.Reason) func(*storev1.WebhookRecord) error {
	return func(rec *storev1.WebhookRecord) error {
		if rec.GetState() != state || rec.GetReason() != string(reason) {
			return fmt.Errorf("%v %s: %s", rec.GetState(), rec.GetReason(), rec.GetMessage())
		}
		return nil
	}
}

func TestRegister_aPassingUntruthIsNotBelieved(t *testing.T) {
	for name, c := range map[string]struct {
		listing func(context.Context) error
		reason  apierr.Reason
	}{
		"404": {answer(bitbucket.KindNotFound, 404, ""), apierr.ReasonRepositoryNotFound},
		"410": {answer(bitbucket.KindGone, 410, ""), apierr.ReasonRepositoryNotFound},
		"401": {answer(bitbucket.KindRefused, 401, ""), apierr.ReasonAccessRefused},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.bitbucket.set(func(f *fakeBitbucket) { f.listing = c.listing })
			p := w.start(Timing{RetryFirst: 20 * time.Second})
			rec, err := p.SetWatches(t.Context(), w.set(true))
			if err != nil {
				t.Fatal(err)
			}
			rec = p.eventually(t, rec.GetId(), stands(webhookv1.Webhook_PENDING, c.reason))
			if due := time.Until(rec.GetWork().GetDueTime().AsTime()); due > 20*time.Second || !strings.Contains(rec.GetMessage(), "asks again") {
				t.Errorf("asked again in %v: %s", due, rec.GetMessage())
			}
			p.stop()
			// Minutes of it, while Bitbucket knows the account: then it is believed, with what to do.
			p = w.start(soon())
			if _, err := p.Register(t.Context(), ws, rec.GetId(), ""); !apierr.Has(err, c.reason) {
				t.Errorf("Register: %v", err)
			}
			rec = p.eventually(t, rec.GetId(), stands(webhookv1.Webhook_NOT_REGISTERED, c.reason))
			if strings.Contains(rec.GetMessage(), "asks again") || len(p.View().Webhook(rec, time.Now()).GetManualSteps()) == 0 {
				t.Errorf("%s", rec.GetMessage())
			}
			// And it ends.
			w.bitbucket.set(func(f *fakeBitbucket) { f.listing = nil })
			p.eventually(t, rec.GetId(), active)
		})
	}
}

func TestRegister_nothingIsGoneWhileBitbucketDoesNotKnowTheAccount(t *testing.T) {
	w := newWorld(t)
	w.bitbucket.set(func(f *fakeBitbucket) {
		f.listing, f.user = answer(bitbucket.KindNotFound, 404, ""), &bitbucket.Error{Kind: bitbucket.KindNotFound, Status: 404, Route: bitbucket.RouteUser}
	})
	p := w.start(soon())
	rec, err := p.SetWatches(t.Context(), w.set(false))
	if err != nil {
		t.Fatal(err)
	}
	rec = p.eventually(t, rec.GetId(), func(rec *storev1.WebhookRecord) error {
		if n := rec.GetWork().GetAttempts(); n < 2*believedAfter {
			return fmt.Errorf("%d attempts", n)
		}
		return nil
	})
	if err := stands(webhookv1.Webhook_PENDING, apierr.ReasonBitbucketUnavailable)(rec); err != nil {
		t.Error(err)
	}
}

func TestRemove_aRepositoryThatIsNotThereForAMomentKeepsItsHook(t *testing.T) {
	w := newWorld(t)
	p := w.start(soon())
	rec, err := p.SetWatches(t.Context(), w.set(true))
	if err != nil || active(rec) != nil {
		t.Fatalf("%v, %v", rec, err)
	}
	var asked atomic.Int32
	w.bitbucket.set(func(f *fakeBitbucket) {
		f.listing = func(ctx context.Context) error {
			if asked.Add(1) > 2 {
				return nil
			}
			return answer(bitbucket.KindNotFound, 404, "")(ctx)
		}
	})
	empty := w.set(false)
	empty.Watches, empty.Version = nil, 2
	if _, err := p.SetWatches(t.Context(), empty); err != nil {
		t.Fatal(err)
	}
	p.eventually(t, rec.GetId(), stands(webhookv1.Webhook_REMOVED, ""))
	if hooks := w.bitbucket.all(); len(hooks) != 0 {
		t.Errorf("left at Bitbucket: %v", hooks)
	}
}

func TestRemove_aRepositoryThatStaysAwayIsGone(t *testing.T) {
	w := newWorld(t)
	p := w.start(soon())
	rec, err := p.SetWatches(t.Context(), w.set(true))
	if err != nil || active(rec) != nil {
		t.Fatalf("%v, %v", rec, err)
	}
	w.bitbucket.set(func(f *fakeBitbucket) { f.listing = answer(bitbucket.KindNotFound, 404, "") })
	empty := w.set(false)
	empty.Watches, empty.Version = nil, 2
	if _, err := p.SetWatches(t.Context(), empty); err != nil {
		t.Fatal(err)
	}
	p.eventually(t, rec.GetId(), stands(webhookv1.Webhook_REMOVED, ""))
}

func TestRegister_whatBitbucketHasAgainstIt(t *testing.T) {
	for reason, c := range map[apierr.Reason]struct{ message, says, step string }{
		apierr.ReasonWebhookLimit:   {"You have reached the limit of 50 webhooks.", "limit of 50 webhooks", "delete a webhook"},
		apierr.ReasonWebhookRefused: {"Try something else", "Try something else", "press Add webhook"},
	} {
		w := newWorld(t)
		w.bitbucket.set(func(f *fakeBitbucket) { f.listing = answer(bitbucket.KindInvalid, 400, c.message) })
		p := w.start(Timing{})
		rec, err := p.SetWatches(t.Context(), w.set(true))
		if err != nil {
			t.Fatal(err)
		}
		rec = p.eventually(t, rec.GetId(), stands(webhookv1.Webhook_NOT_REGISTERED, reason))
		steps := strings.Join(p.View().Webhook(rec, time.Now()).GetManualSteps(), "\n")
		if !strings.Contains(rec.GetMessage(), c.says) || !strings.Contains(steps, c.step) || !strings.Contains(steps, rec.GetId()) {
			t.Errorf("%s: %s\n%s", reason, rec.GetMessage(), steps)
		}
		if due := time.Until(rec.GetWork().GetDueTime().AsTime()); due > time.Minute || due < 30*time.Second {
			t.Errorf("%s: tried again in %v", reason, due)
		}
		p.stop()
	}
}
