package lane

import (
	"slices"

	"google.golang.org/protobuf/proto"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// Apply makes a change of the outbox to a deployment record, nil when there is none, and returns
// the record. It tells false when the record has taken the change before, or when the change is
// about a record that does not exist: its app was deleted and the record removed.
func Apply(rec *storev1.Deployment, workspace, app string, generation int64, c *storev1.RecordChange) (*storev1.Deployment, bool) {
	if rec.GetGeneration() > generation {
		return rec, false
	}
	if made := c.GetCreated(); made != nil {
		if rec.GetGeneration() == generation {
			return rec, false
		}
		rec = proto.CloneOf(made)
		rec.Deployment.Workspace, rec.Deployment.App = workspace, app
		rec.AppliedSeq = c.GetSeq()
		return rec, true
	}
	if rec.GetGeneration() != generation || c.GetSeq() <= rec.GetAppliedSeq() {
		return rec, false
	}
	rec = proto.CloneOf(rec)
	rec.AppliedSeq = c.GetSeq()
	d := rec.GetDeployment()
	switch x := c.GetChange().(type) {
	case *storev1.RecordChange_Started:
		s := x.Started
		rec.Epoch = s.GetEpoch()
		d.State, d.Attempt = deployerv1.Deployment_PROCESSING, s.GetAttempt()
		d.Stage, d.ProgressPercent, d.Stages = deployerv1.Deployment_STAGE_UNSPECIFIED, 0, nil
		d.WaitingFor, d.RetryTime = nil, nil
		if s.GetServer() != "" { // else of a change from before it was kept
			d.Server = s.GetServer()
		}
		if d.GetStartTime() == nil {
			d.StartTime = s.GetTime()
		}
	case *storev1.RecordChange_Returned:
		d.State = deployerv1.Deployment_PENDING
		d.ProgressPercent = 0
		d.WaitingFor, d.RetryTime = x.Returned.GetWaitingFor(), x.Returned.GetRetryTime()
	case *storev1.RecordChange_Moved:
		d.Server = x.Moved.GetServer()
		d.Notes = withNotes(d.GetNotes(), x.Moved.GetNotes())
	case *storev1.RecordChange_CommitFixed:
		fixed := x.CommitFixed.GetCommit()
		if asked := d.GetCommit(); asked != nil && asked.GetHash() != fixed.GetHash() && d.GetRequestedCommit() == nil {
			d.RequestedCommit = asked
		}
		d.Commit = fixed
		d.Notes = withNotes(d.GetNotes(), x.CommitFixed.GetNotes())
	case *storev1.RecordChange_CancelRequested:
		d.CancelTime, d.CancelledBy = x.CancelRequested.GetTime(), x.CancelRequested.GetActor()
	case *storev1.RecordChange_Ended:
		applyEnd(rec, x.Ended)
	}
	return rec, true
}

// withNotes adds notes; those that are there are of an attempt before.
func withNotes(notes, more []string) []string {
	for _, note := range more {
		if !slices.Contains(notes, note) {
			notes = append(notes, note)
		}
	}
	return notes
}

func applyEnd(rec *storev1.Deployment, e *storev1.Ended) {
	d := rec.GetDeployment()
	if Terminal(d.GetState()) {
		return
	}
	d.State, d.EndTime, d.Error, d.SupersededBy = e.GetState(), e.GetTime(), e.GetError(), e.GetSupersededBy()
	d.WaitingFor, d.RetryTime = nil, nil
	if d.GetState() != deployerv1.Deployment_CANCELLED {
		d.CancelTime, d.CancelledBy = nil, nil
	}
	if len(e.GetStages()) > 0 {
		d.Stages = e.GetStages()
		for _, s := range d.Stages {
			if s.GetStartTime() != nil { // those after the last one were skipped
				d.Stage = s.GetStage()
			}
		}
	}
	if e.GetState() == deployerv1.Deployment_COMPLETED {
		d.ProgressPercent = 100
	}
	if e.GetDirectory() != "" {
		rec.Directory = e.GetDirectory()
	}
}

// Terminal tells the states that a deployment does not leave.
func Terminal(s deployerv1.Deployment_State) bool {
	switch s {
	case deployerv1.Deployment_COMPLETED, deployerv1.Deployment_FAILED, deployerv1.Deployment_CANCELLED, deployerv1.Deployment_SUPERSEDED:
		return true
	case deployerv1.Deployment_STATE_UNSPECIFIED, deployerv1.Deployment_PENDING, deployerv1.Deployment_PROCESSING:
		return false
	}
	return false
}
