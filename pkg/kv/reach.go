package kv

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// catchUpTimeout is how long a read waits for a copy that is behind, before it asks the leader.
	catchUpTimeout = 200 * time.Millisecond
	// confirmTries is how often the leader's position is asked again because the watch skipped
	// revisions in between.
	confirmTries = 3
	// rewatchAfter is how long a copy may be behind without any progress, before it is watched again
	// from scratch.
	rewatchAfter = 10 * time.Second
)

// Why a read was not answered from a copy; label values of the metrics.
const (
	reasonCold    = "cold"    // no pass over the bucket is complete
	reasonBehind  = "behind"  // it did not reach the revision in time
	reasonChanged = "changed" // the bucket was purged or made again
	reasonFull    = "full"    // the bucket is larger than the copy may be
	reasonEvicted = "evicted" // the copy knows the key only
	reasonMissing = "missing" // the key is not there although it should be
)

// reach follows how far a watch of a bucket has come, and answers whether what it has seen is at
// least as new as a revision.
//
// The revision of the last message is not enough for that. A bucket keeps the newest value of a key
// only: a watch that is a little behind is never sent a value which was replaced meanwhile, but the
// replacement, later. Having seen revision 15 it may thus still have a key as it was at 5, although
// the key was written at 10 (and again at 20). Such a skip shows as a gap in the revisions. Whoever
// sees none between the leader's answer "the last write is 15" and the arrival at 15 has everything
// up to 15; whoever sees one asks again.
type reach struct {
	// position asks the leader; wrote is the newest revision that this process wrote; held counts
	// the keys that the copy has values of.
	position func(context.Context) (position, error)
	wrote    *atomic.Uint64
	held     func() int
	// sole numbers the life of a connection over which alone the bucket can be written. It is not ok where
	// others can write, or nothing is connected.
	sole func() (life uint64, ok bool)

	ask positionAsk
	// again has the watch begin from scratch.
	again chan struct{}

	mu      sync.Mutex
	passed  bool      // a pass is complete, and none is running
	at      uint64    // revision of the last message, or that of the stream at the start of the pass
	solid   uint64    // everything written up to here has been applied
	gaps    uint64    // skips seen
	behind  uint64    // a read waited in vain for this revision: the next ones do not wait
	stuck   time.Time // when a read first waited in vain, or the watch moved after that
	beyond  uint64    // a revision that another record tells and the bucket does not have
	created time.Time // of the stream that is watched
	start   uint64    // the stream's last revision when the pass began
	life    uint64    // of the connection over which alone it can be written, when the pass began
	moved   chan struct{}
	waiting bool
}

func newReach(ask func(context.Context) (position, error), wrote *atomic.Uint64, held func() int) *reach {
	shared := func() (uint64, bool) { return 0, false }
	return &reach{position: ask, wrote: wrote, held: held, sole: shared, again: make(chan struct{}, 1), moved: make(chan struct{})}
}

// began notes the start of a pass over the bucket as it is at p.
func (r *reach) began(p position) {
	life, _ := r.sole()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.life = life
	r.passed, r.at, r.solid, r.behind, r.start, r.created = false, 0, 0, 0, p.last, p.created
	select {
	case <-r.again: // asked for before this pass
	default:
	}
}

// saw notes that the message of a revision has been applied.
func (r *reach) saw(rev uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case rev != r.at+1:
		r.gaps++
	case r.solid == r.at:
		r.solid = rev
	}
	r.at = max(r.at, rev)
	if r.behind > 0 {
		r.stuck = time.Now()
	}
	r.wake()
}

// complete notes the end of a pass: whatever the stream held at its start has been seen.
func (r *reach) complete() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.passed, r.at = true, max(r.at, r.start)
	r.gaps++ // what was replaced while the pass went on comes after it
	r.wake()
}

func (r *reach) wake() {
	if r.waiting {
		close(r.moved)
		r.moved, r.waiting = make(chan struct{}), false
	}
}

// rewatch has the watch begin from scratch.
func (r *reach) rewatch() {
	select {
	case r.again <- struct{}{}:
	default:
	}
}

// fresh waits until everything that was written before the call has been applied. It costs one
// question to the leader, shared by all callers who wait for it, and none where nobody else can write.
// An empty reason says that the copy is as new as that; another one why not. The error is the leader's.
func (r *reach) fresh(ctx context.Context) (reason string, err error) {
	if r.alone() && r.has(ctx, r.wrote.Load()) {
		return "", nil
	}
	return r.asked(ctx)
}

// alone tells that all writes are this process's own. A connection that broke since the watch began is
// not relied on: the store may have lost something meanwhile.
func (r *reach) alone() bool {
	life, ok := r.sole()
	if !ok {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return life == r.life
}

// has waits a short time for a revision, and tells whether everything up to it has been applied: nothing
// was skipped on the way there, or the leader was asked since.
func (r *reach) has(ctx context.Context, rev uint64) bool {
	if r.await(ctx, rev) != "" {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.passed && r.solid >= rev
}

// asked is fresh by a question to the leader.
func (r *reach) asked(ctx context.Context) (reason string, err error) {
	for range confirmTries {
		r.mu.Lock()
		gaps, at, passed := r.gaps, r.at, r.passed
		r.mu.Unlock()
		if !passed {
			return reasonCold, nil
		}
		held := r.held()
		p, err := r.ask.get(ctx, r.position)
		if err != nil {
			return "", err
		}
		if r.differs(p, at, held) {
			r.rewatch()
			return reasonChanged, nil
		}
		if reason := r.await(ctx, p.last); reason != "" {
			r.late(ctx, p.last)
			return reason, nil
		}
		if r.confirmed(p.last, gaps) {
			return "", nil
		}
	}
	return reasonBehind, nil
}

// differs tells that the stream is not the one that is watched, or has lost messages without a marker,
// of which the watch hears nothing: at and held are what the copy had before the question.
func (r *reach) differs(p position, at uint64, held int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !p.created.Equal(r.created) || p.last < at || p.messages < uint64(held) // a count
}

// confirmed tells whether nothing was skipped since there were so many gaps: everything up to rev has
// then been applied.
func (r *reach) confirmed(rev, gaps uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.solid >= rev {
		return true
	}
	if r.gaps != gaps {
		return false
	}
	r.solid = r.at
	return true
}

// atLeast waits until everything written up to rev has been applied, and what this process wrote. It
// asks the leader only where the watch skipped revisions that nobody has asked about since.
func (r *reach) atLeast(ctx context.Context, rev uint64) (reason string, err error) {
	rev = max(rev, r.wrote.Load())
	r.mu.Lock()
	passed := r.passed
	r.mu.Unlock()
	if !passed {
		return reasonCold, nil
	}
	r.mu.Lock()
	unknown := rev <= r.beyond && rev > r.at
	r.mu.Unlock()
	if !unknown && r.has(ctx, rev) {
		return "", nil
	}
	reason, err = r.asked(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	if reason == "" && err == nil && r.at < rev {
		r.beyond = max(r.beyond, rev) // a revision of an older stream: not waited for again
	}
	return reason, err
}

// await waits a short time for a revision, but not where another read has just waited in vain.
func (r *reach) await(ctx context.Context, rev uint64) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.at < rev && r.passed && r.behind <= r.at {
		t := time.NewTimer(catchUpTimeout)
		defer t.Stop()
		for ended := false; r.at < rev && r.passed && !ended; {
			r.waiting = true
			moved := r.moved
			r.mu.Unlock()
			select {
			case <-moved:
			case <-ctx.Done():
				ended = true
			case <-t.C:
				ended = true
			}
			r.mu.Lock()
		}
	}
	switch {
	case !r.passed:
		return reasonCold
	case r.at < rev:
		return reasonBehind
	}
	return ""
}

// late notes that the copy did not reach a revision in time that the leader has. One that does not
// move for long is watched from scratch: what it waits for may never be sent to it.
func (r *reach) late(ctx context.Context, rev uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.at >= rev || ctx.Err() != nil:
	case r.behind <= r.at:
		r.behind, r.stuck = rev, time.Now()
	case time.Since(r.stuck) > rewatchAfter:
		r.stuck = time.Now()
		r.rewatch()
	}
}

// revision is how far the copy is, and how many revisions the bucket is known to be ahead of it.
func (r *reach) revision() (at, lag uint64) {
	last := max(r.wrote.Load(), r.ask.newest.Load())
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.at, last - min(last, r.at)
}
