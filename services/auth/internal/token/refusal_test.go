package token

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
)

func TestRefresh_refusalIsRepeatedNotRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := w.process("P1")
		defer closeAll(t, m)
		w.connect(m, "acme")
		pass(time.Minute)
		w.bitbucket.revoke("acme")
		for range 20 {
			_, err := m.Refresh(background, "acme")
			e := apierr.From(err)
			if e.Reason() != apierr.ReasonTokenExpired || e.RetryAfter() < 9*time.Minute || e.RetryAfter() > 11*time.Minute {
				t.Fatalf("%v, retry after %v", err, e.RetryAfter())
			}
		}
		if n := w.bitbucket.count(); n != 1 {
			t.Errorf("%d calls at Bitbucket", n)
		}
		// The old token is valid and goes on being handed out.
		if _, err := m.Issue(background, "acme", DefaultMinLife, nil); err != nil {
			t.Error(err)
		}
		pass(12 * time.Minute)
		_, err := m.Refresh(background, "acme")
		if !apierr.Has(err, apierr.ReasonReconnectRequired) || !strings.Contains(err.Error(), "twice") {
			t.Errorf("second refusal: %v", err)
		}
		if rec := w.store.get("acme"); !rec.GetReconnectRequired() {
			t.Error("not given up")
		}
	})
}

func TestIssue_wrongSecretMarksNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		before := w.process("P0")
		var all []string
		for i := range 10 {
			ws := fmt.Sprintf("ws%d", i)
			all = append(all, ws)
			w.connect(before, ws)
		}
		closeAll(t, before)
		// Restarted with a wrong secret.
		w.consumer.Fingerprint = "wrong"
		w.bitbucket.fail = func(string) error { return errDead }
		m := w.process("P1")
		stop := w.keep(m)
		for range 50 {
			pass(30 * time.Minute)
			for _, ws := range all {
				_, _ = m.Issue(background, ws, DefaultMinLife, nil)
			}
		}
		for _, ws := range all {
			if w.store.get(ws).GetReconnectRequired() {
				t.Errorf("%s was given up", ws)
			}
		}
		if h := m.Consumer().Health; !h.AtFault {
			t.Error("the consumer is not found at fault")
		}
		_, err := m.Issue(background, "ws3", DefaultMinLife, nil)
		if !apierr.Has(err, apierr.ReasonConsumerRefused) {
			t.Errorf("%v", err)
		}
		// 25 hours with ten connections: the pause keeps the number of refused calls low.
		if n := w.bitbucket.count(); n > 60 {
			t.Errorf("%d calls at Bitbucket", n)
		}
		stop()
		// The secret is corrected: all recover by themselves.
		w.consumer.Fingerprint = "f"
		w.bitbucket.fail = nil
		m = w.process("P2")
		defer closeAll(t, m)
		for _, ws := range all {
			if _, err := m.Issue(background, ws, DefaultMinLife, nil); err != nil {
				t.Errorf("%s after the correction: %v", ws, err)
			}
		}
	})
}

func TestIssue_resetSecretAtBitbucketMarksNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := w.process("P1")
		stop := w.keep(m)
		defer stop()
		for _, ws := range []string{"a", "b", "c"} {
			w.connect(m, ws)
		}
		w.bitbucket.set(func() { w.bitbucket.fail = func(string) error { return errDead } }) // same fingerprint
		for range 100 {
			pass(10 * time.Minute)
			for _, ws := range []string{"a", "b", "c"} {
				_, _ = m.Issue(background, ws, DefaultMinLife, nil)
			}
		}
		for _, ws := range []string{"a", "b", "c"} {
			if w.store.get(ws).GetReconnectRequired() {
				t.Errorf("%s was given up", ws)
			}
		}
		if !m.Consumer().Health.AtFault {
			t.Error("the consumer is not found at fault")
		}
	})
}

func TestKeeper_aRevokedConnectionIsFoundByTheWitness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := w.process("P1")
		stop := w.keep(m)
		defer stop()
		w.connect(m, "revoked")
		w.connect(m, "healthy")
		pass(time.Minute)
		w.bitbucket.revoke("revoked")
		_, _ = m.Refresh(background, "revoked")
		pass(20 * time.Minute)
		rec := w.store.get("revoked")
		if !rec.GetReconnectRequired() {
			t.Errorf("not given up after 20 minutes: %v", rec.GetFailure())
		}
		if h := w.store.get("healthy"); h.GetFailure() != nil || h.GetGeneration() == 0 {
			t.Errorf("the witness: failure %v, generation %d", h.GetFailure(), h.GetGeneration())
		}
	})
}

func TestKeeper_lockOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := w.process("P1")
		stop := w.keep(m)
		defer stop()
		all := []string{"dead", "a", "b", "c"}
		for _, ws := range all {
			w.connect(m, ws)
		}
		// After a refusal everything is refused for three minutes (BITBUCKET.md#lock-out).
		var until time.Time
		w.bitbucket.revoke("dead")
		w.bitbucket.set(func() {
			w.bitbucket.fail = func(token string) error {
				if time.Now().Before(until) {
					return errDead
				}
				if strings.Contains(token, "dead") {
					until = time.Now().Add(3 * time.Minute)
				}
				return nil
			}
		})
		for range 24 * 12 {
			pass(5 * time.Minute)
			for _, ws := range all {
				_, _ = m.Issue(background, ws, DefaultMinLife, nil)
			}
		}
		for _, ws := range all[1:] {
			rec := w.store.get(ws)
			if rec.GetReconnectRequired() {
				t.Errorf("%s was given up", ws)
			}
			if rec.GetGeneration() < 10 {
				t.Errorf("%s was renewed %d times in a day", ws, rec.GetGeneration())
			}
		}
		if !w.store.get("dead").GetReconnectRequired() {
			t.Error("the dead connection was not given up within a day")
		}
	})
}
