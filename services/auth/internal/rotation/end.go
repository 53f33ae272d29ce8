package rotation

import (
	"bytes"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	authstorev1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/store/v1"
)

// Outcome is what became of an attempt's result.
type Outcome int

// The outcomes.
const (
	// Dropped: the record is gone or belongs to another connection; nothing may be written.
	Dropped Outcome = iota
	// Stored: the answer is the integration's current pair of tokens.
	Stored
	// StoredBefore: the record holds this very answer; an earlier write had arrived after all.
	StoredBefore
	// KeptAsSpare: somebody else's answer is current; this one is kept until it is known which of
	// them Bitbucket honours.
	KeptAsSpare
	// Recorded: the refusal or the trouble is in the record.
	Recorded
	// Overtaken: the record moved on, so that the refusal or the trouble says nothing about it.
	Overtaken
)

// Answer is what Bitbucket answered to a refresh, already sealed.
type Answer struct {
	Spent       []byte // id of the refresh token that was spent
	RefreshID   []byte // id of the one that was answered; Spent where Bitbucket does not rotate
	Refresh     []byte // sealed
	Access      []byte // sealed
	Expiry      time.Time
	Scopes      []string // empty where Bitbucket did not say
	Fingerprint string   // of the consumer
}

// StoreAnswer decides what a successful refresh does to the record as it is now; cur is nil when it
// is gone. The rules, in this order:
//
//   - the record is gone or holds another connection: dropped, so that nothing is resurrected;
//   - it still holds the refresh token that was spent (or, when a spare was spent, the current one
//     that was refused before): the answer replaces it, whoever holds the lease by now;
//   - else the answer came late: it is kept as a spare, and which token is the good one is to be
//     found out at once.
//
// next is nil when nothing is to be written.
func StoreAnswer(cur *authstorev1.Integration, at Attempt, ans Answer, now time.Time) (next *authstorev1.Integration, _ Outcome) {
	if cur == nil || cur.GetConnectionId() != at.ConnectionID {
		return nil, Dropped
	}
	current := cur.GetRefresh().GetId()
	rotated := !bytes.Equal(ans.RefreshID, ans.Spent)
	if rotated && (bytes.Equal(current, ans.RefreshID) || hasSpare(cur, ans.RefreshID)) {
		return release(cur, at), StoredBefore
	}
	if bytes.Equal(current, ans.Spent) || bytes.Equal(current, at.Main) {
		return replace(cur, at, ans, now), Stored
	}
	next = proto.CloneOf(cur)
	next.Spares = addSpare(next.GetSpares(), &authstorev1.SpareToken{
		Sealed: ans.Refresh, Id: ans.RefreshID, ExpireTime: timestamppb.New(now.Add(SpareLife)), Late: true,
	})
	next.Verify = true
	next.ReconnectRequired = false
	next.RefusalTimes = nil
	if f := next.GetFailure(); f != nil {
		f.RetryTime = timestamppb.New(now)
		if last := next.GetLastRefusalTime(); last != nil { // wait until the lock-out is over that our own refusal may have caused
			f.RetryTime = timestamppb.New(later(now, last.AsTime().Add(LockOut)))
		}
	}
	if at.Holds(cur) {
		next.Lease = nil
	}
	return next, KeptAsSpare
}

// replace makes the answer the current pair. The spent token stays as a spare: Bitbucket may honour
// it for some minutes more, should this answer turn out to be dead.
func replace(cur *authstorev1.Integration, at Attempt, ans Answer, now time.Time) *authstorev1.Integration {
	next := proto.CloneOf(cur)
	// A late answer that arrived while this attempt ran may have killed what it got.
	next.Verify = slices.ContainsFunc(cur.GetSpares(), func(s *authstorev1.SpareToken) bool { return s.GetLate() && !at.knows(s.GetId()) })
	next.Spares = keepSpares(next.GetSpares(), func(s *authstorev1.SpareToken) bool {
		return !bytes.Equal(s.GetId(), ans.Spent) && !bytes.Equal(s.GetId(), ans.RefreshID) && (!expired(s, now) || next.GetVerify())
	})
	if !bytes.Equal(ans.RefreshID, ans.Spent) {
		next.Spares = addSpare(next.GetSpares(), &authstorev1.SpareToken{
			Sealed: at.sealed(ans.Spent), Id: ans.Spent, ExpireTime: timestamppb.New(now.Add(SpareLife)),
		})
	}
	next.Refresh = &authstorev1.RefreshToken{Sealed: ans.Refresh, Id: ans.RefreshID}
	next.Access = &authstorev1.AccessToken{Sealed: ans.Access}
	if !ans.Expiry.IsZero() {
		next.Access.ExpireTime = timestamppb.New(ans.Expiry)
	}
	if len(ans.Scopes) > 0 {
		next.Scopes = slices.Clone(ans.Scopes)
	}
	next.Generation++
	next.LastRefreshTime = timestamppb.New(now)
	next.SuccessFingerprint = ans.Fingerprint
	next.Failure = nil
	next.RefusalTimes = nil
	next.ReconnectRequired = false
	if at.Holds(cur) {
		next.Lease = nil
	}
	return next
}

// release gives the attempt's lease back; nil when it is not the attempt's any more.
func release(cur *authstorev1.Integration, at Attempt) *authstorev1.Integration {
	if !at.Holds(cur) {
		return nil
	}
	next := proto.CloneOf(cur)
	next.Lease = nil
	return next
}

// addSpare puts s first. Over the limit the oldest of those that live on grace goes first, then the
// oldest late one.
func addSpare(spares []*authstorev1.SpareToken, s *authstorev1.SpareToken) []*authstorev1.SpareToken {
	spares = append([]*authstorev1.SpareToken{s}, keepSpares(spares, func(o *authstorev1.SpareToken) bool { return !bytes.Equal(o.GetId(), s.GetId()) })...)
	for len(spares) > MaxSpares {
		drop := len(spares) - 1
		for i, o := range slices.Backward(spares) {
			if !o.GetLate() && i > 0 {
				drop = i
				break
			}
		}
		spares = slices.Delete(spares, drop, drop+1)
	}
	return spares
}

func hasSpare(rec *authstorev1.Integration, id []byte) bool {
	return slices.ContainsFunc(rec.GetSpares(), func(s *authstorev1.SpareToken) bool { return bytes.Equal(s.GetId(), id) })
}

// Tidy drops the spares whose time is over. Late ones stay while it is not yet known whether they
// are the good ones. next is nil when there is nothing to do.
func Tidy(cur *authstorev1.Integration, now time.Time) (next *authstorev1.Integration) {
	undecided := cur.GetVerify() || cur.GetFailure() != nil
	over := func(s *authstorev1.SpareToken) bool { return expired(s, now) && (!s.GetLate() || !undecided) }
	if cur.GetLease() != nil || !slices.ContainsFunc(cur.GetSpares(), over) {
		return nil
	}
	next = proto.CloneOf(cur)
	next.Spares = keepSpares(next.GetSpares(), func(s *authstorev1.SpareToken) bool { return !over(s) })
	return next
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
