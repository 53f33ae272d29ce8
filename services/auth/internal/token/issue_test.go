package token

import (
	"context"
	"crypto/sha256"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/services/auth/internal/rotation"
)

var background = context.Background()

func closeAll(t *testing.T, ms ...*Manager) {
	t.Helper()
	for _, m := range ms {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestIssue_concurrentCallersRefreshOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ms := []*Manager{w.process("P1"), w.process("P2"), w.process("P3")}
		defer closeAll(t, ms...)
		w.connect(ms[0], "acme")
		w.expire("acme")
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() {
				tok, err := ms[i%3].Issue(background, "acme", DefaultMinLife, nil)
				if err != nil {
					t.Errorf("caller %d: %v", i, err)
				} else if tok.Access.Reveal() != "access-acme-2" {
					t.Errorf("caller %d got another token", i)
				}
			})
		}
		wg.Wait()
		if n := w.bitbucket.count(); n != 1 {
			t.Errorf("%d refreshes at Bitbucket", n)
		}
	})
}

func TestIssue_handsOutTheValidTokenMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, b := w.process("P1"), w.process("P2")
		defer closeAll(t, a, b)
		w.connect(a, "acme")
		w.bitbucket.latency = 10 * time.Second
		done := make(chan struct{})
		go func() { defer close(done); _, _ = a.Refresh(background, "acme") }()
		pass(11 * time.Second) // the ten seconds after a connect in which Refresh does nothing
		go func() { _, _ = a.Refresh(background, "acme") }()
		synctest.Wait()
		for _, m := range []*Manager{a, b} {
			begin := time.Now()
			tok, err := m.Issue(background, "acme", DefaultMinLife, nil)
			if err != nil || tok.Access.Reveal() != "access-acme-1" || time.Since(begin) != 0 {
				t.Errorf("during the refresh: %v after %v", err, time.Since(begin))
			}
		}
		<-done
	})
}

func TestIssue_minLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := w.process("P1")
		defer closeAll(t, m)
		w.connect(m, "acme")
		pass(time.Hour + 30*time.Minute)
		if tok, err := m.Issue(background, "acme", 29*time.Minute, nil); err != nil || tok.Access.Reveal() != "access-acme-1" {
			t.Errorf("29 minutes of 30: %v", err)
		}
		tok, err := m.Issue(background, "acme", 31*time.Minute, nil)
		if err != nil || tok.Access.Reveal() != "access-acme-2" || time.Until(tok.ExpireTime) < time.Hour {
			t.Errorf("31 minutes of 30: %v", err)
		}
	})
}

func TestIssue_unknownOrShortLifeIsHandedOutOnceFresh(t *testing.T) {
	for _, life := range []time.Duration{0, time.Minute} {
		t.Run(life.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				a, b := w.process("P1"), w.process("P2")
				defer closeAll(t, a, b)
				w.connect(a, "acme")
				w.expire("acme")
				w.bitbucket.life = life
				var wg sync.WaitGroup
				for i := range 40 {
					wg.Go(func() {
						if _, err := []*Manager{a, b}[i%2].Issue(background, "acme", DefaultMinLife, nil); err != nil {
							t.Errorf("caller %d: %v", i, err)
						}
					})
				}
				wg.Wait()
				if n := w.bitbucket.count(); n != 1 {
					t.Errorf("%d refreshes for callers that came together", n)
				}
				if _, err := a.Issue(background, "acme", DefaultMinLife, nil); err != nil {
					t.Error(err)
				}
				if n := w.bitbucket.count(); n != 2 {
					t.Errorf("a later caller was served a token of unknown or too short a life: %d refreshes", n)
				}
			})
		})
	}
}

func TestIssue_rejectedTokenForcesOneRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, b := w.process("P1"), w.process("P2")
		defer closeAll(t, a, b)
		w.connect(a, "acme")
		old := sha256.Sum256([]byte("access-acme-1"))
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				tok, err := []*Manager{a, b}[i%2].Issue(background, "acme", DefaultMinLife, old[:])
				if err != nil || tok.Access.Reveal() != "access-acme-2" {
					t.Errorf("caller %d: %v", i, err)
				}
			})
		}
		wg.Wait()
		if n := w.bitbucket.count(); n != 1 {
			t.Errorf("%d refreshes", n)
		}
		// The hash of a token that is not the stored one says nothing.
		if _, err := a.Issue(background, "acme", DefaultMinLife, old[:]); err != nil || w.bitbucket.count() != 1 {
			t.Errorf("%v after %d refreshes", err, w.bitbucket.count())
		}
		// A 401 even for the new one: no loop of refreshes, a truthful answer, a new try later.
		fresh := sha256.Sum256([]byte("access-acme-2"))
		_, err := a.Issue(background, "acme", DefaultMinLife, fresh[:])
		if !apierr.Has(err, apierr.ReasonTokenExpired) || apierr.From(err).RetryAfter() != rotation.RejectedProbe || w.bitbucket.count() != 1 {
			t.Errorf("second 401: %v after %d refreshes", err, w.bitbucket.count())
		}
		if _, err := b.Issue(background, "acme", DefaultMinLife, nil); !apierr.Has(err, apierr.ReasonTokenExpired) {
			t.Errorf("a rejected token was handed out: %v", err)
		}
		pass(6 * time.Minute)
		if tok, err := b.Issue(background, "acme", DefaultMinLife, nil); err != nil || tok.Access.Reveal() != "access-acme-3" {
			t.Errorf("later: %v", err)
		}
	})
}

func TestIssue_callerGoesTheRefreshStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := w.process("P1")
		defer closeAll(t, m)
		w.connect(m, "acme")
		w.expire("acme")
		w.bitbucket.latency = 5 * time.Second
		ctx, cancel := context.WithTimeout(background, time.Second)
		defer cancel()
		_, err := m.Issue(ctx, "acme", DefaultMinLife, nil)
		if !apierr.Has(err, apierr.ReasonTokenExpired) || apierr.From(err).RetryAfter() == 0 {
			t.Errorf("impatient caller: %v", err)
		}
		pass(5 * time.Second)
		synctest.Wait()
		if rec := w.store.get("acme"); rec.GetGeneration() != 1 || rec.GetLease() != nil {
			t.Errorf("the refresh did not go on without its caller: %v", rec.GetGeneration())
		}
	})
}

func TestIssue_sealedForAnotherRecordDoesNotOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := w.process("P1")
		defer closeAll(t, m)
		w.connect(m, "a")
		w.connect(m, "b")
		stolen := w.store.get("a")
		stolen.Workspace, stolen.ConnectionId = "b", "connection-9"
		w.store.put("b", stolen)
		if _, err := m.Issue(background, "b", DefaultMinLife, nil); !apierr.Has(err, apierr.ReasonReconnectRequired) {
			t.Errorf("%v", err)
		}
		w.expire("b")
		if _, err := m.Issue(background, "b", DefaultMinLife, nil); !apierr.Has(err, apierr.ReasonReconnectRequired) || w.bitbucket.count() != 0 {
			t.Errorf("%v after %d calls", err, w.bitbucket.count())
		}
	})
}

func TestLogs_holdNoToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := w.process("P1")
		w.connect(m, "acme")
		w.expire("acme")
		_, _ = m.Issue(background, "acme", DefaultMinLife, nil)
		w.bitbucket.revoke("acme")
		w.expire("acme")
		_, _ = m.Issue(background, "acme", DefaultMinLife, nil)
		closeAll(t, m)
		w.logs.MustNotContain(t, "access-acme-1", "access-acme-2", "refresh-acme-1", "refresh-acme-2")
		if !w.logs.Contains("token refresh") {
			t.Error("nothing was logged")
		}
	})
}
