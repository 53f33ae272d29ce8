package rotation

import (
	"bytes"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	authstorev1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/store/v1"
)

// Limits of the protocol (DESIGN.md#a-token-that-never-races).
const (
	// SpareLife is how long a replaced or late refresh token is kept: as long as Bitbucket's grace
	// (BITBUCKET.md#refresh).
	SpareLife = 10 * time.Minute
	// MaxSpares is how many of them are kept.
	MaxSpares = 3
)

// Candidate is one refresh token that an attempt may spend.
type Candidate struct {
	ID     []byte // digest of the token
	Sealed []byte // the token as stored
	Late   bool   // a spare that was never spent
}

// Attempt is what one refresh began with: the lease, and the tokens to try in this order. It is
// made by [Acquire] and handed to the function that ends the attempt.
type Attempt struct {
	ConnectionID string
	Holder       string
	Epoch        uint64
	// Main is the id of the token that was current when the lease was taken.
	Main []byte
	// Candidates are tried in this order until one is not refused.
	Candidates []Candidate
	// TookOver is whether another process held the lease: what Bitbucket told that one is unknown.
	TookOver bool
}

// AcquireOptions are the circumstances of a refresh.
type AcquireOptions struct {
	// RejectAccess says that Bitbucket answered 401 for the stored access token: it is not handed
	// out any more from now on.
	RejectAccess bool
}

// Acquire takes the lease, whoever held it: the caller has made sure that it is free, its own, or
// was seen unchanged for long enough. cur must not be nil. The returned record is to be stored by
// compare-and-set on cur's revision; only then does the attempt hold the lease.
func Acquire(cur *authstorev1.Integration, holder string, now time.Time, opts AcquireOptions) (*authstorev1.Integration, Attempt) {
	next := proto.CloneOf(cur)
	next.Epoch++
	next.Lease = &authstorev1.Lease{Holder: holder, Epoch: next.GetEpoch()}
	next.Spares = keepSpares(next.GetSpares(), func(s *authstorev1.SpareToken) bool { return s.GetLate() || !expired(s, now) })
	if opts.RejectAccess && next.GetAccess() != nil {
		next.Access.Rejected = true
		next.ForcedRefreshTime = timestamppb.New(now)
	}
	at := Attempt{
		ConnectionID: next.GetConnectionId(),
		Holder:       holder,
		Epoch:        next.GetEpoch(),
		Main:         next.GetRefresh().GetId(),
		Candidates:   candidates(next),
		TookOver:     cur.GetLease() != nil && cur.GetLease().GetHolder() != holder,
	}
	return next, at
}

// candidates orders the tokens: the current one first, unless it was refused as the first of an
// earlier attempt. Then the spares go first, those that were never spent before those that live on
// grace: a token that was only ever refused behind another one may have met the lock-out that the
// first refusal brought about (BITBUCKET.md#lock-out).
func candidates(rec *authstorev1.Integration) []Candidate {
	var late, spent []Candidate
	for _, s := range rec.GetSpares() {
		c := Candidate{ID: s.GetId(), Sealed: s.GetSealed(), Late: s.GetLate()}
		if c.Late {
			late = append(late, c)
		} else {
			spent = append(spent, c)
		}
	}
	spares := slices.Concat(late, spent)
	current := []Candidate{{ID: rec.GetRefresh().GetId(), Sealed: rec.GetRefresh().GetSealed()}}
	if rec.GetRefresh().GetRefused() {
		return slices.Concat(spares, current)
	}
	return slices.Concat(current, spares)
}

// Holds reports whether the record's lease is the one of this attempt.
func (at Attempt) Holds(rec *authstorev1.Integration) bool {
	l := rec.GetLease()
	return l != nil && l.GetHolder() == at.Holder && l.GetEpoch() == at.Epoch
}

// knows reports whether the token was among the candidates.
func (at Attempt) knows(id []byte) bool {
	return slices.ContainsFunc(at.Candidates, func(c Candidate) bool { return bytes.Equal(c.ID, id) })
}

func (at Attempt) sealed(id []byte) []byte {
	for _, c := range at.Candidates {
		if bytes.Equal(c.ID, id) {
			return c.Sealed
		}
	}
	return nil
}

// unchanged reports whether the record still holds the tokens that the attempt tried, and no others.
func (at Attempt) unchanged(rec *authstorev1.Integration) bool {
	return bytes.Equal(rec.GetRefresh().GetId(), at.Main) &&
		!slices.ContainsFunc(rec.GetSpares(), func(s *authstorev1.SpareToken) bool { return !at.knows(s.GetId()) })
}

func keepSpares(spares []*authstorev1.SpareToken, keep func(*authstorev1.SpareToken) bool) []*authstorev1.SpareToken {
	return slices.DeleteFunc(spares, func(s *authstorev1.SpareToken) bool { return !keep(s) })
}

func expired(s *authstorev1.SpareToken, now time.Time) bool {
	return !now.Before(s.GetExpireTime().AsTime())
}
