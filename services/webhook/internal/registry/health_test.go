package registry

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// registered is a webhook that is as it should be, beside one of somebody else.
func registered(t *testing.T, w *world, timing Timing) (*process, *storev1.WebhookRecord) {
	t.Helper()
	w.bitbucket.set(func(f *fakeBitbucket) {
		f.hooks = append(f.hooks, bitbucket.Hook{UUID: "another", URL: "https://devpilot.example.com/webhooks/bitbucket/another", Active: true, Events: events})
	})
	p := w.start(timing)
	rec, err := p.SetWatches(t.Context(), w.set(true))
	if err != nil || active(rec) != nil {
		t.Fatalf("%v, %v", rec, err)
	}
	return p, rec
}

// change does to our hook what an admin does on Bitbucket.
func (w *world) change(fn func(h *bitbucket.Hook)) {
	w.bitbucket.set(func(f *fakeBitbucket) {
		for i := range f.hooks {
			if f.hooks[i].UUID != "another" {
				fn(&f.hooks[i])
			}
		}
	})
}

// well holds that Bitbucket has our hook as it should be, once, and the other's.
func (w *world) well(p *process, rec *storev1.WebhookRecord) error {
	want := p.View().Address.URL(rec.GetId())
	ours := 0
	for _, h := range w.bitbucket.all() {
		switch {
		case h.UUID == "another":
			if h.URL == want || !h.Active {
				return fmt.Errorf("somebody else's webhook: %+v", h)
			}
		case h.URL != want || !h.Active || len(h.Events) != 1 || h.Events[0] != bitbucket.EventPush || !h.SecretSet:
			return fmt.Errorf("ours: %+v", h)
		default:
			ours++
		}
	}
	if ours != 1 || len(w.bitbucket.all()) != 2 {
		return fmt.Errorf("hooks: %+v", w.bitbucket.all())
	}
	return nil
}

// A push whose delivery did not come has the webhook checked, and what somebody changed put right.
func TestMissed_putsRightWhatSomebodyChanged(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(w *world, url string)
		says   string
	}{
		"URL": {func(w *world, _ string) {
			w.change(func(h *bitbucket.Hook) { h.URL = "https://elsewhere.example.com/" })
		}, "its URL was changed"},
		"events":  {func(w *world, _ string) { w.change(func(h *bitbucket.Hook) { h.Events = []string{"repo:fork"} }) }, "its triggers were changed"},
		"secret":  {func(w *world, _ string) { w.change(func(h *bitbucket.Hook) { h.SecretSet = false }) }, "its secret was removed"},
		"deleted": {func(w *world, _ string) { w.bitbucket.set(func(f *fakeBitbucket) { f.hooks = f.hooks[:1] }) }, "it was deleted"},
		"two things": {func(w *world, _ string) {
			w.change(func(h *bitbucket.Hook) { h.URL, h.Events = "https://elsewhere.example.com/", nil })
		}, "its URL was changed and its triggers were changed"},
		"one more with our URL": {func(w *world, url string) {
			w.bitbucket.set(func(f *fakeBitbucket) {
				f.hooks = append(f.hooks, bitbucket.Hook{UUID: "extra", URL: url, Active: true, Events: events, SecretSet: true, CreatedAt: time.Unix(99, 0)})
			})
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			p, rec := registered(t, w, Timing{Suspect: time.Nanosecond})
			c.change(w, p.View().Address.URL(rec.GetId()))
			if w.well(p, rec) == nil {
				t.Fatal("nothing was changed")
			}
			if err := p.Missed(t.Context(), ws, rec.GetId(), time.Now()); err != nil {
				t.Fatal(err)
			}
			got := p.eventually(t, rec.GetId(), func(rec *storev1.WebhookRecord) error {
				if rec.GetWork().GetDone() < rec.GetWork().GetWanted() {
					return fmt.Errorf("not done yet: %v", rec.GetWork())
				}
				if err := w.well(p, rec); err != nil {
					return err
				}
				return active(rec)
			})
			if got.GetFoundPushes() != 1 || got.GetLastFoundTime() == nil {
				t.Errorf("found pushes: %v", got)
			}
			if c.says == "" != (got.GetLastRepair() == "") || !strings.Contains(got.GetLastRepair(), c.says) {
				t.Errorf("it says %q, want %q", got.GetLastRepair(), c.says)
			}
			if shown := p.View().Webhook(got, time.Now()); shown.GetLastRepair() != got.GetLastRepair() || shown.GetFoundPushes() != 1 {
				t.Errorf("people see %v", shown)
			}
		})
	}
}

// A webhook that was switched off was meant to be off, until a person says otherwise.
func TestMissed_leavesOffWhatSomebodySwitchedOff(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p, rec := registered(t, w, Timing{Suspect: time.Nanosecond})
	w.change(func(h *bitbucket.Hook) { h.Active, h.Events = false, nil })
	off := func() bool {
		for _, h := range w.bitbucket.all() {
			if h.UUID != "another" {
				return !h.Active
			}
		}
		return false
	}
	drifted := func(rec *storev1.WebhookRecord) error {
		if rec.GetState() != webhookv1.Webhook_DRIFTED || rec.GetReason() != string(apierr.ReasonWebhookDeactivated) || rec.GetMessage() == "" || rec.GetWork().GetDone() < rec.GetWork().GetWanted() {
			return fmt.Errorf("%v", rec)
		}
		return nil
	}
	if err := p.Missed(t.Context(), ws, rec.GetId(), time.Now()); err != nil {
		t.Fatal(err)
	}
	got := p.eventually(t, rec.GetId(), drifted)
	if !off() || !strings.Contains(got.GetLastRepair(), "its triggers were changed") {
		t.Errorf("%q, hooks %+v", got.GetLastRepair(), w.bitbucket.all())
	}
	// Neither a rotation nor another check switches it on.
	if got, err := p.Rotate(t.Context(), ws, rec.GetId(), "", ""); err != nil || drifted(got) != nil || !off() {
		t.Errorf("after a rotation: %v, %v", got, err)
	}
	// That it is on again is seen at its first delivery.
	w.change(func(h *bitbucket.Hook) { h.Active = true })
	got, err := p.Get(t.Context(), ws, rec.GetId())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Verified(t.Context(), got, "", got.GetSecret().GetVersion()); err != nil {
		t.Fatal(err)
	}
	p.eventually(t, rec.GetId(), active)
	// A person's repair switches it on.
	w.change(func(h *bitbucket.Hook) { h.Active = false })
	if err := p.Missed(t.Context(), ws, rec.GetId(), time.Now()); err != nil {
		t.Fatal(err)
	}
	p.eventually(t, rec.GetId(), drifted)
	if got, err := p.Repair(t.Context(), ws, rec.GetId(), ""); err != nil || active(got) != nil || off() {
		t.Errorf("after the repair: %v, %v, hooks %+v", got, err, w.bitbucket.all())
	}
}

// Evidence costs Bitbucket one check in a while, however much of it there is; what comes within the pause
// counts when that is over.
func TestMissed_manyCostOneCheckAfterThePause(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const pause = time.Hour
	p, rec := registered(t, w, Timing{Suspect: pause})
	before := w.calls()
	for range 50 {
		if err := p.Missed(t.Context(), ws, rec.GetId(), time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	got, err := p.Get(t.Context(), ws, rec.GetId())
	if err != nil || got.GetFoundPushes() != 50 || w.calls() != before {
		t.Errorf("%v, %v, %d calls", got, err, w.calls()-before)
	}
	w2 := got.GetWork()
	if due := w2.GetDueTime().AsTime(); w2.GetWanted() != w2.GetDone()+1 || !w2.GetCheckOnly() || !due.Equal(rec.GetLastCheckTime().AsTime().Add(pause)) {
		t.Errorf("the next check: %v, the last was at %v", w2, rec.GetLastCheckTime().AsTime())
	}
	// A person does not wait for it.
	if got, err := p.Repair(t.Context(), ws, rec.GetId(), ""); err != nil || served(got) != nil {
		t.Errorf("a repair meanwhile: %v, %v", got, err)
	}
}

func served(rec *storev1.WebhookRecord) error {
	if rec.GetLease() != nil || rec.GetWork().GetDone() < rec.GetWork().GetWanted() {
		return fmt.Errorf("%v", rec.GetWork())
	}
	return nil
}

func (w *world) calls() (n int) {
	w.bitbucket.set(func(f *fakeBitbucket) { n = f.calls })
	return n
}

// A refused signature has our secret written, since whether it is right cannot be seen; whoever sends
// thousands of them causes that once.
func TestRefused_writesTheSecretOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p, rec := registered(t, w, Timing{Suspect: time.Hour})
	// A check that is planned for later, since the delivery of its push is missing too, does not keep it waiting.
	if err := p.Missed(t.Context(), ws, rec.GetId(), time.Now()); err != nil {
		t.Fatal(err)
	}
	secret, err := w.vault.open(rec, rec.GetSecret())
	if err != nil {
		t.Fatal(err)
	}
	spoil := func() {
		w.bitbucket.set(func(f *fakeBitbucket) {
			for uuid := range f.secrets {
				f.secrets[uuid] = "somebody else's"
			}
		})
	}
	right := func(rec *storev1.WebhookRecord) error {
		var have string
		w.bitbucket.set(func(f *fakeBitbucket) { have = f.secrets[rec.GetBitbucketUuid()] })
		if have != secret.Reveal() {
			return errors.New("the secret is another one")
		}
		return served(rec)
	}
	spoil()
	if err := p.Refused(t.Context(), &webhookv1.Delivery{Workspace: ws, Webhook: rec.GetId(), AnswerStatus: 401}); err != nil {
		t.Fatal(err)
	}
	p.eventually(t, rec.GetId(), right)
	before := w.calls()
	spoil()
	for range 100 {
		if err := p.Refused(t.Context(), &webhookv1.Delivery{Workspace: ws, Webhook: rec.GetId(), AnswerStatus: 401}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := p.Get(t.Context(), ws, rec.GetId())
	if err != nil || w.calls() != before {
		t.Errorf("%d calls within the pause, %v", w.calls()-before, err)
	}
	if w := got.GetWork(); w.GetWanted() != w.GetDone()+1 || w.GetCheckOnly() || time.Until(w.GetDueTime().AsTime()) < time.Minute {
		t.Errorf("the next time: %v", w)
	}
	// When the pause is over the secret is written again.
	if _, err := p.cfg.Store.Update(t.Context(), ws, rec.GetId(), func(cur *storev1.WebhookRecord) error {
		cur.Work.DueTime = timestamppb.Now()
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	p.eventually(t, rec.GetId(), right)
}

// Who sends requests in other hooks' names for ever causes few calls, and keeps no real sign waiting.
func TestRefused_inOtherHooksNamesCausesFewCalls(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p, rec := registered(t, w, Timing{Suspect: 10 * time.Minute, Mistrust: time.Hour})
	stray := func(n int) {
		t.Helper()
		for i := range n {
			d := &webhookv1.Delivery{Workspace: ws, Webhook: rec.GetId(), AnswerStatus: 401, HookUuid: fmt.Sprintf("85d08b4e-571d-44e9-a507-fa47653%05d", i)}
			if err := p.Refused(t.Context(), d); err != nil {
				t.Fatal(err)
			}
		}
	}
	before := w.calls()
	stray(1)
	p.eventually(t, rec.GetId(), served)
	if n := w.calls() - before; n != 1 {
		t.Fatalf("%d calls for the first, want a list", n)
	}
	stray(100)
	got, err := p.Get(t.Context(), ws, rec.GetId())
	if err != nil || w.calls() != before+1 || !got.GetWork().GetCheckOnly() || time.Until(got.GetWork().GetDueTime().AsTime()) < 15*time.Minute {
		t.Errorf("%d calls within the pause, next %v, %v", w.calls()-before, got.GetWork(), err)
	}
	if h, _ := health(&webhookv1.Webhook{}, got); h != webhookv1.Webhook_REGISTERED || got.GetSecretRepairTime() != nil {
		t.Errorf("health %v, the secret written %v", h, got.GetSecretRepairTime())
	}
	// A push without its delivery: the pause after the last check has passed.
	if _, err := p.cfg.Store.Update(t.Context(), ws, rec.GetId(), func(cur *storev1.WebhookRecord) error {
		cur.LastCheckTime = timestamppb.New(time.Now().Add(-time.Hour))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := p.Missed(t.Context(), ws, rec.GetId(), time.Now()); err != nil {
		t.Fatal(err)
	}
	p.eventually(t, rec.GetId(), served)
	if n := w.calls() - before; n != 2 {
		t.Errorf("%d calls, want one more", n)
	}
}

// A secret is replaced when it is old, and the one before is accepted for a while.
func TestSweep_rotatesOldSecrets(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p, rec := registered(t, w, Timing{SecretAge: time.Hour, Sweep: 20 * time.Millisecond})
	if rec.GetSecret().GetVersion() != 1 {
		t.Fatalf("%v", rec.GetSecret())
	}
	if _, err := p.cfg.Store.Update(t.Context(), ws, rec.GetId(), func(cur *storev1.WebhookRecord) error {
		cur.Secret.CreateTime = timestamppb.New(time.Now().Add(-2 * time.Hour))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	got := p.eventually(t, rec.GetId(), func(rec *storev1.WebhookRecord) error {
		if rec.GetSecret().GetVersion() != 2 || rec.GetSecret().GetConfirmTime() == nil {
			return fmt.Errorf("%v", rec.GetSecret())
		}
		return served(rec)
	})
	secrets, _, err := w.vault.Open(got, time.Now())
	if err != nil || len(secrets) != 2 {
		t.Errorf("%d secrets are accepted, %v", len(secrets), err)
	}
	var have string
	w.bitbucket.set(func(f *fakeBitbucket) { have = f.secrets[got.GetBitbucketUuid()] })
	if have != secrets[0].Reveal() {
		t.Error("Bitbucket has another secret")
	}
}
