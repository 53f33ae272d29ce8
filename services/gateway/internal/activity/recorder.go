package activity

import (
	"context"
	"log/slog"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/prometheus/client_golang/prometheus"

	"devpilot.io/bitbucket/pkg/logs"
)

const (
	queueLength = 1024 // entries of the activity list that wait to be written
	// One record is tried for so long; the queue waits behind it.
	tryFor = 15 * time.Second
	// drainFor bounds what is still written at shutdown.
	drainFor = 3 * time.Second
)

// Recorder stores entries in the order in which they were handed over, in the background.
type Recorder struct {
	logger *slog.Logger
	lost   prometheus.Counter
	queue  chan Entry
}

// NewRecorder makes a recorder; it keeps entries until Run writes them.
func NewRecorder(logger *slog.Logger, lost prometheus.Counter) *Recorder {
	return &Recorder{logger: logger, lost: lost, queue: make(chan Entry, queueLength)}
}

// Record hands an entry over and returns at once.
func (r *Recorder) Record(ctx context.Context, e Entry) {
	if e.Workspace == "" {
		return
	}
	select {
	case r.queue <- e:
	default:
		r.drop(ctx, e, "queue is full")
	}
}

func (r *Recorder) drop(ctx context.Context, e Entry, why string) {
	r.lost.Inc()
	r.logger.WarnContext(ctx, "activity record lost", slog.String(logs.KeyWorkspace, e.Workspace),
		slog.String("action", e.Action), slog.String(logs.KeyRequestID, e.RequestID), slog.String(logs.KeyReason, why))
}

// Run stores what is handed over until ctx is done, then what is still waiting, for a short while.
func (r *Recorder) Run(ctx context.Context, store *Store) {
	for {
		select {
		case e := <-r.queue:
			r.write(ctx, store, e)
		case <-ctx.Done():
			r.drain(ctx, store)
			return
		}
	}
}

func (r *Recorder) drain(ctx context.Context, store *Store) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainFor)
	defer cancel()
	for {
		select {
		case e := <-r.queue:
			r.write(ctx, store, e)
		default:
			return
		}
	}
}

// write tries a record for a while. At shutdown the parent's end does not cut a write short that
// has begun: drain's own bound does.
func (r *Recorder) write(parent context.Context, store *Store, e Entry) {
	ctx, cancel := context.WithTimeout(parent, tryFor)
	defer cancel()
	record := e.record()
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		attempt, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		return struct{}{}, store.append(attempt, e.Workspace, record)
	}, backoff.WithMaxElapsedTime(tryFor))
	if err != nil {
		r.drop(parent, e, err.Error())
	}
}
