package token

import (
	"crypto/sha256"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
	authstorev1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/store/v1"
	"devpilot.io/bitbucket/services/auth/internal/rotation"
)

func sum(token Token) []byte {
	s := sha256.Sum256([]byte(token.Access.Reveal()))
	return s[:]
}

func mustIssue(t *testing.T, m *Manager, rejected []byte) Token {
	t.Helper()
	tok, err := m.Issue(background, "acme", DefaultMinLife, rejected)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// Bitbucket answers 401 for one repository and accepts the token everywhere else.
func TestIssue_a401AboutOneThingDoubtsNoConnection(t *testing.T) {
	for name, answer := range map[string]error{
		"accepted":              nil,
		"a scope is missing":    &bitbucket.Error{Kind: bitbucket.KindScopeMissing, Status: 403},
		"the address is barred": &bitbucket.Error{Kind: bitbucket.KindAccessRestricted, Status: 403},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				m := w.process("P1")
				stop := w.keep(m)
				defer stop()
				w.connect(m, "acme")
				w.setProbe(func(string) error { return answer })
				first := mustIssue(t, m, nil)
				const minutes = 20
				for range minutes * 4 { // a storm: many callers, again and again
					var wg sync.WaitGroup
					for range 10 {
						wg.Go(func() {
							if tok, err := m.Issue(background, "acme", DefaultMinLife, sum(first)); err != nil || !tok.Access.Equal(first.Access) {
								t.Errorf("another token, or %v", err)
							}
						})
					}
					wg.Wait()
					pass(15 * time.Second)
				}
				if rec := w.store.get("acme"); rec.GetFailure() != nil || rotation.Standing(rec) != authstorev1.Schedule_CONNECTED || rec.GetGeneration() != 0 {
					t.Errorf("doubted: %v", rec)
				}
				if n := w.bitbucket.count(); n != 0 {
					t.Errorf("%d refreshes", n)
				}
				if n := w.probeCount(); n > minutes+1 {
					t.Errorf("%d probes in %d minutes", n, minutes)
				}
			})
		})
	}
}

// The account revoked the access: the token is rejected whatever is asked for.
func TestIssue_revokedAccessIsFoundAsBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := w.process("P1")
		stop := w.keep(m)
		defer stop()
		w.connect(m, "acme")
		w.setProbe(func(string) error { return nil })
		first := mustIssue(t, m, nil)
		mustIssue(t, m, sum(first)) // about one thing, a moment before
		w.bitbucket.revoke("acme")
		w.setProbe(nil)
		pass(acceptedFor)
		_, err := m.Issue(background, "acme", DefaultMinLife, sum(first))
		if !apierr.Has(err, apierr.ReasonTokenExpired) {
			t.Fatalf("%v", err)
		}
		pass(30 * time.Minute)
		if !w.store.get("acme").GetReconnectRequired() {
			t.Errorf("not given up: %v", w.store.get("acme").GetFailure())
		}
	})
}

func TestIssue_whileNobodyCanTellTheConnectionIsNotDoubted(t *testing.T) {
	for name, answer := range map[string]*bitbucket.Error{
		"no answer": {Kind: bitbucket.KindNetwork}, "503": {Kind: bitbucket.KindUnavailable, Status: 503}, "404 to everything": {Kind: bitbucket.KindNotFound, Status: 404},
		"429": {Kind: bitbucket.KindRateLimited, Status: 429, RetryAfter: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				m := w.process("P1")
				defer closeAll(t, m)
				w.connect(m, "acme")
				w.setProbe(func(string) error { return answer })
				first := mustIssue(t, m, nil)
				for range 100 {
					_, err := m.Issue(background, "acme", DefaultMinLife, sum(first))
					if e := apierr.From(err); e.Reason() != apierr.ReasonBitbucketUnavailable || e.RetryAfter() <= 0 || e.RetryAfter() > time.Minute {
						t.Fatalf("%v", err)
					}
				}
				if tok := mustIssue(t, m, nil); !tok.Access.Equal(first.Access) { // the others go on
					t.Error("another token")
				}
				if rec := w.store.get("acme"); rec.GetFailure() != nil || w.bitbucket.count() != 0 || w.probeCount() != 1 {
					t.Errorf("failure %v, %d refreshes, %d probes", rec.GetFailure(), w.bitbucket.count(), w.probeCount())
				}
				pass(undecidedMost)
				w.setProbe(func(string) error { return nil })
				if tok := mustIssue(t, m, sum(first)); !tok.Access.Equal(first.Access) {
					t.Error("another token")
				}
			})
		})
	}
}

// Other workspaces have used the budget of calls up: that must not keep an expired token in use.
func TestIssue_withoutABudgetForTheQuestionARefreshAnswersIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := w.process("P1")
		defer closeAll(t, m)
		w.connect(m, "acme")
		w.setProbe(func(string) error { return &bitbucket.Error{Kind: bitbucket.KindRateLimited, RetryAfter: time.Hour} })
		first := mustIssue(t, m, nil)
		second := mustIssue(t, m, sum(first))
		if second.Access.Equal(first.Access) || w.bitbucket.count() != 1 {
			t.Fatalf("%d refreshes, the same token: %t", w.bitbucket.count(), second.Access.Equal(first.Access))
		}
		// A 401 to the new one is about something else, or nobody can tell: it is not renewed over and over,
		// and the connection is not doubted.
		for range 50 {
			if _, err := m.Issue(background, "acme", DefaultMinLife, sum(second)); !apierr.Has(err, apierr.ReasonBitbucketUnavailable) {
				t.Fatalf("%v", err)
			}
			pass(time.Second)
		}
		if rec := w.store.get("acme"); rec.GetFailure() != nil || w.bitbucket.count() != 1 {
			t.Errorf("failure %v, %d refreshes", rec.GetFailure(), w.bitbucket.count())
		}
	})
}

// For a while Bitbucket answers 401 to everything, also to tokens that it has just issued.
func TestIssue_aConnectionComesBackWhenItsTokensAreAcceptedAgain(t *testing.T) {
	for name, outage := range map[string]time.Duration{"a minute": time.Minute, "45 minutes": 45 * time.Minute, "half a day": 12 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				m := w.process("P1")
				stop := w.keep(m)
				defer stop()
				w.connect(m, "acme")
				end := time.Now().Add(outage)
				w.setProbe(func(string) error {
					if time.Now().Before(end) {
						return errUnauthorized
					}
					return nil
				})
				first := mustIssue(t, m, nil)
				second := mustIssue(t, m, sum(first)) // a first 401 has the token renewed
				if _, err := m.Issue(background, "acme", DefaultMinLife, sum(second)); !apierr.Has(err, apierr.ReasonTokenExpired) {
					t.Fatalf("%v", err)
				}
				if rec := w.store.get("acme"); rotation.Standing(rec) != authstorev1.Schedule_REFRESH_FAILING {
					t.Fatalf("%v", rec.GetFailure())
				}
				refreshes, probes := w.bitbucket.count(), w.probeCount()
				pass(time.Until(end))
				timeout := time.Minute
				if outage > time.Hour {
					timeout = rotation.RejectedRetry + time.Minute
				}
				pass(timeout)
				if rec := w.store.get("acme"); rotation.Standing(rec) != authstorev1.Schedule_CONNECTED || rec.GetAccess().GetRejected() {
					t.Errorf("%v after the end", rec.GetFailure())
				}
				mustIssue(t, m, nil)
				if n, limit := w.bitbucket.count()-refreshes, int(outage/rotation.RejectedRetry)+1; n > limit {
					t.Errorf("%d refreshes, at most %d in %v", n, limit, outage)
				}
				if n, limit := w.probeCount()-probes, int(min(outage, time.Hour)/rotation.RejectedProbe+outage/rotation.RejectedRetry)+10; n > limit {
					t.Errorf("%d probes, at most %d in %v", n, limit, outage)
				}
			})
		})
	}
}
