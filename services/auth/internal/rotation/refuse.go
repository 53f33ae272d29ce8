package rotation

import (
	"bytes"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	authstorev1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/store/v1"
)

// Times of the refusal rules (DESIGN.md#refusals).
const (
	// RefusalRetry is when the first refusal is followed up; it doubles, so that nobody can lock
	// the other connections of the consumer out (BITBUCKET.md#lock-out).
	RefusalRetry = 10 * time.Minute
	// MaxRefusalRetry caps the doubling.
	MaxRefusalRetry = 2 * time.Hour
	// ReconnectRetry is how often a connection is tried that was refused for good.
	ReconnectRetry = 24 * time.Hour
	// RefusalsApart is how far two refusals must lie apart to be two.
	RefusalsApart = 2 * time.Minute
	// LockOut is for how long after a refusal other ones are not believed, and SuspectRetry when
	// such a one is followed up first.
	LockOut      = 5 * time.Minute
	SuspectRetry = 3 * time.Minute
	// TroubleRetry is the first pause after an attempt without an answer, doubling up to
	// MaxTroubleRetry: an answer that was lost can be had again within Bitbucket's grace only, and
	// after an outage people wait. After an hour, LongTroubleRetry.
	TroubleRetry     = 5 * time.Second
	MaxTroubleRetry  = 30 * time.Second
	LongTroubleRetry = 5 * time.Minute
	longTrouble      = time.Hour
	// RateLimitRetry is the first pause after a 429 that does not say how long, doubling up to
	// MaxRateLimitRetry.
	RateLimitRetry    = 20 * time.Second
	MaxRateLimitRetry = 2 * time.Minute
	// RejectedRetry is the pause between refreshes while Bitbucket rejects tokens that it has only
	// just issued, and RejectedProbe how soon it is asked whether it accepts the last one again: for
	// the first hour, as an outage may be the reason.
	RejectedRetry = 5 * time.Minute
	RejectedProbe = 15 * time.Second
)

// Evidence is what the other connections of the same consumer tell about it.
type Evidence struct {
	// Others is whether there is another connection that is not refused for good.
	Others bool
	// LastSuccess is when another connection was renewed last with the consumer as it is now.
	LastSuccess time.Time
	// LastRefusal is when another connection was refused last with the consumer as it is now.
	LastRefusal time.Time
}

// Refusal is an attempt in which Bitbucket refused every candidate.
type Refusal struct {
	Fingerprint string // of the consumer
	// Consumer is set when Bitbucket named the consumer as what is wrong.
	Consumer bool
	Status   int
	// Began is when the first candidate was sent. It is read before sending, because the process
	// may be stopped for a while right after.
	Began    time.Time
	Evidence Evidence
	Jitter   float64 // in [0, 1): spreads the retries of many
}

// RecordRefusal decides what a refused attempt does to the record as it is now.
//
// A refusal counts as evidence that the connection is dead only if all of this holds. The OAuth
// consumer is the one of the connection's last success. Another connection was renewed since this
// one was first refused, or there is no other connection. No earlier refusal, of this connection or
// another, may have locked the consumer out. No other process may be in the middle of a refresh of
// its own. Every late token was tried. Two refusals that count, minutes apart, mean that somebody
// must connect again.
//
// next is nil when nothing is to be written.
func RecordRefusal(cur *authstorev1.Integration, at Attempt, r Refusal, now time.Time) (next *authstorev1.Integration, _ Outcome) {
	if cur == nil || cur.GetConnectionId() != at.ConnectionID {
		return nil, Dropped
	}
	next = proto.CloneOf(cur)
	next.LastRefusalTime = timestamppb.New(now)
	if at.Holds(cur) {
		next.Lease = nil
	}
	if !at.Holds(cur) || !at.unchanged(cur) {
		if f := next.GetFailure(); f != nil && next.GetVerify() {
			f.RetryTime = timestamppb.New(later(f.GetRetryTime().AsTime(), now.Add(LockOut)))
		}
		return next, Overtaken
	}
	next.Verify = false
	suspect := at.TookOver || maybeLockedOut(cur, r)
	if !suspect {
		markRefused(next, at)
	}
	untried := slices.ContainsFunc(next.GetSpares(), (*authstorev1.SpareToken).GetLate)

	kind := authstorev1.Failure_REFUSED
	if r.Consumer {
		kind = authstorev1.Failure_CONSUMER_REFUSED
	}
	fail(next, kind, r.Status, r.Fingerprint, now)
	if cur.GetFailure().GetFingerprint() != r.Fingerprint {
		next.RefusalTimes = nil
	}
	if kind == authstorev1.Failure_REFUSED && !untried && !suspect {
		next.RefusalTimes = appendTime(next.GetRefusalTimes(), now)
	}
	if counts(next, r) {
		next.ReconnectRequired = true
	}
	pause := doubled(RefusalRetry, MaxRefusalRetry, next.GetFailure().GetAttempts())
	switch {
	case next.GetReconnectRequired():
		pause = ReconnectRetry
	case suspect:
		pause = doubled(SuspectRetry, MaxRefusalRetry, next.GetFailure().GetAttempts())
	}
	retryIn(next, pause, r.Jitter, now)
	for _, s := range next.GetSpares() {
		if s.GetLate() { // it was not tried first yet
			s.ExpireTime = timestamppb.New(next.GetFailure().GetRetryTime().AsTime().Add(SpareLife))
		}
	}
	return next, Recorded
}

// maybeLockedOut reports whether an earlier refusal is so near that this one proves nothing about
// the tokens (BITBUCKET.md#lock-out).
func maybeLockedOut(cur *authstorev1.Integration, r Refusal) bool {
	near := func(refusal time.Time) bool { return r.Began.Sub(refusal) < LockOut }
	return (!r.Evidence.LastRefusal.IsZero() && near(r.Evidence.LastRefusal)) ||
		(cur.GetLastRefusalTime() != nil && near(cur.GetLastRefusalTime().AsTime()))
}

// markRefused remembers that the token tried first was refused without a lock-out of our own making.
// The others came behind it and have yet to be tried as the first.
func markRefused(rec *authstorev1.Integration, at Attempt) {
	first := at.Candidates[0].ID
	if bytes.Equal(first, at.Main) {
		rec.Refresh.Refused = true
		return
	}
	rec.Spares = keepSpares(rec.GetSpares(), func(s *authstorev1.SpareToken) bool { return !bytes.Equal(s.GetId(), first) })
}

// counts reports whether the refusals in the record are enough to give the connection up.
func counts(rec *authstorev1.Integration, r Refusal) bool {
	times := rec.GetRefusalTimes()
	if len(times) < 2 || r.Fingerprint != rec.GetSuccessFingerprint() {
		return false
	}
	first, last := times[0].AsTime(), times[len(times)-1].AsTime()
	if last.Sub(first) < RefusalsApart {
		return false
	}
	return !r.Evidence.Others || !r.Evidence.LastSuccess.Before(first)
}

// Trouble is an attempt without a usable answer.
type Trouble struct {
	RateLimited bool
	Status      int           // 0 without an answer
	RetryAfter  time.Duration // 0 when Bitbucket did not say
	Unreadable  bool          // Bitbucket was not asked: the stored token does not open
	Fingerprint string
	Jitter      float64
}

// RecordTrouble decides what an attempt without an answer does to the record as it is now. It never
// counts against the connection. next is nil when nothing is to be written.
func RecordTrouble(cur *authstorev1.Integration, at Attempt, tr Trouble, now time.Time) (next *authstorev1.Integration, _ Outcome) {
	if cur == nil || cur.GetConnectionId() != at.ConnectionID {
		return nil, Dropped
	}
	if !at.Holds(cur) {
		return nil, Overtaken
	}
	next = proto.CloneOf(cur)
	next.Lease = nil
	kind := authstorev1.Failure_UNAVAILABLE
	switch {
	case tr.RateLimited:
		kind = authstorev1.Failure_RATE_LIMITED
	case tr.Unreadable:
		kind = authstorev1.Failure_UNREADABLE
	}
	fail(next, kind, tr.Status, tr.Fingerprint, now)
	pause := doubled(TroubleRetry, MaxTroubleRetry, next.GetFailure().GetAttempts())
	switch {
	case tr.RetryAfter > 0: // Bitbucket's word counts, be it shorter or longer
		pause = tr.RetryAfter
	case tr.RateLimited:
		pause = doubled(RateLimitRetry, MaxRateLimitRetry, next.GetFailure().GetAttempts())
	case tr.Unreadable: // nothing but the operator mends it
		pause = LongTroubleRetry
	case now.Sub(next.GetFailure().GetSinceTime().AsTime()) >= longTrouble:
		pause = LongTroubleRetry
	}
	retryIn(next, pause, tr.Jitter, now)
	return next, Recorded
}

// RejectFresh notes that Bitbucket rejects even the token that a first 401 had made us get, and not
// for one thing only (BITBUCKET.md#lock-out and BITBUCKET.md#presenting-a-token): another refresh at once would not help, and a
// caller in a loop would wear the connection out.
func RejectFresh(cur *authstorev1.Integration, fingerprint string, now time.Time) *authstorev1.Integration {
	next := proto.CloneOf(cur)
	if next.GetAccess() != nil {
		next.Access.Rejected = true
	}
	fail(next, authstorev1.Failure_REJECTED, 401, fingerprint, now)
	pause := RejectedProbe
	if now.Sub(next.GetFailure().GetSinceTime().AsTime()) >= longTrouble {
		pause = RejectedRetry
	}
	retryIn(next, pause, 0, now)
	return next
}

// AcceptAgain notes that Bitbucket accepts the token that [RejectFresh] has taken out of use.
func AcceptAgain(cur *authstorev1.Integration) *authstorev1.Integration {
	next := proto.CloneOf(cur)
	if next.GetAccess() != nil {
		next.Access.Rejected = false
	}
	next.Failure = nil
	next.ForcedRefreshTime = nil
	return next
}

func fail(rec *authstorev1.Integration, kind authstorev1.Failure_Kind, status int, fingerprint string, now time.Time) {
	f := &authstorev1.Failure{
		Kind: kind, Status: int32(status), Fingerprint: fingerprint, Attempts: 1,
		SinceTime: timestamppb.New(now), LastTime: timestamppb.New(now),
	}
	if old := rec.GetFailure(); old != nil {
		f.SinceTime = old.GetSinceTime()
		if trouble(old.GetKind()) == trouble(kind) && old.GetFingerprint() == fingerprint {
			f.Attempts = old.GetAttempts() + 1
		}
	}
	rec.Failure = f
}

// trouble tells a missing answer from one that says no.
func trouble(kind authstorev1.Failure_Kind) bool {
	return kind == authstorev1.Failure_UNAVAILABLE || kind == authstorev1.Failure_RATE_LIMITED || kind == authstorev1.Failure_UNREADABLE
}

// retryIn sets the time of the next attempt: the pause and up to a tenth more.
func retryIn(rec *authstorev1.Integration, pause time.Duration, jitter float64, now time.Time) {
	rec.Failure.RetryTime = timestamppb.New(now.Add(pause + time.Duration(jitter*float64(pause)/10)))
}

// doubled is base, twice base, four times base … of the n-th attempt, counted from 1. It follows from
// the record, which outlives every process; a library's backoff lives in one.
func doubled(base, limit time.Duration, n int32) time.Duration {
	d := base
	for range n - 1 {
		if d >= limit {
			break
		}
		d *= 2
	}
	return min(d, limit)
}

// appendTime keeps the first and the latest few: only how long it went on and the latest ones matter.
func appendTime(times []*timestamppb.Timestamp, now time.Time) []*timestamppb.Timestamp {
	times = append(times, timestamppb.New(now))
	if len(times) > 4 {
		times = slices.Delete(times, 1, 2)
	}
	return times
}
