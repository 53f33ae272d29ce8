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
	together    = 64   // of those, how many are numbered with one write
	// One record is tried for so long; the queue waits behind it.
	tryFor         = 15 * time.Second
	attemptTimeout = 2 * time.Second // of one try
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
			r.writeAll(ctx, store, r.waiting(e))
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
			r.writeAll(ctx, store, r.waiting(e))
		default:
			return
		}
	}
}

// waiting is an entry and those that wait behind it.
func (r *Recorder) waiting(e Entry) []Entry {
	list := []Entry{e}
	for len(list) < together {
		select {
		case e := <-r.queue:
			list = append(list, e)
		default:
			return list
		}
	}
	return list
}

// writeAll writes entries of any workspaces, those of one in their order.
func (r *Recorder) writeAll(ctx context.Context, store *Store, list []Entry) {
	of := map[string][]Entry{}
	for _, e := range list {
		of[e.Workspace] = append(of[e.Workspace], e)
	}
	for _, entries := range of {
		r.write(ctx, store, entries)
	}
}

// write gives entries of one workspace their numbers and stores each under its own. What cannot be done for
// a while costs one entry.
func (r *Recorder) write(ctx context.Context, store *Store, list []Entry) {
	var first int32
	for len(list) > 0 {
		err := try(ctx, func(ctx context.Context) (err error) {
			first, err = store.number(ctx, list[0].Workspace, len(list))
			return err
		})
		if err == nil {
			break
		}
		r.drop(ctx, list[0], err.Error())
		list = list[1:]
	}
	for i, e := range list {
		record := e.record()
		record.Number = first + int32(i)
		if err := try(ctx, func(ctx context.Context) error { return store.put(ctx, e.Workspace, record) }); err != nil {
			r.drop(ctx, e, err.Error())
		}
	}
}

// try does something until it is done, for a while. At shutdown the parent's end does not cut a write short
// that has begun: drain's own bound does.
func try(parent context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(parent, tryFor)
	defer cancel()
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		attempt, cancel := context.WithTimeout(context.WithoutCancel(ctx), attemptTimeout)
		defer cancel()
		return struct{}{}, do(attempt)
	}, backoff.WithMaxElapsedTime(tryFor))
	return err
}
