package lane

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// RetryLater puts a running deployment back to waiting, because something temporary was in the way; it
// is tried again at wake. When a newer one waits already, that one supersedes it. After RetryLimit
// it fails.
func RetryLater(l *storev1.Lane, epoch int64, why *deployerv1.DeploymentError, wake time.Time, res Result) error {
	r, err := Mine(l, epoch)
	if err != nil {
		return err
	}
	job := r.GetJob()
	if job.GetFirstFailureTime() == nil {
		job.FirstFailureTime = timestamppb.New(res.Now)
	}
	since := res.Now
	if l.GetHold() != nil {
		since = l.GetHold().GetTrouble().GetTime().AsTime()
	}
	l.Hold = &storev1.Hold{
		Trouble:  &storev1.Trouble{Reason: why.GetReason(), Message: why.GetMessage(), Time: timestamppb.New(since)},
		WakeTime: timestamppb.New(wake), Failures: l.GetHold().GetFailures() + 1, Remote: res.Remote,
	}
	if res.Now.Sub(job.GetFirstFailureTime().AsTime()) >= RetryLimit {
		end(l, r, &storev1.Ended{State: deployerv1.Deployment_FAILED, Error: why}, res)
		owe(l, r, why, res)
		return nil
	}
	goBack(l, r, &storev1.Returned{WaitingFor: why, RetryTime: timestamppb.New(wake)}, res)
	return nil
}

// Yield ends the attempt because its worker stops: the job waits again and may start at once.
func Yield(l *storev1.Lane, epoch int64, res Result) error {
	r, err := Mine(l, epoch)
	if err != nil {
		return err
	}
	goBack(l, r, &storev1.Returned{}, res)
	return nil
}

func goBack(l *storev1.Lane, r *storev1.Running, ret *storev1.Returned, res Result) {
	job := r.GetJob()
	again := job.GetTrigger() == deployerv1.Deployment_MOVED // it goes before what waits, and nothing takes its place
	if c := l.GetCancel(); c.GetNumber() == job.GetNumber() {
		endShort(l, r, cancelled(c), res)
		return
	}
	if w := l.GetWaiting(); w != nil && !again {
		endShort(l, r, &storev1.Ended{State: deployerv1.Deployment_SUPERSEDED, SupersededBy: w.GetNumber()}, res)
		return
	}
	if res.Live {
		goLive(l, r, res) // what is current is live, also while the rest of the deployment waits
	}
	if r.GetHash() != "" {
		job.FixedCommit = r.GetHash()
	}
	l.Running = nil
	if again {
		l.Ahead = job
	} else {
		l.Waiting = job
	}
	push(l, job.GetNumber(), func(x *storev1.RecordChange) { x.Change = &storev1.RecordChange_Returned{Returned: ret} })
}

// ReleaseRemote lets a deployment that waits for Bitbucket go on, because Bitbucket answers. When
// Bitbucket named a time, that time stands. ErrSkip when nothing waits for Bitbucket.
func ReleaseRemote(l *storev1.Lane) error {
	if !AwaitsBitbucket(l) {
		return ErrSkip
	}
	l.Hold.WakeTime = nil
	return nil
}

// AwaitsBitbucket tells whether the waiting deployment may go on as soon as Bitbucket answers. Not
// when Bitbucket limits us, where a time is set, and not when its failure is doubted, where trying
// again is how we make sure.
func AwaitsBitbucket(l *storev1.Lane) bool {
	h := l.GetHold()
	return l.GetRunning() == nil && Upcoming(l) != nil && Upcoming(l).GetDoubt() == nil &&
		h.GetRemote() && h.GetWakeTime() != nil && h.GetTrouble().GetReason() != reasonRateLimited
}

// Release ends the hold: what stood in the way is said to be gone. ErrSkip when there is none.
func Release(l *storev1.Lane) error {
	if l.GetHold() == nil {
		return ErrSkip
	}
	l.Hold.WakeTime = nil
	return nil
}

// Orphan lets the next wake-up take the run over, because the one that started it is known to be
// lost. ErrSkip when another run has begun meanwhile.
func Orphan(l *storev1.Lane, epoch int64) error {
	r := l.GetRunning()
	if r == nil || r.GetEpoch() != epoch || r.GetWake() == 0 {
		return ErrSkip
	}
	r.Wake = 0
	return nil
}

// Move sends what waits to another server; ErrSkip when nothing waits or it is there.
func Move(l *storev1.Lane, server string) error {
	moved := false
	if l.GetDeparture() != nil && l.GetDeparture().GetServer() == server {
		l.Departure, moved = nil, true // the app is given that server again
	}
	for _, c := range l.GetCandidates() {
		moved = moved || c.GetServer() != server
		c.Server = server
	}
	for _, job := range []*storev1.Job{l.GetAhead(), l.GetWaiting()} {
		if job == nil || job.GetServer() == server {
			continue
		}
		job.Server, moved = server, true
		push(l, job.GetNumber(), func(x *storev1.RecordChange) {
			x.Change = &storev1.RecordChange_Moved{Moved: &storev1.Moved{Server: server}}
		})
	}
	if !moved {
		return ErrSkip
	}
	return nil
}
