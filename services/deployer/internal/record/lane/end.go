package lane

import (
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

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
	job, before := r.GetJob(), l.GetLive()
	l.Live = &storev1.Live{
		Number: job.GetNumber(), Hash: r.GetHash(), Directory: res.Directory, Server: job.GetServer(), Time: timestamppb.New(res.Now),
		Chosen: job.GetPinned() || job.GetDirectory() != "", Named: job.GetPinned() && job.GetTrigger() == deployerv1.Deployment_MANUAL, Ref: string(refOf(job)),
	}
	if job.GetTrigger() == deployerv1.Deployment_MOVED {
		asBefore(l.Live, before)
	}
	if before.GetLost() {
		l.Kept = slices.DeleteFunc(l.GetKept(), func(k *storev1.Kept) bool {
			return k.GetNumber() == before.GetNumber() && k.GetServer() == before.GetServer()
		})
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

// asBefore has what was deployed again count as what it was: whether a person chose it, and since which
// deployment.
func asBefore(live, before *storev1.Live) {
	if before.GetNumber() == live.GetNumber() { // an attempt before went live, and its worker was stopped
		live.Chosen, live.Named, live.Origin = before.GetChosen(), before.GetNamed(), before.GetOrigin()
		return
	}
	live.Chosen, live.Named = before.GetChosen(), before.GetNamed()
	if live.Origin = before.GetOrigin(); live.Origin == 0 {
		live.Origin = before.GetNumber()
	}
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
