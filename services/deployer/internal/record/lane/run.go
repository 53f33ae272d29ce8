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
	Server string
	Worker string
	Now    time.Time
}

// RetryLimit is how long a deployment goes back to waiting after temporary failures (DESIGN.md#a-push-becomes-a-deployment).
const RetryLimit = 24 * time.Hour

// Claim decides what the holder of a wake-up does. Only Start and TakeOver change the lane.
//
// A run belongs to the wake-up that started it, not to a process: that the same wake-up is
// delivered again is the proof that its holder fell silent.
func Claim(l *storev1.Lane, c Claimant) Verdict {
	if r := l.GetRunning(); r != nil {
		switch {
		case r.GetJob().GetServer() != c.Server, r.GetWake() != 0 && r.GetWake() != c.Wake:
			return Busy
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
	w := l.GetWaiting()
	switch {
	case w == nil:
		return Idle
	case w.GetServer() != c.Server:
		return Elsewhere
	case l.GetHold() != nil && l.GetHold().GetWakeTime().AsTime().After(c.Now):
		return Held
	}
	l.Waiting = nil
	begin(l, w, c)
	l.Running.Hash = w.GetFixedCommit() // an attempt that went back to waiting may have gone live with it
	if l.GetLive().GetNumber() == w.GetNumber() {
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
	if lv := l.GetLive(); lv != nil && lv.GetHash() == commit.GetHash() && lv.GetServer() == job.GetServer() && Automatic(job.GetTrigger()) {
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

// Result is how a run ended.
type Result struct {
	Now       time.Time
	Stages    []*deployerv1.StageRecord
	Directory string // the release directory's name
	Retention int32  // how many releases stay beside the live one
	// Serve is what the commit's own file serves; nil when that says nothing.
	Serve *deployerv1.ServeOptions
	// Shared is what the commit's own file shares; nil when that says nothing.
	Shared *storev1.SharedPaths
	// Live says that the run's release is current although the run did not end well.
	Live bool
	// Outside: the run failed for a reason outside its commit. Remote: that reason lies with
	// Bitbucket.
	Outside, Remote bool
}

// Complete ends the run well: its release is current.
func Complete(l *storev1.Lane, epoch int64, res Result) error {
	r, err := Mine(l, epoch)
	if err != nil {
		return err
	}
	goLive(l, r, res)
	end(l, r, &storev1.Ended{State: deployerv1.Deployment_COMPLETED, Directory: res.Directory}, res)
	l.Hold = nil
	return nil
}

// goLive notes that the run's release is current.
func goLive(l *storev1.Lane, r *storev1.Running, res Result) {
	job := r.GetJob()
	l.Live = &storev1.Live{
		Number: job.GetNumber(), Hash: r.GetHash(), Directory: res.Directory, Server: job.GetServer(), Time: timestamppb.New(res.Now),
		Chosen: job.GetPinned() || job.GetDirectory() != "", Ref: string(refOf(job)),
	}
	// What went live was decided about, also where no delivery spoke of it yet.
	if h := l.GetHeads()[string(refOf(job))]; h != nil && h.GetHash() == r.GetHash() && job.GetDirectory() == "" {
		h.Number = job.GetNumber()
		noteCommit(l, h.GetRepository(), refOf(job), h.GetHash(), job.GetNumber())
	}
	l.Kept = slices.DeleteFunc(l.Kept, func(k *storev1.Kept) bool { return k.GetNumber() == job.GetNumber() }) // of an attempt before
	l.Kept = append(l.Kept, &storev1.Kept{Number: job.GetNumber(), Directory: res.Directory, Server: job.GetServer(), Hash: r.GetHash(), Serve: res.Serve, Shared: res.Shared})
	retain(l, res.Retention)
}

// retain drops the releases that are beyond the retention, those first that were live longest ago,
// and never the live one. Directories count, not deployments, because a rollback uses a directory a
// second time.
func retain(l *storev1.Lane, retention int32) {
	kept := map[string]bool{l.GetLive().GetDirectory(): true}
	for _, k := range slices.Backward(l.GetKept()) {
		if len(kept) <= int(retention) {
			kept[k.GetDirectory()] = true
		}
	}
	l.Kept = slices.DeleteFunc(l.Kept, func(k *storev1.Kept) bool { return !kept[k.GetDirectory()] })
}

// Fail ends the run for good, in state FAILED or CANCELLED.
func Fail(l *storev1.Lane, epoch int64, state deployerv1.Deployment_State, why *deployerv1.DeploymentError, res Result) error {
	r, err := Mine(l, epoch)
	if err != nil {
		return err
	}
	endShort(l, r, &storev1.Ended{State: state, Error: why}, res)
	if state == deployerv1.Deployment_FAILED {
		owe(l, r, why, res)
	}
	return nil
}

// Supersede ends the run because deployment by has what it was to deploy.
func Supersede(l *storev1.Lane, epoch int64, by int32, res Result) error {
	r, err := Mine(l, epoch)
	if err != nil {
		return err
	}
	endShort(l, r, &storev1.Ended{State: deployerv1.Deployment_SUPERSEDED, SupersededBy: by}, res)
	l.Hold = nil
	return nil
}

// Repeated ends the run because of ErrRepeated: its branch or tag was seen where it is before.
func Repeated(l *storev1.Lane, epoch int64, repository string, res Result) error {
	r, err := Mine(l, epoch)
	if err != nil {
		return err
	}
	job := r.GetJob()
	SetHead(l, refOf(job), &storev1.Head{
		Hash: job.GetBefore(), Source: storev1.Head_EVENT, Number: job.GetBeforeNumber(), Time: timestamppb.New(res.Now), Repository: repository,
	})
	endShort(l, r, &storev1.Ended{State: deployerv1.Deployment_SUPERSEDED, SupersededBy: job.GetBeforeNumber()}, res)
	l.Hold = nil
	return nil
}

// refOf is the branch or tag that a job deploys.
func refOf(j *storev1.Job) Ref { return Request{Branch: j.GetBranch(), Tag: j.GetTag()}.ref() }

// endShort ends a run that did not complete. When its release is current all the same, that release
// is the live one.
func endShort(l *storev1.Lane, r *storev1.Running, e *storev1.Ended, res Result) {
	if res.Live {
		goLive(l, r, res)
		e.Directory = res.Directory
		if e.GetError().GetReason() == reasonCancelled {
			e.Error.Message = "Cancelled after its release had gone live: it stays live. Roll back if you do not want it."
		}
	}
	end(l, r, e, res)
}

func end(l *storev1.Lane, r *storev1.Running, e *storev1.Ended, res Result) {
	e.Time = timestamppb.New(res.Now)
	e.Stages, e.Askers = res.Stages, r.GetJob().GetAskers()
	push(l, r.GetJob().GetNumber(), func(x *storev1.RecordChange) { x.Change = &storev1.RecordChange_Ended{Ended: e} })
	if l.GetCancel().GetNumber() == r.GetJob().GetNumber() {
		l.Cancel = nil
	}
	l.Running = nil
}

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
	if c := l.GetCancel(); c.GetNumber() == job.GetNumber() {
		endShort(l, r, cancelled(c), res)
		return
	}
	if w := l.GetWaiting(); w != nil {
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
	l.Waiting = job
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
	return l.GetRunning() == nil && l.GetWaiting() != nil && l.GetWaiting().GetDoubt() == nil &&
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
	for _, c := range l.GetCandidates() {
		moved = moved || c.GetServer() != server
		c.Server = server
	}
	if w := l.GetWaiting(); w == nil || w.GetServer() == server {
		if moved {
			return nil
		}
		return ErrSkip
	}
	l.Waiting.Server = server
	push(l, l.GetWaiting().GetNumber(), func(x *storev1.RecordChange) {
		x.Change = &storev1.RecordChange_Moved{Moved: &storev1.Moved{Server: server}}
	})
	return nil
}
