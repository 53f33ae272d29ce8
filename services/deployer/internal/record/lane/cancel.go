package lane

import (
	"errors"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// ErrEnded says that the deployment neither waits nor runs.
var ErrEnded = errors.New("lane: the deployment has ended")

// Cancel stops a deployment on a person's wish. One that waits ends here; of one that runs the wish
// is noted, and its worker, or the one that takes over, ends it. ErrSkip when that was wished
// before, ErrEnded when there is nothing to stop.
func Cancel(l *storev1.Lane, number int32, actor *deployerv1.DeploymentActor, now time.Time) error {
	c := &storev1.CancelRequest{Number: number, Actor: actor, Time: timestamppb.New(now)}
	switch {
	case l.GetAhead() != nil && l.GetAhead().GetNumber() == number:
		l.Ahead = nil
		endWaiting(l, c, nil)
		return nil
	case l.GetWaiting().GetNumber() == number && l.GetWaiting() != nil:
		askers := l.GetWaiting().GetAskers()
		l.Waiting = nil
		endWaiting(l, c, askers)
		return nil
	case l.GetRunning() != nil && l.GetRunning().GetJob().GetNumber() == number:
		if have := l.GetCancel(); have.GetNumber() == number && have.GetSupersededBy() == 0 {
			return ErrSkip
		}
		l.Cancel = c
		wish(l, c)
		return nil
	}
	return ErrEnded
}

// endWaiting ends a deployment that waited.
func endWaiting(l *storev1.Lane, c *storev1.CancelRequest, askers []*storev1.Asker) {
	wish(l, c)
	e := cancelled(c)
	e.Time, e.Askers = c.GetTime(), askers
	push(l, c.GetNumber(), func(x *storev1.RecordChange) { x.Change = &storev1.RecordChange_Ended{Ended: e} })
	if l.GetRunning() == nil {
		l.Hold = nil
	}
}

// giveWay has what runs stopped for a newer deployment. Not what was live and is deployed again: nothing is
// served until it is.
func giveWay(l *storev1.Lane, by int32, now time.Time) {
	r := l.GetRunning()
	if r == nil || r.GetJob().GetTrigger() == deployerv1.Deployment_MOVED || l.GetCancel().GetNumber() == r.GetJob().GetNumber() {
		return
	}
	l.Cancel = &storev1.CancelRequest{Number: r.GetJob().GetNumber(), Time: timestamppb.New(now), SupersededBy: by}
	wish(l, l.Cancel)
}

func wish(l *storev1.Lane, c *storev1.CancelRequest) {
	push(l, c.GetNumber(), func(x *storev1.RecordChange) { x.Change = &storev1.RecordChange_CancelRequested{CancelRequested: c} })
}

// Wished returns the wish to stop the run with this fence; nil when there is none.
func Wished(l *storev1.Lane, epoch int64) *storev1.CancelRequest {
	if r := l.GetRunning(); r != nil && r.GetEpoch() == epoch && l.GetCancel() != nil && l.GetCancel().GetNumber() == r.GetJob().GetNumber() {
		return l.GetCancel()
	}
	return nil
}

// Cancelled ends the run as its wish says: CANCELLED by a person, SUPERSEDED by a newer deployment.
func Cancelled(l *storev1.Lane, epoch int64, res Result) error {
	r, err := Mine(l, epoch)
	if err != nil {
		return err
	}
	endShort(l, r, cancelled(l.GetCancel()), res)
	l.Hold = nil
	return nil
}

const reasonCancelled = "CANCELLED"

func cancelled(c *storev1.CancelRequest) *storev1.Ended {
	if by := c.GetSupersededBy(); by != 0 {
		return &storev1.Ended{State: deployerv1.Deployment_SUPERSEDED, SupersededBy: by}
	}
	return &storev1.Ended{State: deployerv1.Deployment_CANCELLED, Error: &deployerv1.DeploymentError{Reason: reasonCancelled, Message: CancelMessage(c.GetActor())}}
}

// CancelMessage says no more than that somebody cancelled.
func CancelMessage(by *deployerv1.DeploymentActor) string {
	if by.GetLabel() == "" {
		return "Cancelled."
	}
	return "Cancelled by " + by.GetLabel() + "."
}
