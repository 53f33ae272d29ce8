package mirror

import (
	"context"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"devpilot.io/bitbucket/services/deployer/internal/engine/git/tree"
)

// shareFor is how long what a fetch brought is at hand for those who asked before it began.
const shareFor = 30 * time.Second

// flights shares fetches: one serves all who asked for the same before it began, and nobody else, so
// that everybody learns whether Bitbucket still lets the workspace in. golang.org/x/sync/singleflight
// would also serve those who ask while it is under way.
type flights struct {
	fetch func(ctx context.Context, t target, b *budget) (*Snapshot, error)
	now   func() time.Time

	mu    sync.Mutex
	state map[target]*flown
}

// flown is what is known of the fetches of one target.
type flown struct {
	running *flight // nil when none is
	waiting *flight // begins when running ends; nil when nobody waits
	last    *flight // the last that succeeded
}

// flight is one fetch and those whom it serves.
type flight struct {
	ctx    context.Context //nolint:containedctx // of the fetch, which none of those whom it serves owns
	cancel context.CancelCauseFunc
	begin  chan struct{} // closed when it may begin
	ended  chan struct{} // closed when it ended
	began  time.Time
	served int // who still waits for it

	snapshot *Snapshot // held until everybody has a copy
	brought  Snapshot  // what it brought, for those who come later
	spent    int64
	err      error
}

func newFlights(fetch func(ctx context.Context, t target, b *budget) (*Snapshot, error)) *flights {
	return &flights{fetch: fetch, now: time.Now, state: map[target]*flown{}}
}

// get fetches a target, or takes part in a fetch of it that has not begun. asked is when the caller's need
// arose, zero for now: what a fetch after that brought serves as well, if it is the commit expected.
func (f *flights) get(ctx context.Context, t target, b *budget, asked time.Time, expected string) (*Snapshot, error) {
	f.mu.Lock()
	s := f.state[t]
	if s == nil {
		s = &flown{}
		f.state[t] = s
	}
	if l := s.last; l != nil && expected != "" && !asked.IsZero() && l.began.After(asked) && f.now().Sub(l.began) < shareFor && l.brought.commit.Hash == expected {
		f.mu.Unlock()
		return l.brought.again(ctx)
	}
	fl := s.waiting
	if fl == nil {
		fl = &flight{begin: make(chan struct{}), ended: make(chan struct{})}
		fl.ctx, fl.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
		if s.running == nil {
			s.running = fl
			close(fl.begin)
		} else {
			s.waiting = fl
		}
		go f.fly(t, s, fl, *b)
	}
	fl.served++
	f.mu.Unlock()

	select {
	case <-fl.ended:
	case <-ctx.Done():
	}
	defer f.leave(ctx, s, fl)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if fl.err != nil {
		return nil, fl.err
	}
	b.bytes -= fl.spent
	return fl.snapshot.again(ctx)
}

// leave ends one caller's part in a fetch; with the last one it ends. One whose turn had not come is taken
// out of the line: whoever asks next would take part in a fetch that is cancelled already.
func (f *flights) leave(ctx context.Context, s *flown, fl *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fl.served--; fl.served > 0 {
		return
	}
	if s.waiting == fl {
		s.waiting = nil
	}
	fl.cancel(context.Cause(ctx))
	if fl.snapshot != nil {
		fl.snapshot.Close()
	}
}

// discard has a repository's fetches serve nobody who comes later.
func (f *flights) discard(workspace, id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for t, s := range f.state {
		if t.workspace == workspace && t.id == id {
			s.last = nil
		}
	}
}

// fly runs one fetch when its turn has come.
func (f *flights) fly(t target, s *flown, fl *flight, b budget) {
	select {
	case <-fl.begin:
	case <-fl.ctx.Done():
	}
	f.mu.Lock()
	if s.running != fl { // nobody wants it any more, and its turn had not come
		f.mu.Unlock()
		return
	}
	fl.began = f.now()
	f.mu.Unlock()
	before := b.bytes
	snapshot, err := f.fetch(fl.ctx, t, &b)
	f.mu.Lock()
	defer f.mu.Unlock()
	fl.snapshot, fl.err, fl.spent = snapshot, err, before-b.bytes
	if err == nil {
		fl.brought = *snapshot
		s.last = fl
		if fl.served == 0 { // everybody left just now
			snapshot.Close()
		}
	}
	s.running, s.waiting = s.waiting, nil
	if s.running != nil {
		close(s.running.begin)
	}
	close(fl.ended)
	f.forget()
}

// forget drops what nobody flies and nobody may use any more. f.mu is held.
func (f *flights) forget() {
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
