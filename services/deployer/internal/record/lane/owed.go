package lane

import (
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// The newest push should be live. When its deployment failed for reasons outside its commit, the
// lane owes it: reconciliation requests it again when those reasons have ended. The debt ends when
// anything newer is requested, when the branch or tag is deleted, or when other branches or tags
// are watched.

const (
	// MostRetries is how often a push is asked for again.
	MostRetries = 12
	firstRetry  = time.Minute // before a push that failed outside its commit is tried again
	mostRetry   = time.Hour   // between two such tries at most
)

// owe notes that the run's push is still to be deployed.
func owe(l *storev1.Lane, r *storev1.Running, why *deployerv1.DeploymentError, res Result) {
	job := r.GetJob()
	wanted := Automatic(job.GetTrigger()) || job.GetTrigger() == deployerv1.Deployment_MANUAL && fetchesHead(job)
	newest := l.GetLastNumber()
	if newest == l.GetDeparture().GetNumber() {
		newest-- // nobody asked for it: what was live was deployed again
	}
	if !res.Outside || res.Live || !wanted || job.GetNumber() != newest || job.GetRetries() >= MostRetries {
		return
	}
	job = proto.CloneOf(job)
	if job.GetHash() == "" { // what a person asked for is tried again, not what was pushed since
		job.Hash = r.GetHash()
	}
	l.Owed = &storev1.Owed{Job: job, Reason: why.GetReason(), Time: timestamppb.New(res.Now), Remote: res.Remote}
}

// OwedAt returns when a failed push is requested again, provided that Bitbucket answers. At once
// where Bitbucket was the trouble; after a pause where nothing tells when the trouble ends, or
// where a retry has failed too.
func OwedAt(o *storev1.Owed) time.Time {
	at, retries := o.GetTime().AsTime(), o.GetJob().GetRetries()
	if o.GetRemote() && retries == 0 {
		return at
	}
	return at.Add(min(firstRetry<<retries, mostRetry))
}

// OwedRef is the branch or tag of what is owed.
func OwedRef(o *storev1.Owed) Ref {
	if t := o.GetJob().GetTag(); t != "" {
		return Tag(t)
	}
	return Branch(o.GetJob().GetBranch())
}

// forgive ends what the lane owes of a branch or tag.
func forgive(l *storev1.Lane, r Ref) {
	if l.GetOwed() != nil && OwedRef(l.GetOwed()) == r {
		l.Owed = nil
	}
}

// minDoubts is how often a failure comes at least before it is believed.
const minDoubts = 3

// Doubting returns what the job keeps about a failure that may be wrong: for how long the same
// failure has come without another answer, while a witness said that the rest of Bitbucket was
// well.
func Doubting(job *storev1.Job, reason string, well bool, now time.Time) *storev1.Doubt {
	d := proto.CloneOf(job.GetDoubt())
	if d.GetReason() != reason || !well || d.GetTimes() == 0 {
		d = &storev1.Doubt{Reason: reason, Time: timestamppb.New(now)}
	}
	if well {
		d.Times++
	}
	return d
}

// Believed tells whether a failure came often and for long enough to be taken for the truth.
func Believed(d *storev1.Doubt, enough time.Duration, now time.Time) bool {
	return d.GetTimes() >= minDoubts && now.Sub(d.GetTime().AsTime()) >= enough
}

// Doubt keeps what is doubted of the run's failure; nil when nothing is.
func Doubt(l *storev1.Lane, epoch int64, d *storev1.Doubt) error {
	r, err := Mine(l, epoch)
	if err == nil {
		r.Job.Doubt = d
	}
	return err
}

// Postpone keeps the waiting deployment from starting before wake, because what it waits for was
// checked and is not there yet. ErrSkip when nothing waits for it any more.
func Postpone(l *storev1.Lane, why *deployerv1.DeploymentError, wake time.Time) error {
	if !AwaitsBitbucket(l) {
		return ErrSkip
	}
	l.Hold.Trouble.Reason, l.Hold.Trouble.Message, l.Hold.WakeTime = why.GetReason(), why.GetMessage(), timestamppb.New(wake)
	push(l, Upcoming(l).GetNumber(), func(x *storev1.RecordChange) {
		x.Change = &storev1.RecordChange_Returned{Returned: &storev1.Returned{WaitingFor: why, RetryTime: timestamppb.New(wake)}}
	})
	return nil
}
