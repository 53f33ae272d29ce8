// Package janitor looks after lanes that have work: it repeats what a dead process left undone. It
// writes what is in a lane's outbox, wakes workers whose wake-up was lost, starts a deployment
// whose waiting time is over, and removes what a deleted app left behind.
//
// Depends on internal/record/lane.
package janitor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
	"devpilot.io/bitbucket/services/deployer/internal/record/streams"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

const (
	// again is the pause between two passes over a lane that is being worked on.
	again = 30 * time.Second
	// seldom is the same for one whose worker does not come.
	seldom = 5 * time.Minute
)

// Deletion finishes the deletion of an app whose lane was retired.
type Deletion interface {
	Forget(ctx context.Context, k lane.Key, generation int64) error
}

// Queue is the stream of wake-ups.
type Queue interface {
	GetMsg(ctx context.Context, seq uint64, opts ...jetstream.GetMsgOpt) (*jetstream.RawStreamMsg, error)
	GetLastMsgForSubject(ctx context.Context, subject string) (*jetstream.RawStreamMsg, error)
}

// Purger is the stream of logs.
type Purger interface {
	Purge(ctx context.Context, opts ...jetstream.StreamPurgeOpt) error
}

// Records are the deployments' records.
type Records interface {
	Get(ctx context.Context, key string) (*storev1.Deployment, uint64, error)
	Delete(ctx context.Context, key string, rev uint64) error
}

// Outcomes tells deliveries what came of them.
type Outcomes interface {
	CutShort(ctx context.Context, k lane.Key, c *storev1.CutShort) error
	Deciding(ctx context.Context, k lane.Key, l *storev1.Lane, offline bool) error
}

// Servers knows the servers.
type Servers interface {
	Offline(server string) (since time.Time, offline bool)
}

// Bitbucket is who finds out whether it answers about an app's repository; what waits for that then
// goes on.
type Bitbucket interface {
	Waits(ctx context.Context, k lane.Key) error
}

// Janitor reconciles lanes: it mends what a process left behind.
type Janitor struct {
	Names       stream.Installation // of what Work and Logs hold
	Dispatcher  *lane.Dispatcher
	Work        Queue
	Logs        Purger
	Deployments Records
	Apps        Deletion
	Bitbucket   Bitbucket // may be nil: then each tries for itself
	Outcomes    Outcomes  // nil where no delivery is to hear of anything
	Servers     Servers   // may be nil: then all are taken to be live
	Logger      *slog.Logger
	Now         func() time.Time
}

// Handle is the schedule's handler for lanes.
func (j *Janitor) Handle(ctx context.Context, workspace, app string, attempts int) (time.Time, error) {
	k := lane.Key{Workspace: workspace, App: app}
	l, _, err := j.Dispatcher.Get(ctx, k)
	if err != nil {
		return time.Time{}, err
	}
	if err := j.Dispatcher.Flush(ctx, k, l); err != nil {
		return time.Time{}, err
	}
	if l, err = j.removeRemains(ctx, k, l); err != nil {
		return time.Time{}, err
	}
	if r := l.GetRunning(); r.GetWake() != 0 {
		lost, err := j.lost(ctx, r.GetWake())
		if err != nil {
			return time.Time{}, err
		}
		if lost {
			j.Logger.WarnContext(ctx, "wake-up of a running deployment is lost, another takes over",
				slog.String(logs.KeyWorkspace, workspace), slog.String(logs.KeyApp, app), slog.Int(logs.KeyDeployment, int(r.GetJob().GetNumber())))
			if l, err = j.Dispatcher.Change(ctx, k, func(l *storev1.Lane) error { return lane.Orphan(l, r.GetEpoch()) }); err != nil {
				return time.Time{}, err
			}
		}
	}
	decider := lane.Decider(l)
	if decider != "" {
		if err := j.wakeDecider(ctx, decider, k); err != nil {
			return time.Time{}, err
		}
		if err := j.tellUndecided(ctx, k, l, decider); err != nil {
			return time.Time{}, err
		}
	}
	if l.GetRunning() == nil && lane.Upcoming(l) != nil && l.GetHold() != nil {
		if wake := l.GetHold().GetWakeTime().AsTime(); wake.After(j.Now()) {
			if soon := j.Now().Add(again); decider != "" && soon.Before(wake) {
				return soon, nil
			}
			return wake, nil
		}
		if j.Bitbucket != nil && l.GetHold().GetFailures() > tries && lane.AwaitsBitbucket(l) {
			return j.pollOnce(ctx, k, l)
		}
	}
	targets := lane.WakeTargets(l)
	for _, server := range targets {
		if err := j.wake(ctx, server, k); err != nil {
			return time.Time{}, err
		}
	}
	if lane.HasWork(l) {
		if len(targets) > 0 || decider != "" {
			return j.Now().Add(min(again*time.Duration(attempts), seldom)), nil
		}
		return j.Now().Add(again), nil
	}
	disarmed, err := j.Dispatcher.Disarm(ctx, k)
	if err != nil || disarmed {
		return time.Time{}, err
	}
	return j.Now().Add(again), nil
}

const (
	// tries is how often a deployment tries for itself: most trouble is over by then.
	tries = 2
	// asksAround is how often a lane has Bitbucket asked that it waits for.
	asksAround = 30 * time.Second
)

// pollOnce has Bitbucket polled, by one question for all that wait for the repository, and lets the lane
// wait on.
func (j *Janitor) pollOnce(ctx context.Context, k lane.Key, l *storev1.Lane) (time.Time, error) {
	wake, trouble := j.Now().Add(asksAround), l.GetHold().GetTrouble()
	why := &deployerv1.DeploymentError{Reason: trouble.GetReason(), Message: trouble.GetMessage()}
	l, err := j.Dispatcher.Change(ctx, k, func(l *storev1.Lane) error { return lane.Postpone(l, why, wake) })
	if err != nil {
		return time.Time{}, err
	}
	if err := j.Dispatcher.Flush(ctx, k, l); err != nil {
		return time.Time{}, err
	}
	return wake, j.Bitbucket.Waits(ctx, k)
}

// lost tells that a wake-up is no longer in the work queue: its holder will never be replaced.
func (j *Janitor) lost(ctx context.Context, sequence uint64) (bool, error) {
	_, err := j.Work.GetMsg(ctx, sequence)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("janitor: look for a wake-up: %w", err)
	}
	return false, nil
}

// wake publishes a wake-up unless one is there: a server without workers must not gather them.
func (j *Janitor) wake(ctx context.Context, server string, k lane.Key) error {
	subject, err := streams.WorkSubject(server, k.Workspace, k.App)
	if err != nil {
		return fmt.Errorf("janitor: %w", err)
	}
	there, err := j.queued(ctx, subject)
	if err != nil || there {
		return err
	}
	return j.Dispatcher.Waker.Wake(ctx, server, k)
}

// tellUndecided tells deliveries that they are being decided about, should their worker not have.
func (j *Janitor) tellUndecided(ctx context.Context, k lane.Key, l *storev1.Lane, server string) error {
	if j.Outcomes == nil {
		return nil
	}
	offline := false
	if j.Servers != nil {
		_, offline = j.Servers.Offline(server)
	}
	return j.Outcomes.Deciding(ctx, k, l, offline)
}

// wakeDecider does the same for a decision.
func (j *Janitor) wakeDecider(ctx context.Context, server string, k lane.Key) error {
	subject, err := streams.DecideSubject(server, k.Workspace, k.App)
	if err != nil {
		return fmt.Errorf("janitor: %w", err)
	}
	there, err := j.queued(ctx, subject)
	if err != nil || there {
		return err
	}
	return j.Dispatcher.Waker.WakeDecider(ctx, server, k)
}

func (j *Janitor) queued(ctx context.Context, subject string) (bool, error) {
	_, err := j.Work.GetLastMsgForSubject(ctx, j.Names.Subject(subject))
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return false, nil
	}
	return false, fmt.Errorf("janitor: look for a wake-up: %w", err)
}

// removeRemains removes the records and log lines of deleted apps, and the app's own record where
// the deletion was cut short.
func (j *Janitor) removeRemains(ctx context.Context, k lane.Key, l *storev1.Lane) (*storev1.Lane, error) {
	for _, r := range l.GetRemains() {
		if !r.GetRecords() {
			continue
		}
		if err := j.Apps.Forget(ctx, k, r.GetGeneration()); err != nil {
			return nil, err
		}
		for _, c := range r.GetCutShort() {
			if j.Outcomes == nil {
				break
			}
			if err := j.Outcomes.CutShort(ctx, k, c); err != nil {
				return nil, err
			}
		}
		for n := int32(1); n <= r.GetLastNumber(); n++ {
			if err := j.removeRecord(ctx, k.Record(n), r.GetGeneration()); err != nil {
				return nil, err
			}
		}
		subject, err := streams.LogsOfApp(k.Workspace, k.App)
		if err != nil {
			return nil, fmt.Errorf("janitor: %w", err)
		}
		if r.GetLogSequence() > 0 {
			if err := j.Logs.Purge(ctx, jetstream.WithPurgeSubject(j.Names.Subject(subject)), jetstream.WithPurgeSequence(r.GetLogSequence()+1)); err != nil {
				return nil, fmt.Errorf("janitor: remove log lines: %w", err)
			}
		}
		if l, err = j.Dispatcher.Change(ctx, k, func(l *storev1.Lane) error {
			lane.Removed(l, r.GetGeneration(), true, "")
			return nil
		}); err != nil {
			return nil, err
		}
	}
	return l, nil
}

func (j *Janitor) removeRecord(ctx context.Context, key string, generation int64) error {
	rec, rev, err := j.Deployments.Get(ctx, key)
	if errors.Is(err, kv.ErrNotFound) || err == nil && rec.GetGeneration() > generation {
		return nil
	}
	if err == nil {
		err = j.Deployments.Delete(ctx, key, rev)
	}
	if err != nil && !errors.Is(err, kv.ErrNotFound) && !errors.Is(err, kv.ErrConflict) {
		return fmt.Errorf("janitor: remove a deployment's record: %w", err)
	}
	return nil
}
