// Package fair shares workers between owners of work: whoever has much of it waits for himself only.
//
// Work is queued under a key, its owner. Each owner's items are handled in their order and by one
// worker at a time, a limited number in one turn; owners take turns. An owner that meets temporary
// trouble tries again after a pause, while the others go on. An owner that just had a turn may have
// to wait a moment for the next one, so that what trickles in is handled together. Owners may belong
// to groups, which take turns too and of which none has all workers.
//
// It depends on cenkalti/backoff and on nothing of ours.
package fair

import (
	"context"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// Config says how work is done.
type Config[T any] struct {
	// Workers is how many owners are served at once.
	Workers int
	// Turn is how many items an owner's turn takes at most.
	Turn int
	// Interval is the time between the starts of an owner's turns, unless a whole turn's items wait.
	Interval time.Duration
	// Group is the group of an owner; nil: all are of one.
	Group func(owner string) string
	// Share is how many workers serve one group at once; all of them when zero.
	Share int
	// Handle handles the items of a turn. After an error, the items of each call of Add are handled
	// once more for themselves.
	Handle func(ctx context.Context, owner string, items []T) error
	// Temporary tells errors after which the same items are tried again; nil: none.
	Temporary func(error) bool
	// OnRetry hears of such an error; may be nil.
	OnRetry func(ctx context.Context, owner string, err error)
}

// The pauses after temporary trouble.
const (
	firstPause = 100 * time.Millisecond
	longPause  = 10 * time.Second
)

// Queue shares workers between owners. Add is safe for concurrent use; Run is called once.
type Queue[T any] struct {
	cfg Config[T]

	mu     sync.Mutex
	owners map[string]*owner[T]
	groups map[string]*group[T] // those with owners in ready or in a worker's hands
	turns  []*group[T]          // that may have a worker, the one that waits longest first
	ended  error
	wake   chan struct{}
}

type group[T any] struct {
	key    string
	ready  []*owner[T] // whose turn it is, the one that waits longest first
	served int         // owners in workers' hands
	queued bool        // in turns
}

type owner[T any] struct {
	key   string
	items []entry[T]
	// busy: in ready, in a worker's hands, or waiting for its timer.
	busy  bool
	timer *time.Timer // of an owner that waits for its interval
	begun time.Time   // start of the last turn
	// pauses are those between tries after temporary trouble; nil without.
	pauses *backoff.ExponentialBackOff
	// alone is how many of the first items are handled one call of Add at a time: together they
	// failed, and what is wrong with one must not be held against the others.
	alone int
}

type entry[T any] struct {
	item   T
	ticket *ticket
}

// ticket is one call of Add.
type ticket struct {
	left int
	err  error
	done func(error)
}

// New makes a queue.
func New[T any](cfg Config[T]) *Queue[T] {
	if cfg.Share == 0 {
		cfg.Share = cfg.Workers
	}
	return &Queue[T]{cfg: cfg, owners: map[string]*owner[T]{}, groups: map[string]*group[T]{}, wake: make(chan struct{}, 1)}
}

// Add queues items behind those that the owner has. done is called once, when all of them are
// handled, with nil or the first error; with the context's error when the queue ends before.
func (q *Queue[T]) Add(key string, items []T, done func(error)) {
	if len(items) == 0 {
		done(nil)
		return
	}
	q.mu.Lock()
	if q.ended != nil {
		err := q.ended
		q.mu.Unlock()
		done(err)
		return
	}
	o := q.owners[key]
	if o == nil {
		o = &owner[T]{key: key}
		q.owners[key] = o
	}
	t := &ticket{left: len(items), done: done}
	for _, it := range items {
		o.items = append(o.items, entry[T]{it, t})
	}
	switch {
	case !o.busy:
		q.schedule(o)
	case o.timer != nil && o.pauses == nil && len(o.items) >= q.cfg.Turn && o.timer.Stop():
		o.timer = nil
		q.enter(o)
	}
	q.mu.Unlock()
}

// schedule gives an owner that has items its next turn: now, or when its interval is over.
func (q *Queue[T]) schedule(o *owner[T]) {
	o.busy = true
	wait := time.Until(o.begun.Add(q.cfg.Interval))
	if wait <= 0 || o.alone > 0 || len(o.items) >= q.cfg.Turn {
		q.enter(o)
		return
	}
	q.after(o, wait)
}

func (q *Queue[T]) after(o *owner[T], wait time.Duration) {
	var t *time.Timer
	t = time.AfterFunc(wait, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		if o.timer == t {
			o.timer = nil
			q.enter(o)
		}
	})
	o.timer = t
}

// enter puts an owner at the end of those of its group whose turn it is.
func (q *Queue[T]) enter(o *owner[T]) {
	g := q.group(o)
	g.ready = append(g.ready, o)
	q.line(g)
}

func (q *Queue[T]) group(o *owner[T]) *group[T] {
	key := ""
	if q.cfg.Group != nil {
		key = q.cfg.Group(o.key)
	}
	g := q.groups[key]
	if g == nil {
		g = &group[T]{key: key}
		q.groups[key] = g
	}
	return g
}

// line puts a group at the end of those that may have a worker, if it may, and forgets one without work.
func (q *Queue[T]) line(g *group[T]) {
	switch {
	case g.queued:
	case len(g.ready) > 0 && g.served < q.cfg.Share:
		g.queued = true
		q.turns = append(q.turns, g)
		q.signal()
	case len(g.ready) == 0 && g.served == 0:
		delete(q.groups, g.key)
	}
}

// pop takes the owner whose turn it is.
func (q *Queue[T]) pop() *owner[T] {
	g := q.turns[0]
	q.turns = q.turns[1:]
	o := g.ready[0]
	g.ready, g.served, g.queued = g.ready[1:], g.served+1, false
	q.line(g)
	return o
}

// left gives a worker back that served an owner.
func (q *Queue[T]) left(o *owner[T]) {
	g := q.group(o)
	g.served--
	q.line(g)
}

func (q *Queue[T]) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// Run works until ctx is done; turns that have begun are finished, and what waits is answered with
// ctx's error. Handlers get work, which may outlive ctx.
func (q *Queue[T]) Run(ctx, work context.Context) {
	var wg sync.WaitGroup
	for range q.cfg.Workers {
		wg.Go(func() {
			for {
				o, items := q.next(ctx)
				if o == nil {
					return
				}
				q.finish(ctx, o, items, q.handle(work, o, items))
			}
		})
	}
	wg.Wait()
	q.end(ctx.Err())
}

// next waits for the next owner's turn; nil when ctx is done.
func (q *Queue[T]) next(ctx context.Context) (*owner[T], []entry[T]) {
	for {
		if ctx.Err() != nil {
			q.signal() // the others are to see it too
			return nil, nil
		}
		q.mu.Lock()
		if len(q.turns) > 0 {
			o := q.pop()
			if len(q.turns) > 0 {
				q.signal()
			}
			items := o.turn(q.cfg.Turn)
			o.begun = time.Now()
			q.mu.Unlock()
			return o, items
		}
		q.mu.Unlock()
		select {
		case <-q.wake:
		case <-ctx.Done():
		}
	}
}

// turn is what the owner's next turn handles.
func (o *owner[T]) turn(most int) []entry[T] {
	items := o.items[:min(len(o.items), most)]
	if o.alone == 0 {
		return items
	}
	n := 1
	for n < len(items) && n < o.alone && items[n].ticket == items[0].ticket {
		n++
	}
	return items[:n]
}

func (q *Queue[T]) handle(work context.Context, o *owner[T], items []entry[T]) error {
	all := make([]T, len(items))
	for i, e := range items {
		all[i] = e.item
	}
	return q.cfg.Handle(work, o.key, all)
}

// finish answers a turn's items, or has them tried again, and gives the owner its next turn.
func (q *Queue[T]) finish(ctx context.Context, o *owner[T], items []entry[T], err error) {
	if err != nil && ctx.Err() == nil && q.cfg.Temporary != nil && q.cfg.Temporary(err) {
		if q.cfg.OnRetry != nil {
			q.cfg.OnRetry(ctx, o.key, err)
		}
		q.mu.Lock()
		q.left(o)
		if o.pauses == nil {
			o.pauses = &backoff.ExponentialBackOff{InitialInterval: firstPause, MaxInterval: longPause, Multiplier: 2, RandomizationFactor: 0.25}
		}
		q.after(o, o.pauses.NextBackOff())
		q.mu.Unlock()
		return
	}
	var over []*ticket
	q.mu.Lock()
	q.left(o)
	o.pauses = nil
	if err != nil && items[0].ticket != items[len(items)-1].ticket {
		o.alone = len(items)
		q.enter(o)
		q.mu.Unlock()
		return
	}
	o.alone = max(o.alone-len(items), 0)
	for _, e := range items {
		t := e.ticket
		if t.err == nil {
			t.err = err
		}
		if t.left--; t.left == 0 {
			over = append(over, t)
		}
	}
	clear(o.items[:len(items)])
	o.items = o.items[len(items):]
	switch {
	case len(o.items) > 0:
		q.schedule(o)
	case q.cfg.Interval > 0: // remembered until its next turn could begin
		o.items, o.busy = nil, false
		time.AfterFunc(q.cfg.Interval, func() { q.forget(o) })
	default:
		delete(q.owners, o.key)
	}
	q.mu.Unlock()
	for _, t := range over {
		t.done(t.err)
	}
}

// forget drops an owner that has had nothing for an interval.
func (q *Queue[T]) forget(o *owner[T]) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !o.busy && time.Since(o.begun) >= q.cfg.Interval && q.owners[o.key] == o {
		delete(q.owners, o.key)
	}
}

// end answers what waits and takes nothing more.
func (q *Queue[T]) end(err error) {
	var over []*ticket
	q.mu.Lock()
	q.ended = err
	for _, o := range q.owners {
		if o.timer != nil {
			o.timer.Stop()
		}
		for _, e := range o.items {
			if e.ticket.left--; e.ticket.left == 0 {
				if e.ticket.err == nil {
					e.ticket.err = err
				}
				over = append(over, e.ticket)
			}
		}
	}
	clear(q.owners)
	clear(q.groups)
	q.turns = nil
	q.mu.Unlock()
	for _, t := range over {
		t.done(t.err)
	}
}
