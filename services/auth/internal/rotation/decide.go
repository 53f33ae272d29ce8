package rotation

import (
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	authstorev1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/store/v1"
)

// Want is what somebody wants of an integration's tokens.
type Want struct {
	// MinLife is the least remaining life of the access token.
	MinLife time.Duration
	// Rejected says that Bitbucket answered 401 for the access token of generation Seen.
	Rejected bool
	// Force wants tokens newer than those of generation Seen, however long the old ones live.
	Force bool
	// Person says that a person asked, who need not wait for the next attempt after trouble.
	Person bool
	// SeenConnection and Seen are the connection and generation that the caller saw first. A newer
	// token is handed out even if its life is unknown or shorter than MinLife: there is no better one.
	SeenConnection string
	Seen           uint64
}

// Consumer is the OAuth consumer that Devpilot is set up with, and how it stands.
type Consumer struct {
	SiteURL     string
	Key         string // empty: none is configured
	Fingerprint string // of key and secret
	Health      Health
}

// Verb is what to do about a Want.
type Verb int

// The verbs.
const (
	// Serve hands out what the record holds.
	Serve Verb = iota
	// Deny answers with the Denial.
	Deny
	// Wait waits for the record to change: another process refreshes.
	Wait
	// Renew takes the lease and refreshes.
	Renew
)

// Denial is why a Want cannot be met now.
type Denial int

// The denials.
const (
	NotDenied Denial = iota
	// NotConnected: there is no record.
	NotConnected
	// OtherSite: the tokens belong to another Bitbucket site and are never sent to this one.
	OtherSite
	// OtherConsumer: the tokens were granted to another OAuth consumer.
	OtherConsumer
	// ConsumerAtFault: Bitbucket refuses all connections of the consumer; refreshing is paused.
	ConsumerAtFault
	// Failing: the last attempt failed and the next one is not due; the record's failure says why.
	Failing
)

// PersonRetry is how soon after trouble a person may try again.
const PersonRetry = 5 * time.Second

// Question is a Want in its circumstances.
type Question struct {
	Want     Want
	Consumer Consumer
	// Self names this process: the lease of an earlier attempt of its own does not stop it.
	Self string
	// LeaseStale says that the record was seen unchanged for long enough to take a lease over.
	LeaseStale bool
	Now        time.Time
}

// Decide says what to do. cur is nil when there is no record.
func Decide(cur *authstorev1.Integration, q Question) (Verb, Denial) {
	switch {
	case cur == nil:
		return Deny, NotConnected
	case cur.GetSiteUrl() != q.Consumer.SiteURL:
		return Deny, OtherSite
	case q.Want.metBy(cur, q.Now):
		return Serve, NotDenied
	case cur.GetConsumerKey() != q.Consumer.Key:
		return Deny, OtherConsumer
	case cur.GetLease() != nil && cur.GetLease().GetHolder() != q.Self && !q.LeaseStale:
		return Wait, NotDenied
	case waits(cur, q):
		return Deny, Failing
	case q.Consumer.Health.AtFault && !Refused(cur): // only refused connections try, each at its own time
		return Deny, ConsumerAtFault
	}
	return Renew, NotDenied
}

// Refused reports whether the last attempt was refused.
func Refused(rec *authstorev1.Integration) bool {
	k := rec.GetFailure().GetKind()
	return k == authstorev1.Failure_REFUSED || k == authstorev1.Failure_CONSUMER_REFUSED
}

func (w Want) metBy(cur *authstorev1.Integration, now time.Time) bool {
	a := cur.GetAccess()
	if a.GetRejected() || len(a.GetSealed()) == 0 {
		return false
	}
	fresh := cur.GetConnectionId() != w.SeenConnection || cur.GetGeneration() > w.Seen
	if !fresh && (w.Force || w.Rejected) {
		return false
	}
	if a.GetExpireTime() == nil { // without an expiry it counts as expired, except to the caller that it was fetched for
		return fresh && w.SeenConnection != ""
	}
	life := a.GetExpireTime().AsTime().Sub(now)
	return life >= w.MinLife || (fresh && w.SeenConnection != "" && life > 0)
}

// waits reports whether the last failure holds this attempt back. A changed consumer is tried at
// once: the operator has just mended it.
func waits(cur *authstorev1.Integration, q Question) bool {
	f := cur.GetFailure()
	if f == nil || !q.Now.Before(f.GetRetryTime().AsTime()) || f.GetFingerprint() != q.Consumer.Fingerprint {
		return false
	}
	if q.Want.Person && f.GetKind() == authstorev1.Failure_UNAVAILABLE {
		return q.Now.Before(f.GetLastTime().AsTime().Add(PersonRetry))
	}
	return true
}

// RejectedAgain reports that Bitbucket answered 401 to a token which itself came of such an answer a
// moment ago: another one would not help.
func RejectedAgain(cur *authstorev1.Integration, now time.Time) bool {
	forced := cur.GetForcedRefreshTime()
	return forced != nil && now.Sub(forced.AsTime()) < RejectedRetry
}

// Standing is the state of a record by itself; the settings of today may make it worse.
func Standing(rec *authstorev1.Integration) authstorev1.Schedule_State {
	switch {
	case rec.GetReconnectRequired():
		return authstorev1.Schedule_RECONNECT_REQUIRED
	case rec.GetFailure() != nil:
		return authstorev1.Schedule_REFRESH_FAILING
	default:
		return authstorev1.Schedule_CONNECTED
	}
}

// Times of the upkeep (DESIGN.md#a-token-that-never-races).
const (
	// InUse is how long after its last use a connection is renewed ahead of expiry.
	InUse = 3 * time.Hour
	// Ahead is how long before expiry that happens: well over the life most callers ask for.
	Ahead = 30 * time.Minute
	// Idle is how often an unused connection is renewed: its refresh token would die after three
	// months (BITBUCKET.md#refresh).
	Idle = 7 * 24 * time.Hour
	// spreadInUse and spreadIdle are how much earlier than that a connection may be due, so that
	// those connected together are not renewed together.
	spreadInUse = 10 * time.Minute
	spreadIdle  = 24 * time.Hour
)

// Upkeep says what a record needs without anybody asking, and from when on.
//
// due is when to look after it next; if due is not after now, then renew tells that a refresh is
// needed as want says, else only [Tidy]. lastUse is when a token was last asked for, zero when never;
// spread in [0, 1) is the connection's own.
func Upkeep(rec *authstorev1.Integration, lastUse time.Time, spread float64, now time.Time) (due time.Time, renew bool, want Want) {
	want = Want{SeenConnection: rec.GetConnectionId(), Seen: rec.GetGeneration(), Force: true}
	if rec.GetFailure().GetKind() == authstorev1.Failure_REJECTED {
		want.Force = false // a token that is accepted again will do
	}
	due = renewalDue(rec, lastUse, spread)
	if !due.After(now) {
		return due, true, want
	}
	for _, s := range rec.GetSpares() {
		if at := s.GetExpireTime().AsTime(); at.Before(due) && (!s.GetLate() || rec.GetFailure() == nil) {
			due = at
		}
	}
	return due, false, want
}

func renewalDue(rec *authstorev1.Integration, lastUse time.Time, spread float64) time.Time {
	if f := rec.GetFailure(); f != nil {
		return f.GetRetryTime().AsTime()
	}
	refreshed := rec.GetLastRefreshTime().AsTime()
	if rec.GetVerify() {
		return refreshed
	}
	due := refreshed.Add(Idle - time.Duration(spread*float64(spreadIdle)))
	if expire := rec.GetAccess().GetExpireTime(); expire != nil {
		ahead := expire.AsTime().Add(-Ahead - time.Duration(spread*float64(spreadInUse)))
		// A token that lives no longer than that is renewed when half of its life is over.
		if half := refreshed.Add(expire.AsTime().Sub(refreshed) / 2); ahead.Before(half) {
			ahead = half
		}
		if lastUse.Add(InUse).After(ahead) && ahead.Before(due) {
			due = ahead
		}
	}
	return due
}

// Schedule makes the schedule of a record at that revision. lastUse may be zero.
func Schedule(rec *authstorev1.Integration, rev uint64, lastUse time.Time, spread float64, now time.Time) *authstorev1.Schedule {
	due, _, _ := Upkeep(rec, lastUse, spread, now)
	s := &authstorev1.Schedule{
		Workspace: rec.GetWorkspace(), ConnectionId: rec.GetConnectionId(), Revision: rev, State: Standing(rec),
		DueTime: timestamppb.New(due), SiteUrl: rec.GetSiteUrl(), ConsumerKey: rec.GetConsumerKey(),
		SuccessFingerprint: rec.GetSuccessFingerprint(), LastSuccessTime: proto.CloneOf(rec.GetLastRefreshTime()),
	}
	if !lastUse.IsZero() {
		s.LastUseTime = timestamppb.New(lastUse)
	}
	if f := rec.GetFailure(); f != nil {
		s.RetryTime = proto.CloneOf(f.GetRetryTime())
		if Refused(rec) {
			s.RefusedFingerprint = f.GetFingerprint()
			s.FirstRefusalTime, s.LastRefusalTime = proto.CloneOf(f.GetSinceTime()), proto.CloneOf(rec.GetLastRefusalTime())
		}
	}
	return s
}
