// Package janitor looks after lanes that have work: it repeats what a dead process left undone. It
// writes what is in a lane's outbox, wakes workers whose wake-up was lost, starts a deployment
// whose waiting time is over, and removes what a deleted app left behind.
//
// Depends on internal/record/lane and internal/control/schedule.
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
	"devpilot.io/bitbucket/services/deployer/internal/control/schedule"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// Kind is the kind of lanes in the due list.
const Kind schedule.Kind = "lane"

const (
	// firstLook is when a lane that got work is looked at: by then most deployments are done, and
	// the look only ends the watch.
	firstLook = 10 * time.Second
	// again is the pause between looks at a lane that is being worked on.
	again = 30 * time.Second
	// seldom is the same for one whose worker does not come.
	seldom = 5 * time.Minute
)

// List is the due list.
type List interface {
	Touch(ctx context.Context, kind schedule.Kind, workspace, name string, at time.Time) (uint64, error)
}

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
}

// Alarm is the due list as lanes see it: lane.Alarm and pipeline.Alarm.
type Alarm struct {
	List List
	Now  func() time.Time
}

// Arm has the lane looked at soon.
func (a Alarm) Arm(ctx context.Context, k lane.Key) error {
	return a.At(ctx, k, a.Now().Add(firstLook))
}

// At has the lane looked at at a given time.
func (a Alarm) At(ctx context.Context, k lane.Key, at time.Time) error {
	_, err := a.List.Touch(ctx, Kind, k.Workspace, k.App, at)
	return err
}

// Bitbucket is who finds out whether it answers about an app's repository; what waits for that then
// goes on.
type Bitbucket interface {
	Waits(ctx context.Context, k lane.Key) error
}

// Tender looks at lanes.
type Tender struct {
	Keeper      *lane.Keeper
	Work        Queue
	Logs        Purger
	Deployments Records
	Apps        Deletion
	Bitbucket   Bitbucket // may be nil: then each tries for itself
	Outcomes    Outcomes  // nil where no delivery is to hear of deletions
	Logger      *slog.Logger
	Now         func() time.Time
}

// Look is the due list's handler for lanes.
func (t *Tender) Look(ctx context.Context, workspace, app string, looks int) (time.Time, error) {
	k := lane.Key{Workspace: workspace, App: app}
	l, _, err := t.Keeper.Get(ctx, k)
	if err != nil {
		return time.Time{}, err
	}
	if err := t.Keeper.Flush(ctx, k, l); err != nil {
		return time.Time{}, err
	}
	if l, err = t.removeRemains(ctx, k, l); err != nil {
		return time.Time{}, err
	}
	if r := l.GetRunning(); r.GetWake() != 0 {
		lost, err := t.lost(ctx, r.GetWake())
		if err != nil {
			return time.Time{}, err
		}
		if lost {
			t.Logger.WarnContext(ctx, "wake-up of a running deployment is lost, another takes over",
				slog.String(logs.KeyWorkspace, workspace), slog.String(logs.KeyApp, app), slog.Int(logs.KeyDeployment, int(r.GetJob().GetNumber())))
			if l, err = t.Keeper.Change(ctx, k, func(l *storev1.Lane) error { return lane.Orphan(l, r.GetEpoch()) }); err != nil {
				return time.Time{}, err
			}
		}
	}
	if l.GetRunning() == nil && l.GetWaiting() != nil && l.GetHold() != nil {
		if wake := l.GetHold().GetWakeTime().AsTime(); wake.After(t.Now()) {
			return wake, nil
		}
		if t.Bitbucket != nil && l.GetHold().GetFailures() > tries && lane.AwaitsBitbucket(l) {
			return t.askAround(ctx, k, l)
		}
	}
	targets := lane.WakeTargets(l)
	for _, server := range targets {
		if err := t.wake(ctx, server, k); err != nil {
			return time.Time{}, err
		}
	}
	if lane.HasWork(l) {
		if len(targets) > 0 {
			return t.Now().Add(min(again*time.Duration(looks), seldom)), nil
		}
		return t.Now().Add(again), nil
	}
	disarmed, err := t.Keeper.Disarm(ctx, k)
	if err != nil || disarmed {
		return time.Time{}, err
	}
	return t.Now().Add(again), nil
}

const (
	// tries is how often a deployment tries for itself: most trouble is over by then.
	tries = 2
	// asksAround is how often a lane has Bitbucket asked that it waits for.
	asksAround = 30 * time.Second
)

// askAround has Bitbucket asked, by one question for all that wait for the repository, and lets the lane
// wait on.
func (t *Tender) askAround(ctx context.Context, k lane.Key, l *storev1.Lane) (time.Time, error) {
	wake, trouble := t.Now().Add(asksAround), l.GetHold().GetTrouble()
	why := &deployerv1.DeploymentError{Reason: trouble.GetReason(), Message: trouble.GetMessage()}
	l, err := t.Keeper.Change(ctx, k, func(l *storev1.Lane) error { return lane.Postpone(l, why, wake) })
	if err != nil {
		return time.Time{}, err
	}
	if err := t.Keeper.Flush(ctx, k, l); err != nil {
		return time.Time{}, err
	}
	return wake, t.Bitbucket.Waits(ctx, k)
}

// lost tells that a wake-up is no longer in the work queue: its holder will never be replaced.
func (t *Tender) lost(ctx context.Context, sequence uint64) (bool, error) {
	_, err := t.Work.GetMsg(ctx, sequence)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("tend: look for a wake-up: %w", err)
	}
	return false, nil
}

// wake publishes a wake-up unless one is there: a server without workers must not gather them.
func (t *Tender) wake(ctx context.Context, server string, k lane.Key) error {
	subject, err := stream.WorkSubject(server, k.Workspace, k.App)
	if err != nil {
		return fmt.Errorf("tend: %w", err)
	}
	_, err = t.Work.GetLastMsgForSubject(ctx, subject)
	if err == nil {
		return nil
	}
	if !errors.Is(err, jetstream.ErrMsgNotFound) {
		return fmt.Errorf("tend: look for a wake-up: %w", err)
	}
	return t.Keeper.Waker.Wake(ctx, server, k)
}

// removeRemains removes the records and log lines of deleted apps, and the app's own record where
// the deletion was cut short.
func (t *Tender) removeRemains(ctx context.Context, k lane.Key, l *storev1.Lane) (*storev1.Lane, error) {
	for _, r := range l.GetRemains() {
		if !r.GetRecords() {
			continue
		}
		if err := t.Apps.Forget(ctx, k, r.GetGeneration()); err != nil {
			return nil, err
		}
		for _, c := range r.GetCutShort() {
			if t.Outcomes == nil {
				break
			}
			if err := t.Outcomes.CutShort(ctx, k, c); err != nil {
				return nil, err
			}
		}
		for n := int32(1); n <= r.GetLastNumber(); n++ {
			if err := t.removeRecord(ctx, k.Record(n), r.GetGeneration()); err != nil {
				return nil, err
			}
		}
		subject, err := stream.LogsOfApp(k.Workspace, k.App)
		if err != nil {
			return nil, fmt.Errorf("tend: %w", err)
		}
		if r.GetLogSequence() > 0 {
			if err := t.Logs.Purge(ctx, jetstream.WithPurgeSubject(subject), jetstream.WithPurgeSequence(r.GetLogSequence()+1)); err != nil {
				return nil, fmt.Errorf("tend: remove log lines: %w", err)
			}
		}
		if l, err = t.Keeper.Change(ctx, k, func(l *storev1.Lane) error {
			lane.Removed(l, r.GetGeneration(), true, "")
			return nil
		}); err != nil {
			return nil, err
		}
	}
	return l, nil
}

func (t *Tender) removeRecord(ctx context.Context, key string, generation int64) error {
	rec, rev, err := t.Deployments.Get(ctx, key)
	if errors.Is(err, kv.ErrNotFound) || err == nil && rec.GetGeneration() > generation {
		return nil
	}
	if err == nil {
		err = t.Deployments.Delete(ctx, key, rev)
	}
	if err != nil && !errors.Is(err, kv.ErrNotFound) && !errors.Is(err, kv.ErrConflict) {
		return fmt.Errorf("tend: remove a deployment's record: %w", err)
	}
	return nil
}
