package rotation

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	authstorev1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/store/v1"
)

func TestDecide(t *testing.T) {
	consumer := Consumer{SiteURL: "https://bitbucket.org", Key: "key", Fingerprint: "f"}
	change := func(f func(*authstorev1.Integration)) *authstorev1.Integration {
		r := connected()
		f(r)
		return r
	}
	failing := func(kind authstorev1.Failure_Kind) func(*authstorev1.Integration) {
		return func(r *authstorev1.Integration) {
			r.Access.ExpireTime = timestamppb.New(t0)
			r.Failure = &authstorev1.Failure{Kind: kind, Fingerprint: "f", LastTime: timestamppb.New(t0.Add(-time.Minute)), RetryTime: timestamppb.New(t0.Add(time.Minute))}
		}
	}
	expired := func(r *authstorev1.Integration) { r.Access.ExpireTime = timestamppb.New(t0) }
	seen := Want{MinLife: 5 * time.Minute, SeenConnection: "first"}
	atFault := consumer
	atFault.Health = Health{AtFault: true}

	cases := []struct {
		name     string
		rec      *authstorev1.Integration
		want     Want
		consumer Consumer
		stale    bool
		verb     Verb
		denial   Denial
	}{
		{name: "nothing there", verb: Deny, denial: NotConnected},
		{name: "fresh", rec: connected(), want: seen, verb: Serve},
		{name: "too short a life", rec: connected(), want: Want{MinLife: 3 * time.Hour, SeenConnection: "first"}, verb: Renew},
		{name: "expired", rec: change(expired), want: seen, verb: Renew},
		{name: "unknown expiry is expired", rec: change(func(r *authstorev1.Integration) { r.Access.ExpireTime = nil }), want: seen, verb: Renew},
		{name: "unknown expiry, got just now", rec: change(func(r *authstorev1.Integration) { r.Access.ExpireTime = nil; r.Generation = 1 }), want: seen, verb: Serve},
		{name: "short life, got just now", rec: change(func(r *authstorev1.Integration) {
			r.Access.ExpireTime = timestamppb.New(t0.Add(time.Minute))
			r.Generation = 1
		}), want: seen, verb: Serve},
		{name: "valid while another refreshes", rec: change(func(r *authstorev1.Integration) { r.Lease = &authstorev1.Lease{Holder: "P2"} }), want: seen, verb: Serve},
		{name: "expired while another refreshes", rec: change(func(r *authstorev1.Integration) { expired(r); r.Lease = &authstorev1.Lease{Holder: "P2"} }), want: seen, verb: Wait},
		{name: "expired, the other is silent", rec: change(func(r *authstorev1.Integration) { expired(r); r.Lease = &authstorev1.Lease{Holder: "P2"} }), want: seen, stale: true, verb: Renew},
		{name: "own lease of before", rec: change(func(r *authstorev1.Integration) { expired(r); r.Lease = &authstorev1.Lease{Holder: "P1"} }), want: seen, verb: Renew},
		{name: "rejected", rec: connected(), want: Want{Rejected: true, SeenConnection: "first"}, verb: Renew},
		{name: "marked as rejected", rec: change(func(r *authstorev1.Integration) { r.Access.Rejected = true }), want: seen, verb: Renew},
		{name: "forced", rec: connected(), want: Want{Force: true, SeenConnection: "first"}, verb: Renew},
		{name: "forced and done", rec: change(func(r *authstorev1.Integration) { r.Generation = 1 }), want: Want{Force: true, SeenConnection: "first"}, verb: Serve},
		{name: "failing, not due", rec: change(failing(authstorev1.Failure_UNAVAILABLE)), want: seen, verb: Deny, denial: Failing},
		{name: "failing, a person asks", rec: change(failing(authstorev1.Failure_UNAVAILABLE)), want: Want{Force: true, Person: true, SeenConnection: "first"}, verb: Renew},
		{name: "refused, a person asks", rec: change(failing(authstorev1.Failure_REFUSED)), want: Want{Force: true, Person: true, SeenConnection: "first"}, verb: Deny, denial: Failing},
		{name: "rate limited, a person asks", rec: change(failing(authstorev1.Failure_RATE_LIMITED)), want: Want{Force: true, Person: true, SeenConnection: "first"}, verb: Deny, denial: Failing},
		{name: "failing, the consumer was changed", rec: change(failing(authstorev1.Failure_REFUSED)), want: seen, consumer: Consumer{SiteURL: "https://bitbucket.org", Key: "key", Fingerprint: "new"}, verb: Renew},
		{name: "another site", rec: connected(), want: seen, consumer: Consumer{SiteURL: "http://localhost:8081", Key: "key"}, verb: Deny, denial: OtherSite},
		{name: "another consumer, token valid", rec: connected(), want: seen, consumer: Consumer{SiteURL: "https://bitbucket.org", Key: "other"}, verb: Serve},
		{name: "another consumer, token expired", rec: change(expired), want: seen, consumer: Consumer{SiteURL: "https://bitbucket.org", Key: "other"}, verb: Deny, denial: OtherConsumer},
		{name: "paused", rec: change(expired), want: seen, consumer: atFault, verb: Deny, denial: ConsumerAtFault},
		{name: "paused, token valid", rec: connected(), want: seen, consumer: atFault, verb: Serve},
		{name: "paused, the refused probe", rec: change(func(r *authstorev1.Integration) {
			failing(authstorev1.Failure_REFUSED)(r)
			r.Failure.RetryTime = timestamppb.New(t0)
		}), want: seen, consumer: atFault, verb: Renew},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if c.consumer.SiteURL == "" {
				c.consumer = consumer
			}
			verb, denial := Decide(c.rec, Question{Want: c.want, Consumer: c.consumer, Self: "P1", LeaseStale: c.stale, Now: t0})
			if verb != c.verb || denial != c.denial {
				t.Errorf("verb %v denial %v, want %v %v", verb, denial, c.verb, c.denial)
			}
		})
	}
}

func TestUpkeep(t *testing.T) {
	rec := connected() // expires at two hours
	due := func(lastUse, now time.Time, spread float64) time.Duration {
		d, _, _ := Upkeep(rec, lastUse, spread, now)
		return d.Sub(t0)
	}
	if d := due(t0, t0, 0); d != 90*time.Minute {
		t.Errorf("in use: due after %v", d)
	}
	if d := due(t0, t0, 0.5); d != 85*time.Minute {
		t.Errorf("in use, spread: due after %v", d)
	}
	if d := due(time.Time{}, t0, 0); d != 7*24*time.Hour {
		t.Errorf("never used: due after %v", d)
	}
	if d := due(t0.Add(-2*time.Hour), t0, 0.5); d != 7*24*time.Hour-12*time.Hour {
		t.Errorf("not used lately: due after %v", d)
	}
	if _, renew, _ := Upkeep(rec, t0, 0, t0.Add(90*time.Minute)); !renew {
		t.Error("due and not renewed")
	}
	rec.Spares = []*authstorev1.SpareToken{{Id: token{1, 9}.id(), ExpireTime: timestamppb.New(t0.Add(10 * time.Minute))}}
	if d, renew, _ := Upkeep(rec, t0, 0, t0); d != t0.Add(10*time.Minute) || renew {
		t.Errorf("spare: due %v renew %v", d.Sub(t0), renew)
	}
	rec.Access.ExpireTime = timestamppb.New(t0.Add(10 * time.Minute)) // a consumer with short tokens
	rec.Spares = nil
	if d := due(t0, t0, 0); d != 5*time.Minute {
		t.Errorf("short tokens: due after %v", d)
	}
}

func TestHealthOf(t *testing.T) {
	at := func(m int) *timestamppb.Timestamp { return timestamppb.New(t0.Add(time.Duration(m) * time.Minute)) }
	ok := func(ws string, m int) *authstorev1.Schedule {
		return &authstorev1.Schedule{Workspace: ws, ConsumerKey: "key", SuccessFingerprint: "f", LastSuccessTime: at(m), State: authstorev1.Schedule_CONNECTED}
	}
	no := func(ws string, success, refusal int) *authstorev1.Schedule {
		s := ok(ws, success)
		s.State, s.RefusedFingerprint, s.FirstRefusalTime, s.LastRefusalTime, s.RetryTime = authstorev1.Schedule_REFRESH_FAILING, "f", at(refusal), at(refusal), at(refusal+10)
		return s
	}
	gone := func(s *authstorev1.Schedule) *authstorev1.Schedule {
		s.State = authstorev1.Schedule_RECONNECT_REQUIRED
		return s
	}
	cases := []struct {
		name    string
		all     []*authstorev1.Schedule
		atFault bool
	}{
		{name: "none"},
		{name: "one refused", all: []*authstorev1.Schedule{no("a", -60, 0), ok("b", -5)}},
		{name: "two refused, none renewed since", all: []*authstorev1.Schedule{no("a", -60, 0), no("b", -50, 1), ok("c", -5)}, atFault: true},
		{name: "two refused, one renewed since", all: []*authstorev1.Schedule{no("a", -60, 0), no("b", -50, 1), ok("c", 2)}},
		{name: "one of the two was given up", all: []*authstorev1.Schedule{no("a", -60, 0), gone(no("b", -50, 1))}},
		{name: "with another fingerprint", all: []*authstorev1.Schedule{{Workspace: "a", RefusedFingerprint: "old", LastRefusalTime: at(0)}, {Workspace: "b", RefusedFingerprint: "old", LastRefusalTime: at(0)}}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			h := HealthOf(slices.Values(c.all), "f")
			if h.AtFault != c.atFault {
				t.Errorf("at fault: %v", h.AtFault)
			}
			if h.AtFault && (!h.Since.Equal(at(0).AsTime()) || !h.Retry.Equal(at(10).AsTime())) {
				t.Errorf("since %v, retry %v", h.Since, h.Retry)
			}
		})
	}
	e := EvidenceOf(slices.Values([]*authstorev1.Schedule{no("a", -60, 0), ok("b", 3), gone(no("c", -60, 7))}), "a", "key", "f")
	if !e.Others || !e.LastSuccess.Equal(at(3).AsTime()) || !e.LastRefusal.Equal(at(7).AsTime()) {
		t.Errorf("evidence %+v", e)
	}
	if e := EvidenceOf(slices.Values([]*authstorev1.Schedule{no("a", -60, 0), gone(no("c", -60, -30))}), "a", "key", "f"); e.Others {
		t.Error("a connection that was given up counts as another one")
	}
}
