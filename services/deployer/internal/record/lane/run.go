package lane

import (
	"errors"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// Verdict is what a lane answers to a wake-up.
type Verdict int

// The verdicts.
const (
	// Idle: nothing waits.
	Idle Verdict = iota
	// Start: the waiting job runs now, by this wake-up.
	Start
	// TakeOver: this wake-up came again, so its holder is gone; the run starts again.
	TakeOver
	// Leave: this wake-up's holder may be at work. Its message came for the first time from a consumer
	// that was made anew with the store; should its holder be silent it comes again.
	Leave
	// Busy: the holder of another wake-up runs, and will look for more when it is done.
	Busy
	// Held: the waiting job's time has not come.
	Held
	// Elsewhere: the waiting job is another server's.
	Elsewhere
	// Removal: the app is gone and something of it is left on this server.
	Removal
)

// Claimant is the holder of a wake-up.
type Claimant struct {
	Wake   uint64 // the wake-up's stream sequence
	First  bool   // its consumer has not delivered it before
	Server string
	Worker string
	Now    time.Time
}

// RetryLimit is how long a deployment goes back to waiting after temporary failures (DESIGN.md#a-push-becomes-a-deployment).
const RetryLimit = 24 * time.Hour

// Claim decides what the holder of a wake-up does. Only Start and TakeOver change the lane.
//
// A run belongs to the wake-up that started it, not to a process: that the same wake-up is
// delivered again is the proof that its holder fell silent. A consumer counts deliveries in memory: the
// first one proves nothing, unless the claimant is the holder and tries again.
func Claim(l *storev1.Lane, c Claimant) Verdict {
	if r := l.GetRunning(); r != nil {
		switch {
		case r.GetJob().GetServer() != c.Server, r.GetWake() != 0 && r.GetWake() != c.Wake:
			return Busy
		case c.First && r.GetWake() != 0 && r.GetWorker() != c.Worker:
			return Leave
		}
		begin(l, r.GetJob(), c)
		l.Running.Job.Deaths++
		l.Running.Hash = r.GetHash() // the dead attempt may have gone live with it
		return TakeOver
	}
	for _, rem := range l.GetRemains() {
		if slices.Contains(rem.GetServers(), c.Server) {
			return Removal
		}
	}
	w := Upcoming(l)
	switch {
	case w == nil:
		return Idle
	case w.GetServer() != c.Server:
		return Elsewhere
	case l.GetHold() != nil && l.GetHold().GetWakeTime().AsTime().After(c.Now):
		return Held
	}
	if w == l.GetAhead() {
		l.Ahead = nil
	} else {
		l.Waiting = nil
	}
	begin(l, w, c)
	l.Running.Hash = w.GetFixedCommit() // an attempt that went back to waiting may have gone live with it
	if l.GetLive().GetNumber() == w.GetNumber() && !l.GetLive().GetLost() {
		l.Running.Hash = l.GetLive().GetHash() // its worker was stopped after it had gone live
	}
	return Start
}

func begin(l *storev1.Lane, job *storev1.Job, c Claimant) {
	l.Epoch++
	job.Attempt++
	l.Running = &storev1.Running{Job: job, Epoch: l.Epoch, Wake: c.Wake, Worker: c.Worker, StartTime: timestamppb.New(c.Now)}
	if !slices.Contains(l.GetServers(), c.Server) {
		l.Servers = append(l.Servers, c.Server)
	}
	push(l, job.GetNumber(), func(x *storev1.RecordChange) {
		x.Change = &storev1.RecordChange_Started{Started: &storev1.Started{
			Epoch: l.GetEpoch(), Attempt: job.GetAttempt(), Time: timestamppb.New(c.Now), Worker: c.Worker, Server: c.Server,
		}}
	})
}

// Mine returns the run if epoch is still its fence, else ErrLost.
func Mine(l *storev1.Lane, epoch int64) (*storev1.Running, error) {
	if r := l.GetRunning(); r != nil && r.GetEpoch() == epoch {
		return r, nil
	}
	return nil, ErrLost
}

// ErrRepeated says that the branch or tag is where it was before the push that the run is for. So
// the delivery was a late repeat, and what a person chose since stays live.
var ErrRepeated = errors.New("lane: the push came again and changed nothing")

// FixCommit notes which commit the run deploys, and what the branch's head is. Where that
// commit is live already and a push asked for it, it returns the live deployment's number: the run
// then ends by [Supersede]. The notes are kept in the deployment's record.
func FixCommit(l *storev1.Lane, epoch int64, repository string, commit *deployerv1.DeploymentCommit, head string, now time.Time, notes ...string) (live int32, err error) {
	r, err := Mine(l, epoch)
	if err != nil {
		return 0, err
	}
	job := r.GetJob()
	if l.GetLive().GetChosen() && job.GetBefore() != "" && job.GetBefore() == head && job.GetHash() != head {
		return 0, ErrRepeated
	}
	r.Hash = commit.GetHash()
	if h := HeadOf(l, repository, Branch(job.GetBranch())); fetchesHead(job) && h.GetHash() != head {
		SetHead(l, Branch(job.GetBranch()), &storev1.Head{Hash: head, Source: storev1.Head_FETCH, Time: timestamppb.New(now), Repository: repository})
	}
	push(l, job.GetNumber(), func(x *storev1.RecordChange) {
		x.Change = &storev1.RecordChange_CommitFixed{CommitFixed: &storev1.CommitFixed{Commit: trim(commit), Notes: notes}}
	})
	if lv := l.GetLive(); lv != nil && lv.GetHash() == commit.GetHash() && lv.GetServer() == job.GetServer() && !lv.GetLost() && Automatic(job.GetTrigger()) {
		return lv.GetNumber(), nil
	}
	return 0, nil
}

// TakeRelease notes the commit of the release that a rollback makes current.
func TakeRelease(l *storev1.Lane, epoch int64) error {
	r, err := Mine(l, epoch)
	if err != nil {
		return err
	}
	r.Hash = r.GetJob().GetHash()
	return nil
}

// Leaves tells whether the job replaces what is live by something of the same branch or tag that a
// person did not choose. forced says that Bitbucket has told that the new commit does not contain
// the one that is live.
func Leaves(live *storev1.Live, job *storev1.Job, commit string) (leaves, forced bool) {
	if live.GetHash() == "" || live.GetHash() == commit || job.GetPinned() || live.GetRef() != "" && live.GetRef() != string(refOf(job)) {
		return false, false
	}
	return true, job.GetForcedFrom() == live.GetHash() && job.GetHash() == commit
}

// fetchesHead tells whether a job deploys its branch's head, whatever that is by then.
func fetchesHead(j *storev1.Job) bool {
	return j.GetBranch() != "" && j.GetTag() == "" && !j.GetPinned() && j.GetDirectory() == ""
}

// Automatic tells whether a trigger is not a person's. Such deployments stop with auto-deploy, and
// have nothing to do when their commit is live.
func Automatic(t deployerv1.Deployment_Trigger) bool {
	return t == deployerv1.Deployment_PUSH || t == deployerv1.Deployment_RECONCILED
}
