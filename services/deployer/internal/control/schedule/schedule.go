// Package schedule is the list of things to do later: lanes with work, watches that webhook has not
// taken, connections whose reach is to be checked. An entry only names something: what is to be done
// stands in the record it names. All deployers watch the list; who moves an entry's time on by
// compare-and-set has the turn.
//
// Entries are written by internal/record/reminder.
//
// Depends on pkg/kv, internal/control/timequeue and internal/record/reminder.
package schedule

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/services/deployer/internal/control/timequeue"
	"devpilot.io/bitbucket/services/deployer/internal/record/reminder"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

// Handler does what one entry calls for. attempts counts from 1 since the entry was touched. It
// returns when to try again; the zero time when there is nothing left to do: the entry then
// goes, unless somebody touched it meanwhile.
type Handler func(ctx context.Context, workspace, name string, attempts int) (time.Time, error)

// turn is how long a handler may take before another deployer takes its turn.
const turn = 30 * time.Second

// parallel is how many entries one process handles at once.
const parallel = 8

// again is when an entry is handled again that could not be read or written.
const again = 5 * time.Second

// List is the schedule. What is due next is known without a walk over all entries.
type List struct {
	bucket   *kv.Bucket[storev1.Due, *storev1.Due]
	mirror   *kv.Mirror[storev1.Due, *storev1.Due]
	handlers map[reminder.Kind]Handler
	log      *slog.Logger
	now      func() time.Time
	loop     *timequeue.Loop
}

// New prepares a list; add handlers before Run.
func New(bucket *kv.Bucket[storev1.Due, *storev1.Due], log *slog.Logger, now func() time.Time) *List {
	l := &List{bucket: bucket, mirror: kv.NewMirror(bucket), handlers: map[reminder.Kind]Handler{}, log: log, now: now, loop: timequeue.NewLoop(parallel, now)}
	l.mirror.OnChange(func(key string, d *storev1.Due) {
		if d == nil {
			l.loop.Remove(key)
			return
		}
		l.loop.Set(key, d.GetTime().AsTime())
	})
	return l
}

// Handle sets the handler of a kind.
func (l *List) Handle(kind reminder.Kind, h Handler) { l.handlers[kind] = h }

// Ready is nil once the list is known.
func (l *List) Ready(ctx context.Context) error { return l.mirror.Ready(ctx) }

// Run handles entries as they become due, until ctx is done.
func (l *List) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		if err := l.mirror.Run(ctx); err != nil {
			l.log.ErrorContext(ctx, "schedule no longer watched", logs.Err(err))
		}
	})
	l.loop.Run(ctx, l.handle)
	return nil
}

// handle takes the turn and calls the handler. It returns when to come back where the entry itself
// will not tell, since nothing was written to it.
func (l *List) handle(ctx context.Context, k string) time.Time {
	parts, err := kv.DecodeKey(k)
	if err != nil || len(parts) != 3 || l.handlers[reminder.Kind(parts[0])] == nil {
		l.log.ErrorContext(ctx, "unknown entry in the schedule", slog.String(logs.KeyKey, k))
		return time.Time{}
	}
	d, rev, err := l.bucket.Get(ctx, k)
	switch {
	case errors.Is(err, kv.ErrNotFound):
		return time.Time{}
	case err != nil:
		return l.now().Add(again)
	case d.GetTime().AsTime().After(l.now()):
		return d.GetTime().AsTime() // somebody else was faster
	}
	d.Time, d.Looks = timestamppb.New(l.now().Add(turn)), d.GetLooks()+1
	if rev, err = l.bucket.CompareAndSet(ctx, k, d, rev); err != nil {
		return l.now().Add(again)
	}
	turnCtx, cancel := context.WithTimeout(ctx, turn)
	defer cancel()
	next, err := l.handlers[reminder.Kind(parts[0])](turnCtx, parts[1], parts[2], int(d.GetLooks()))
	if err != nil {
		if ctx.Err() != nil {
			return time.Time{}
		}
		next = l.now().Add(pause(int(d.GetLooks())))
		l.log.WarnContext(ctx, "entry of the schedule not handled", slog.String(logs.KeyKey, k), logs.Err(err))
	}
	if next.IsZero() {
		err = l.bucket.Delete(ctx, k, rev)
	} else {
		d.Time = timestamppb.New(next)
		_, err = l.bucket.CompareAndSet(ctx, k, d, rev)
	}
	if err != nil && ctx.Err() == nil && !errors.Is(err, kv.ErrConflict) && !errors.Is(err, kv.ErrNotFound) {
		l.log.WarnContext(ctx, "schedule not updated", slog.String(logs.KeyKey, k), logs.Err(err))
	}
	return l.now().Add(turn)
}

const (
	// firstPause is how long an entry waits after its first attempt, when that failed.
	firstPause = 2 * time.Second
	// mostPause is how long it waits at most, however many failed.
	mostPause = 5 * time.Minute
)

// pause is how long an entry waits after so many attempts of which the last failed. The count stands in its
// entry, which all deployers share: a library that counts in memory would begin anew with each.
func pause(attempts int) time.Duration {
	d := min(firstPause<<min(attempts-1, 10), mostPause)
	return d - rand.N(d/4)
}
