package rotation

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	authstorev1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/store/v1"
)

var t0 = time.Date(2026, 11, 22, 13, 2, 0, 0, time.UTC)

func connected() *authstorev1.Integration {
	r := newConnection("first", token{1, 0}, t0)
	r.SiteUrl, r.ConsumerKey = "https://bitbucket.org", "key"
	r.Access.ExpireTime = timestamppb.New(t0.Add(2 * time.Hour))
	return r
}

// refuse runs one attempt in which Bitbucket refuses everything.
func refuse(t *testing.T, rec *authstorev1.Integration, now time.Time, r Refusal) *authstorev1.Integration {
	t.Helper()
	rec, at := Acquire(rec, "P1", now, AcquireOptions{})
	r.Began = now
	if r.Fingerprint == "" {
		r.Fingerprint = "f"
	}
	next, out := RecordRefusal(rec, at, r, now.Add(time.Second))
	if out != Recorded || next == nil {
		t.Fatalf("outcome %v", out)
	}
	if next.GetLease() != nil {
		t.Fatal("the lease was not given back")
	}
	return next
}

func pause(rec *authstorev1.Integration) time.Duration {
	f := rec.GetFailure()
	return f.GetRetryTime().AsTime().Sub(f.GetLastTime().AsTime())
}

func TestRecordRefusal_twoMinutesApartGiveUpAndDailyRetries(t *testing.T) {
	rec := refuse(t, connected(), t0, Refusal{})
	if rec.GetReconnectRequired() || pause(rec) != 10*time.Minute {
		t.Fatalf("after one refusal: given up %v, retry in %v", rec.GetReconnectRequired(), pause(rec))
	}
	rec = refuse(t, rec, t0.Add(11*time.Minute), Refusal{})
	if !rec.GetReconnectRequired() || pause(rec) != ReconnectRetry {
		t.Fatalf("after two: given up %v, retry in %v", rec.GetReconnectRequired(), pause(rec))
	}
	if n := len(rec.GetRefusalTimes()); n != 2 {
		t.Fatalf("%d refusals kept", n)
	}
	// A day later Bitbucket accepts it after all.
	rec, at := Acquire(rec, "P1", t0.Add(25*time.Hour), AcquireOptions{})
	rec, out := StoreAnswer(rec, at, Answer{Spent: token{1, 0}.id(), RefreshID: token{1, 1}.id(), Fingerprint: "f"}, t0.Add(25*time.Hour))
	if out != Stored || rec.GetReconnectRequired() || rec.GetFailure() != nil || len(rec.GetRefusalTimes()) != 0 {
		t.Fatalf("after a success: %v %v", out, rec)
	}
}

func TestRecordRefusal_evidence(t *testing.T) {
	later := t0.Add(11 * time.Minute)
	cases := []struct {
		name   string
		first  Refusal
		second Refusal
		gone   bool
	}{
		{name: "no other connection", gone: true},
		{name: "others, none renewed since", second: Refusal{Evidence: Evidence{Others: true, LastSuccess: t0.Add(-time.Minute)}}},
		{name: "others, one renewed since", second: Refusal{Evidence: Evidence{Others: true, LastSuccess: t0.Add(5 * time.Minute)}}, gone: true},
		{name: "another was refused a minute before", second: Refusal{Evidence: Evidence{Others: true, LastSuccess: t0.Add(5 * time.Minute), LastRefusal: later.Add(-time.Minute)}}},
		{name: "the consumer was changed", first: Refusal{Fingerprint: "new"}, second: Refusal{Fingerprint: "new"}},
		{name: "the consumer was changed in between", second: Refusal{Fingerprint: "new"}},
		{name: "Bitbucket names the consumer", first: Refusal{Consumer: true}, second: Refusal{Consumer: true}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			rec := refuse(t, connected(), t0, c.first)
			rec = refuse(t, rec, later, c.second)
			if rec.GetReconnectRequired() != c.gone {
				t.Errorf("given up: %v, want %v", rec.GetReconnectRequired(), c.gone)
			}
			if Standing(rec) == authstorev1.Schedule_CONNECTED {
				t.Error("looks connected")
			}
		})
	}
}

func TestRecordRefusal_secondsApartIsOne(t *testing.T) {
	rec := refuse(t, connected(), t0, Refusal{})
	rec = refuse(t, rec, t0.Add(30*time.Second), Refusal{})
	if rec.GetReconnectRequired() || len(rec.GetRefusalTimes()) != 1 {
		t.Errorf("given up %v after %d refusals", rec.GetReconnectRequired(), len(rec.GetRefusalTimes()))
	}
}

func TestRecordRefusal_retryDoubles(t *testing.T) {
	others := Refusal{Evidence: Evidence{Others: true}}
	rec, now := connected(), t0
	var got []time.Duration
	for range 6 {
		rec = refuse(t, rec, now, others)
		got = append(got, pause(rec))
		now = rec.GetFailure().GetRetryTime().AsTime()
	}
	want := []time.Duration{10 * time.Minute, 20 * time.Minute, 40 * time.Minute, 80 * time.Minute, 2 * time.Hour, 2 * time.Hour}
	if !slices.Equal(got, want) {
		t.Errorf("pauses %v, want %v", got, want)
	}
	if rec.GetFailure().GetSinceTime().AsTime() != t0.Add(time.Second) {
		t.Errorf("since %v", rec.GetFailure().GetSinceTime().AsTime())
	}
}

func TestRecordTrouble_neverCounts(t *testing.T) {
	rec, now := connected(), t0
	for i := range 30 {
		var at Attempt
		rec, at = Acquire(rec, "P1", now, AcquireOptions{})
		tr := Trouble{Status: 503, Fingerprint: "f"}
		if i%2 == 1 {
			tr = Trouble{Status: 429, RateLimited: true, Fingerprint: "f"}
		}
		var out Outcome
		rec, out = RecordTrouble(rec, at, tr, now)
		if out != Recorded || rec.GetLease() != nil {
			t.Fatalf("outcome %v", out)
		}
		if i%2 == 1 && pause(rec) < RateLimitRetry {
			t.Fatalf("after 429 retry in %v", pause(rec))
		}
		now = rec.GetFailure().GetRetryTime().AsTime()
	}
	if rec.GetReconnectRequired() || len(rec.GetRefusalTimes()) != 0 || Standing(rec) != authstorev1.Schedule_REFRESH_FAILING {
		t.Errorf("given up: %v", rec)
	}
	if now.Sub(t0) < 30*time.Minute {
		t.Errorf("30 attempts within %v", now.Sub(t0))
	}
}

func TestRecordTrouble_honoursRetryAfter(t *testing.T) {
	for _, asked := range []time.Duration{2 * time.Second, 12 * time.Minute} {
		for _, tr := range []Trouble{{Status: 429, RateLimited: true, RetryAfter: asked}, {Status: 503, RetryAfter: asked}} {
			rec := connected()
			for range 5 { // however often it says so
				leased, at := Acquire(rec, "P1", t0, AcquireOptions{})
				rec, _ = RecordTrouble(leased, at, tr, t0)
			}
			if pause(rec) != asked {
				t.Errorf("%d: retry in %v, asked for %v", tr.Status, pause(rec), asked)
			}
		}
	}
}

func TestRejectFresh_isTakenBack(t *testing.T) {
	rec := RejectFresh(connected(), "f", t0)
	if Standing(rec) != authstorev1.Schedule_REFRESH_FAILING || !rec.GetAccess().GetRejected() || pause(rec) != RejectedProbe {
		t.Fatalf("%v, next in %v", rec, pause(rec))
	}
	if _, renew, want := Upkeep(rec, t0, 0, t0.Add(RejectedProbe)); !renew || want.Force {
		t.Errorf("renew %v, force %v", renew, want.Force)
	}
	again := AcceptAgain(rec)
	if Standing(again) != authstorev1.Schedule_CONNECTED || again.GetAccess().GetRejected() || RejectedAgain(again, t0) {
		t.Errorf("%v", again)
	}
	for now := t0; now.Before(t0.Add(2 * time.Hour)); now = rec.GetFailure().GetRetryTime().AsTime() {
		rec = RejectFresh(rec, "f", now)
	}
	if pause(rec) != RejectedRetry {
		t.Errorf("asked every %v after two hours", pause(rec))
	}
}

func TestStoreAnswer(t *testing.T) {
	old, got := token{1, 0}, token{1, 1}
	ans := Answer{Spent: old.id(), RefreshID: got.id(), Refresh: got.id(), Access: []byte("a1"), Expiry: t0.Add(2 * time.Hour), Fingerprint: "f"}
	leased, at := Acquire(connected(), "P1", t0, AcquireOptions{})

	t.Run("replaces, keeps the spent token for ten minutes", func(t *testing.T) {
		next, out := StoreAnswer(leased, at, ans, t0)
		if out != Stored || tokenOf(next.GetRefresh().GetId()) != got || next.GetGeneration() != 1 || next.GetLease() != nil {
			t.Fatalf("%v %v", out, next)
		}
		s := next.GetSpares()
		if len(s) != 1 || tokenOf(s[0].GetId()) != old || s[0].GetLate() || s[0].GetExpireTime().AsTime() != t0.Add(10*time.Minute) {
			t.Errorf("spares %v", s)
		}
		if Tidy(next, t0.Add(9*time.Minute)) != nil {
			t.Error("tidied too early")
		}
		if tidy := Tidy(next, t0.Add(10*time.Minute)); tidy == nil || len(tidy.GetSpares()) != 0 {
			t.Error("the spare outlived its time")
		}
	})
	t.Run("twice is once", func(t *testing.T) {
		next, _ := StoreAnswer(leased, at, ans, t0)
		again, out := StoreAnswer(next, at, ans, t0)
		if out != StoredBefore || again != nil {
			t.Errorf("%v %v", out, again)
		}
	})
	t.Run("someone else holds the lease by now", func(t *testing.T) {
		taken, _ := Acquire(leased, "P2", t0.Add(time.Minute), AcquireOptions{})
		next, out := StoreAnswer(taken, at, ans, t0.Add(time.Minute))
		if out != Stored || next.GetLease().GetHolder() != "P2" {
			t.Errorf("%v, lease %v", out, next.GetLease())
		}
	})
	t.Run("late answers become spares, to be looked into at once", func(t *testing.T) {
		taken, other := Acquire(leased, "P2", t0, AcquireOptions{})
		stored, _ := StoreAnswer(taken, other, Answer{Spent: old.id(), RefreshID: token{1, 2}.id(), Fingerprint: "f"}, t0)
		next, out := StoreAnswer(stored, at, ans, t0)
		if out != KeptAsSpare || tokenOf(next.GetRefresh().GetId()) != (token{1, 2}) || !next.GetVerify() {
			t.Fatalf("%v %v", out, next)
		}
		if due, renew, want := Upkeep(next, time.Time{}, 0, t0); !renew || due.After(t0) || !want.Force {
			t.Errorf("due %v renew %v", due, renew)
		}
		_, again := Acquire(next, "P1", t0, AcquireOptions{})
		var order []token
		for _, c := range again.Candidates {
			order = append(order, tokenOf(c.ID))
		}
		if !slices.Equal(order, []token{{1, 2}, {1, 1}, {1, 0}}) {
			t.Errorf("candidates %v", order)
		}
	})
	t.Run("removed meanwhile", func(t *testing.T) {
		if next, out := StoreAnswer(nil, at, ans, t0); out != Dropped || next != nil {
			t.Errorf("%v %v", out, next)
		}
	})
	t.Run("connected anew meanwhile", func(t *testing.T) {
		if next, out := StoreAnswer(newConnection("second", token{1, 0}, t0), at, ans, t0); out != Dropped || next != nil {
			t.Errorf("%v %v", out, next)
		}
	})
	t.Run("Bitbucket does not rotate", func(t *testing.T) {
		same := ans
		same.RefreshID = old.id()
		next, out := StoreAnswer(leased, at, same, t0)
		if out != Stored || len(next.GetSpares()) != 0 || string(next.GetAccess().GetSealed()) != "a1" {
			t.Errorf("%v %v", out, next)
		}
	})
	t.Run("unknown expiry stays unknown", func(t *testing.T) {
		unknown := ans
		unknown.Expiry = time.Time{}
		next, _ := StoreAnswer(leased, at, unknown, t0)
		if next.GetAccess().GetExpireTime() != nil {
			t.Error("an expiry was made up")
		}
	})
	t.Run("never more than three spares", func(t *testing.T) {
		rec := connected()
		for i := range byte(6) {
			var a Attempt
			rec, a = Acquire(rec, "P1", t0, AcquireOptions{})
			rec, _ = StoreAnswer(rec, a, Answer{Spent: token{1, i}.id(), RefreshID: token{1, i + 1}.id()}, t0)
		}
		if len(rec.GetSpares()) != MaxSpares || tokenOf(rec.GetSpares()[0].GetId()) != (token{1, 5}) {
			t.Errorf("spares %v", rec.GetSpares())
		}
	})
}

func TestRules_changeNoArgument(t *testing.T) {
	rec := connected()
	before := proto.CloneOf(rec)
	leased, at := Acquire(rec, "P1", t0, AcquireOptions{RejectAccess: true})
	if !proto.Equal(rec, before) {
		t.Fatal("Acquire changed its argument")
	}
	before = proto.CloneOf(leased)
	StoreAnswer(leased, at, Answer{Spent: token{1, 0}.id(), RefreshID: token{1, 1}.id()}, t0)
	RecordRefusal(leased, at, Refusal{}, t0)
	RecordTrouble(leased, at, Trouble{}, t0)
	RejectFresh(leased, "f", t0)
	AcceptAgain(leased)
	Tidy(leased, t0.Add(time.Hour))
	if !proto.Equal(leased, before) {
		t.Fatal("a function that ends an attempt changed its argument")
	}
}
