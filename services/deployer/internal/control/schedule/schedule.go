// Package schedule is the list of things to look at later: lanes with work, watches that webhook has not
// taken, connections whose reach is to be checked. An entry only means "look": what is to be done
// stands in the record it names. All deployers watch the list; who moves an entry's time on by
// compare-and-set has the turn.
//
// Entries are written by internal/record/reminder.
//
// Depends on pkg/kv and internal/record/reminder.
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
	"devpilot.io/bitbucket/services/deployer/internal/record/reminder"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

// Handler looks at one thing. looks counts the looks since the entry was touched, from 1. It
// returns when to look again; the zero time when there is nothing left to look at: the entry then
// goes, unless somebody touched it during the look.
type Handler func(ctx context.Context, workspace, name string, looks int) (time.Time, error)

// turn is how long a look may take before another deployer takes its turn.
const turn = 30 * time.Second

// parallel is how many things one process looks at at once.
const parallel = 8

// List is the due list.
type List struct {
	bucket   *kv.Bucket[storev1.Due, *storev1.Due]
	mirror   *kv.Mirror[storev1.Due, *storev1.Due]
	handlers map[reminder.Kind]Handler
	log      *slog.Logger
	now      func() time.Time
	changed  chan struct{}
	busy     sync.Map // keys this process is looking at
}

// New prepares a list; add handlers before Run.
func New(bucket *kv.Bucket[storev1.Due, *storev1.Due], log *slog.Logger, now func() time.Time) *List {
	l := &List{bucket: bucket, mirror: kv.NewMirror(bucket), handlers: map[reminder.Kind]Handler{}, log: log, now: now, changed: make(chan struct{}, 1)}
	l.mirror.OnChange(func(string, *storev1.Due) { l.poke() })
	return l
}

// Handle sets who looks at things of a kind.
func (l *List) Handle(kind reminder.Kind, h Handler) { l.handlers[kind] = h }

// Ready is nil once the list is known.
func (l *List) Ready(ctx context.Context) error { return l.mirror.Ready(ctx) }

func (l *List) poke() {
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// Run looks at things as they become due, until ctx is done.
func (l *List) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		if err := l.mirror.Run(ctx); err != nil {
			l.log.ErrorContext(ctx, "due list no longer watched", logs.Err(err))
		}
	})
	slots := make(chan struct{}, parallel)
	for ctx.Err() == nil {
		next := l.round(ctx, slots, &wg)
		t := time.NewTimer(next)
		select {
		case <-ctx.Done():
		case <-l.changed:
			// Changes come in bursts: one round for all of them.
			t.Reset(20 * time.Millisecond)
			select {
			case <-ctx.Done():
			case <-t.C:
			}
		case <-t.C:
		}
		t.Stop()
	}
	return nil
}

// round starts a look at everything that is due and returns how long until the next entry is.
func (l *List) round(ctx context.Context, slots chan struct{}, wg *sync.WaitGroup) time.Duration {
	now := l.now()
	next := 5 * time.Second
	for k, d := range l.mirror.All() {
		if wait := d.GetTime().AsTime().Sub(now); wait > 0 {
			next = min(next, wait)
			continue
		}
		if _, looking := l.busy.LoadOrStore(k, true); looking {
			continue
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			l.busy.Delete(k)
			return 0
		}
		wg.Go(func() {
			defer func() {
				<-slots
				l.busy.Delete(k)
				l.poke()
			}()
			l.look(ctx, k)
		})
	}
	return max(next, 5*time.Millisecond)
}

// look takes the turn and has the thing looked at.
func (l *List) look(ctx context.Context, k string) {
	parts, err := kv.DecodeKey(k)
	if err != nil || len(parts) != 3 || l.handlers[reminder.Kind(parts[0])] == nil {
		l.log.ErrorContext(ctx, "unknown entry in the due list", slog.String(logs.KeyKey, k))
		return
	}
	d, rev, err := l.bucket.Get(ctx, k)
	if err != nil || d.GetTime().AsTime().After(l.now()) {
		return // somebody else was faster; or the store is away, and a later round looks
	}
	d.Time, d.Looks = timestamppb.New(l.now().Add(turn)), d.GetLooks()+1
	if rev, err = l.bucket.CompareAndSet(ctx, k, d, rev); err != nil {
		return
	}
	lookCtx, cancel := context.WithTimeout(ctx, turn)
	defer cancel()
	next, err := l.handlers[reminder.Kind(parts[0])](lookCtx, parts[1], parts[2], int(d.GetLooks()))
	if err != nil {
		if ctx.Err() != nil {
			return
		}
		next = l.now().Add(backoff(int(d.GetLooks())))
		l.log.WarnContext(ctx, "look failed", slog.String(logs.KeyKey, k), logs.Err(err))
	}
	if next.IsZero() {
		err = l.bucket.Delete(ctx, k, rev)
	} else {
		d.Time = timestamppb.New(next)
		_, err = l.bucket.CompareAndSet(ctx, k, d, rev)
	}
	if err != nil && ctx.Err() == nil && !errors.Is(err, kv.ErrConflict) && !errors.Is(err, kv.ErrNotFound) {
		l.log.WarnContext(ctx, "due list not updated", slog.String(logs.KeyKey, k), logs.Err(err))
	}
}

// backoff is 2 s doubling to 5 min.
func backoff(looks int) time.Duration {
	d := min(2*time.Second<<min(looks-1, 10), 5*time.Minute)
	return d - rand.N(d/4)
}
