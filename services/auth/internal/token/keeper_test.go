package token

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
	authstorev1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/store/v1"
)

func TestKeeper_aheadOfExpiryWhileInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := w.process("P1")
		stop := w.keep(m)
		defer stop()
		w.connect(m, "used")
		w.connect(m, "idle")
		for range 24 * 6 {
			begin := time.Now()
			if _, err := m.Issue(background, "used", DefaultMinLife, nil); err != nil || time.Since(begin) != 0 {
				t.Fatalf("a caller waited %v for a token: %v", time.Since(begin), err)
			}
			pass(10 * time.Minute)
		}
		if n := w.store.get("used").GetGeneration(); n < 14 || n > 20 {
			t.Errorf("%d refreshes in a day of use", n)
		}
		if n := w.store.get("idle").GetGeneration(); n != 0 {
			t.Errorf("%d refreshes of an idle connection in a day", n)
		}
		if rec := w.store.get("used"); len(rec.GetSpares()) > 1 {
			t.Errorf("%d spares", len(rec.GetSpares()))
		}
	})
}

func TestKeeper_idleWeeklySpreadAndTidied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := w.process("P1")
		stop := w.keep(m)
		defer stop()
		for i := range 40 {
			w.connect(m, fmt.Sprintf("ws%d", i))
		}
		pass(6*24*time.Hour + 12*time.Hour)
		half := w.bitbucket.count()
		if half < 8 || half > 32 {
			t.Errorf("%d of 40 after six days and a half: not spread", half)
		}
		pass(13 * time.Hour)
		if n := w.bitbucket.count(); n != 40 {
			t.Errorf("%d of 40 after a week", n)
		}
		for i := range 40 {
			if rec := w.store.get(fmt.Sprintf("ws%d", i)); len(rec.GetSpares()) != 0 || rec.GetGeneration() != 1 {
				t.Errorf("ws%d: %d spares, generation %d", i, len(rec.GetSpares()), rec.GetGeneration())
			}
		}
	})
}

func TestKeeper_outageIsRetriedUntilItEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := w.process("P1")
		stop := w.keep(m)
		defer stop()
		w.connect(m, "acme")
		w.expire("acme")
		w.bitbucket.set(func() {
			w.bitbucket.fail = func(string) error {
				return &bitbucket.OAuthError{Class: bitbucket.OAuthTransient, Status: 502}
			}
		})
		_, err := m.Issue(background, "acme", DefaultMinLife, nil)
		if !apierr.Has(err, apierr.ReasonBitbucketUnavailable) || apierr.From(err).RetryAfter() == 0 {
			t.Errorf("%v", err)
		}
		pass(6 * time.Hour)
		calls := w.bitbucket.count()
		if calls < 100 || calls > 200 { // every half minute at first, every five minutes after an hour
			t.Errorf("%d calls in six hours of outage", calls)
		}
		w.bitbucket.set(func() { w.bitbucket.fail = nil })
		pass(7 * time.Minute)
		if rec := w.store.get("acme"); rec.GetFailure() != nil || rec.GetReconnectRequired() {
			t.Errorf("after the outage: %v", rec.GetFailure())
		}
	})
}

func TestKeeper_sweepMendsLostSchedules(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := w.process("P1")
		stop := w.keep(m)
		defer stop()
		w.schedules.set(func() { w.schedules.lose = true })
		w.connect(m, "acme")
		w.schedules.set(func() {
			w.schedules.lose = false
			w.schedules.all["gone"] = &authstorev1.Schedule{Workspace: "gone"}
		})
		pass(2 * time.Hour)
		if m.cfg.Index.Get("acme") == nil {
			t.Error("no schedule for an integration")
		}
		w.schedules.set(func() {
			if w.schedules.all["gone"] != nil {
				t.Error("a schedule without an integration stayed")
			}
		})
	})
}
