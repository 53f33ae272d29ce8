package token

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
)

func TestClose_waitsForTheRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := w.process("P1")
		w.connect(m, "acme")
		w.expire("acme")
		w.bitbucket.latency = 10 * time.Second
		go func() { _, _ = m.Issue(background, "acme", DefaultMinLife, nil) }()
		synctest.Wait()
		begin := time.Now()
		closeAll(t, m)
		if took := time.Since(begin); took != 10*time.Second {
			t.Errorf("closed after %v", took)
		}
		if rec := w.store.get("acme"); rec.GetGeneration() != 1 {
			t.Error("the answer was not stored")
		}
		if _, err := m.Issue(background, "acme", 3*time.Hour, nil); !apierr.Has(err, apierr.ReasonServiceUnavailable) {
			t.Errorf("after Close: %v", err)
		}
	})
}

func TestClose_isBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := w.process("P1")
		w.connect(m, "acme")
		w.expire("acme")
		w.bitbucket.onAnswer = func(context.Context) { w.store.switchOff(true) }
		go func() { _, _ = m.Issue(background, "acme", DefaultMinLife, nil) }()
		pass(2 * time.Second)
		begin := time.Now()
		if err := m.Close(); err == nil || time.Since(begin) > 25*time.Second {
			t.Errorf("closed after %v: %v", time.Since(begin), err)
		}
	})
}

func TestRefresh_answerWaitsForTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := w.process("P1")
		defer closeAll(t, m)
		w.connect(m, "acme")
		w.expire("acme")
		w.bitbucket.onAnswer = func(context.Context) { w.store.switchOff(true) }
		go func() { _, _ = m.Issue(background, "acme", DefaultMinLife, nil) }()
		pass(5 * time.Minute)
		w.store.switchOff(false)
		pass(5 * time.Second)
		if rec := w.store.get("acme"); rec.GetGeneration() != 1 || rec.GetLease() != nil {
			t.Error("the answer was lost while the store was away")
		}
		if w.bitbucket.count() != 1 {
			t.Errorf("%d refreshes", w.bitbucket.count())
		}
	})
}

func TestRefresh_lostAcknowledgements(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := w.process("P1")
		defer closeAll(t, m)
		w.connect(m, "acme")
		w.expire("acme")
		// Of the answer: it was stored, and is stored once.
		w.bitbucket.onAnswer = func(context.Context) { w.store.mu.Lock(); w.store.lost = 1; w.store.mu.Unlock() }
		if _, err := m.Issue(background, "acme", DefaultMinLife, nil); err != nil {
			t.Fatal(err)
		}
		if rec := w.store.get("acme"); rec.GetGeneration() != 1 || len(rec.GetSpares()) != 1 {
			t.Errorf("generation %d, %d spares", rec.GetGeneration(), len(rec.GetSpares()))
		}
		// Of the lease: it is our own, and taken again without waiting.
		w.bitbucket.onAnswer = nil
		w.expire("acme")
		w.store.mu.Lock()
		w.store.lost = 1
		w.store.mu.Unlock()
		if _, err := m.Issue(background, "acme", DefaultMinLife, nil); !apierr.Has(errToAPI(err), apierr.ReasonStorageUnavailable) {
			t.Errorf("a lease of unknown fate: %v", err)
		}
		begin := time.Now()
		if _, err := m.Issue(background, "acme", DefaultMinLife, nil); err != nil || time.Since(begin) > 2*time.Second {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
	})
}

func TestTakeOver_afterThirtySecondsOfSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.bitbucket.grace = true
		dead, alive := w.process("dead"), w.process("alive")
		w.connect(alive, "acme")
		w.expire("acme")
		// The holder is stopped between Bitbucket's answer and the write.
		stopped := make(chan struct{})
		var once sync.Once
		w.bitbucket.onAnswer = func(context.Context) {
			once.Do(func() {
				w.bitbucket.set(func() { w.bitbucket.onAnswer = nil })
				<-stopped
			})
		}
		go func() { _, _ = dead.Issue(background, "acme", DefaultMinLife, nil) }()
		pass(2 * time.Second)
		begin := time.Now()
		tok, err := alive.Issue(background, "acme", DefaultMinLife, nil)
		if took := time.Since(begin); err != nil || took < 30*time.Second || took > 35*time.Second {
			t.Fatalf("after %v: %v", took, err)
		}
		if tok.Access.Reveal() != "access-acme-3" {
			t.Error("not the second answer")
		}
		// The stopped one wakes up: its answer is a spare, and it is found out which one is good.
		close(stopped)
		synctest.Wait()
		closeAll(t, dead, alive)
		rec := w.store.get("acme")
		if !rec.GetVerify() || len(rec.GetSpares()) != 2 {
			t.Errorf("verify %v, %d spares", rec.GetVerify(), len(rec.GetSpares()))
		}
	})
}

func TestLateAnswer_theGoodTokenIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.bitbucket.grace = true
		slow, other := w.process("slow"), w.process("other")
		w.connect(other, "acme")
		w.expire("acme")
		// slow is stopped before its request reaches Bitbucket: its answer is the newer one, and the
		// one that the other stored is dead.
		block := make(chan struct{})
		slow.cfg.Bitbucket = refresherFunc(func(ctx context.Context, tok secret) (bitbucket.Grant, error) {
			<-block
			return w.bitbucket.Refresh(context.WithoutCancel(ctx), tok)
		})
		stop := w.keep(other)
		go func() { _, _ = slow.Issue(background, "acme", DefaultMinLife, nil) }()
		pass(time.Second)
		if _, err := other.Issue(background, "acme", DefaultMinLife, nil); err != nil {
			t.Fatal(err)
		}
		close(block)
		pass(10 * time.Minute)
		rec := w.store.get("acme")
		if rec.GetVerify() || rec.GetFailure() != nil {
			t.Errorf("verify %v, failure %v", rec.GetVerify(), rec.GetFailure())
		}
		w.expire("acme")
		if _, err := other.Issue(background, "acme", DefaultMinLife, nil); err != nil {
			t.Errorf("the connection was lost: %v", err)
		}
		stop()
		closeAll(t, slow)
	})
}

func TestRemovedOrReconnectedMeanwhile_nothingIsResurrected(t *testing.T) {
	for _, reconnect := range []bool{false, true} {
		t.Run(fmt.Sprint("reconnect ", reconnect), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				m := w.process("P1")
				w.connect(m, "acme")
				w.expire("acme")
				w.bitbucket.onAnswer = func(context.Context) {
					w.bitbucket.set(func() { w.bitbucket.onAnswer = nil })
					w.store.remove("acme")
					if reconnect {
						w.connect(m, "acme")
					}
				}
				tok, err := m.Issue(background, "acme", DefaultMinLife, nil)
				closeAll(t, m)
				rec := w.store.get("acme")
				if !reconnect {
					if !apierr.Has(err, apierr.ReasonNotConnected) || rec != nil {
						t.Errorf("%v, %v", err, rec)
					}
					return
				}
				if err != nil || tok.Access.Reveal() != "access-acme-3" || rec.GetConnectionId() != "connection-2" || rec.GetGeneration() != 0 || len(rec.GetSpares()) != 0 {
					t.Errorf("%v, connection %s, generation %d", err, rec.GetConnectionId(), rec.GetGeneration())
				}
			})
		})
	}
}

func TestRefresh_person(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := w.process("P1")
		defer closeAll(t, m)
		if _, err := m.Refresh(background, "acme"); !apierr.Has(err, apierr.ReasonNotConnected) {
			t.Errorf("nothing there: %v", err)
		}
		w.connect(m, "acme")
		pass(time.Minute)
		for range 3 { // clicks
			rec, err := m.Refresh(background, "acme")
			if err != nil || rec.GetGeneration() != 1 {
				t.Fatalf("generation %d: %v", rec.GetGeneration(), err)
			}
		}
		w.bitbucket.fail = func(string) error {
			return &bitbucket.OAuthError{Class: bitbucket.OAuthTransient, Status: 503}
		}
		pass(time.Minute)
		_, err := m.Refresh(background, "acme")
		if !apierr.Has(err, apierr.ReasonBitbucketUnavailable) || !strings.Contains(err.Error(), "(503)") {
			t.Errorf("%v", err)
		}
		w.bitbucket.set(func() { w.bitbucket.fail = nil })
		pass(personRetry)
		if rec, err := m.Refresh(background, "acme"); err != nil || rec.GetFailure() != nil {
			t.Errorf("%v", err)
		}
	})
}
