package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

// Wakeup is a wake-up as it was delivered.
type Wakeup struct {
	Sequence uint64 // in its stream
	First    bool   // its consumer has not delivered it before
}

// Handle answers one wake-up. It returns nil when there is nothing (more) to do for it, stream.ErrLeave
// when it is, or may be, in other hands, and any other error to be handed the wake-up again.
func (w *Worker) Handle(ctx context.Context, k lane.Key, wake Wakeup) error {
	ctx = logs.WithAttrs(ctx, slog.String(logs.KeyWorkspace, k.Workspace), slog.String(logs.KeyApp, k.App))
	for {
		var verdict lane.Verdict
		l, err := w.cfg.Dispatcher.Change(ctx, k, func(l *storev1.Lane) error {
			verdict = lane.Claim(l, lane.Claimant{Wake: wake.Sequence, First: wake.First, Server: w.cfg.Server, Worker: w.cfg.Worker, Now: w.cfg.Now()})
			if verdict != lane.Start && verdict != lane.TakeOver {
				return lane.ErrSkip
			}
			return nil
		})
		if err != nil {
			return err
		}
		switch verdict {
		case lane.Leave:
			return stream.ErrLeave
		case lane.Idle, lane.Busy, lane.Held:
			return w.cfg.Dispatcher.Flush(ctx, k, l)
		case lane.Elsewhere: // the app moved to another server while the wake-up was on its way
			return w.cfg.Dispatcher.Dispatch(ctx, k, l)
		case lane.Removal:
			if err := w.remove(ctx, k, l); err != nil {
				return err
			}
			continue
		case lane.Start, lane.TakeOver:
		}
		err = w.run(ctx, k, l, verdict)
		switch {
		case errors.Is(err, lane.ErrLost):
			if again, err := w.lost(ctx, k, wake.Sequence); !again {
				return err
			}
		case err != nil:
			return err
		}
	}
}

// lost tells what to do about the wake-up after its run was lost: leave it to the worker that has
// it now, or read the lane again.
func (w *Worker) lost(ctx context.Context, k lane.Key, wake uint64) (again bool, err error) {
	l, _, err := w.cfg.Dispatcher.Get(ctx, k)
	if err != nil {
		return false, err
	}
	if r := l.GetRunning(); r != nil && r.GetWake() == wake {
		return false, stream.ErrLeave
	}
	return true, nil
}

// remove removes the directories that deleted apps left on this server.
func (w *Worker) remove(ctx context.Context, k lane.Key, l *storev1.Lane) error {
	for _, r := range l.GetRemains() {
		if !slices.Contains(r.GetServers(), w.cfg.Server) {
			continue
		}
		if err := w.cfg.Releases.Remove(ctx, k.Workspace, k.App, r.GetEpoch()); err != nil {
			return fmt.Errorf("pipeline: remove what is left of %s: %w", k, err)
		}
		if _, err := w.cfg.Dispatcher.Change(ctx, k, func(l *storev1.Lane) error {
			lane.Removed(l, r.GetGeneration(), false, w.cfg.Server)
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// finishTimeout bounds the writing down of a decision that must not be cut by a stop.
const finishTimeout = 10 * time.Second

// decide stores how the run goes on and carries it out, even while the process stops.
func (w *Worker) decide(ctx context.Context, k lane.Key, fn func(*storev1.Lane) error) (*storev1.Lane, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
	defer cancel()
	l, err := w.cfg.Dispatcher.Change(ctx, k, fn)
	if err != nil {
		return nil, err
	}
	return l, w.cfg.Dispatcher.Flush(ctx, k, l)
}
