package mirror

import (
	"context"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"devpilot.io/bitbucket/services/deployer/internal/engine/git/tree"
)

// shareFor is how long what a fetch brought is at hand for requests that came before it began.
const shareFor = 30 * time.Second

// sharedFetches has one fetch serve every request for the same target that came before it began, and no
// later one, so that each caller learns whether Bitbucket still lets the workspace in.
// golang.org/x/sync/singleflight would also serve requests that come while it is under way.
type sharedFetches struct {
	fetch func(ctx context.Context, t target, b *budget) (*Snapshot, error)
	now   func() time.Time

	mu    sync.Mutex
	state map[target]*targetFetches
}

// targetFetches is what is known of the fetches of one target.
type targetFetches struct {
	running *sharedFetch // nil when none is
	waiting *sharedFetch // begins when running ends; nil when nobody waits
	last    *sharedFetch // the last that succeeded
}

// sharedFetch is one fetch and the requests that it serves.
type sharedFetch struct {
	ctx      context.Context //nolint:containedctx // of the fetch, which none of those whom it serves owns
	cancel   context.CancelCauseFunc
	begin    chan struct{} // closed when it may begin
	ended    chan struct{} // closed when it ended
	began    time.Time
	requests int // that still wait for it

	snapshot *Snapshot // held until everybody has a copy
	brought  Snapshot  // what it brought, for those who come later
	spent    int64
	err      error
}

func newSharedFetches(fetch func(ctx context.Context, t target, b *budget) (*Snapshot, error)) *sharedFetches {
	return &sharedFetches{fetch: fetch, now: time.Now, state: map[target]*targetFetches{}}
}

// get fetches a target, or takes part in a fetch of it that has not begun. needed is when the caller's need
// arose, zero for now: what a fetch after that brought serves as well, if it is the commit expected.
func (f *sharedFetches) get(ctx context.Context, t target, b *budget, needed time.Time, expected string) (*Snapshot, error) {
	f.mu.Lock()
	s := f.state[t]
	if s == nil {
		s = &targetFetches{}
		f.state[t] = s
	}
	if l := s.last; l != nil && expected != "" && !needed.IsZero() && l.began.After(needed) && f.now().Sub(l.began) < shareFor && l.brought.commit.Hash == expected {
		f.mu.Unlock()
		return l.brought.again(ctx)
	}
	one := s.waiting
	if one == nil {
		one = &sharedFetch{begin: make(chan struct{}), ended: make(chan struct{})}
		one.ctx, one.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
		if s.running == nil {
			s.running = one
			close(one.begin)
		} else {
			s.waiting = one
		}
		go f.run(t, s, one, *b)
	}
	one.requests++
	f.mu.Unlock()

	select {
	case <-one.ended:
	case <-ctx.Done():
	}
	defer f.leave(ctx, s, one)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if one.err != nil {
		return nil, one.err
	}
	b.bytes -= one.spent
	return one.snapshot.again(ctx)
}

// leave ends one caller's part in a fetch; with the last one it ends. One whose turn had not come is taken
// out of the line: the next request would take part in a fetch that is cancelled already.
func (f *sharedFetches) leave(ctx context.Context, s *targetFetches, one *sharedFetch) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if one.requests--; one.requests > 0 {
		return
	}
	if s.waiting == one {
		s.waiting = nil
	}
	one.cancel(context.Cause(ctx))
	if one.snapshot != nil {
		one.snapshot.Close()
	}
}

// discard has a repository's fetches serve nobody who comes later.
func (f *sharedFetches) discard(workspace, id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for t, s := range f.state {
		if t.workspace == workspace && t.id == id {
			s.last = nil
		}
	}
}

// run runs one fetch when its turn has come.
func (f *sharedFetches) run(t target, s *targetFetches, one *sharedFetch, b budget) {
	select {
	case <-one.begin:
	case <-one.ctx.Done():
	}
	f.mu.Lock()
	if s.running != one { // nobody wants it any more, and its turn had not come
		f.mu.Unlock()
		return
	}
	one.began = f.now()
	f.mu.Unlock()
	before := b.bytes
	snapshot, err := f.fetch(one.ctx, t, &b)
	f.mu.Lock()
	defer f.mu.Unlock()
	one.snapshot, one.err, one.spent = snapshot, err, before-b.bytes
	if err == nil {
		one.brought = *snapshot
		s.last = one
		if one.requests == 0 { // everybody left just now
			snapshot.Close()
		}
	}
	s.running, s.waiting = s.waiting, nil
	if s.running != nil {
		close(s.running.begin)
	}
	close(one.ended)
	f.forget()
}

// forget drops targets that are not fetched now and whose last fetch is too old to be used. f.mu is held.
func (f *sharedFetches) forget() {
	for t, s := range f.state {
		if s.running == nil && (s.last == nil || f.now().Sub(s.last.began) >= shareFor) {
			delete(f.state, t)
		}
	}
}

// again is another snapshot of the same commit. A mirror that was thrown away meanwhile shows as damaged
// when it is read.
func (s *Snapshot) again(ctx context.Context) (*Snapshot, error) {
	use, err := lockFile(ctx, filepath.Join(s.dir, "use.lock"), unix.LOCK_SH)
	if err != nil {
		return nil, err
	}
	return &Snapshot{
		commit: s.commit, m: s.m, dir: s.dir, target: s.target, tags: s.tags, use: use,
		Tree: tree.Tree{Git: s.Git, GitDir: s.GitDir, Commit: s.Commit, Limits: s.Limits, Disk: s.Disk},
	}, nil
}
