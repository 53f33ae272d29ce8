package decide

import (
	"context"
	"sync"
	"time"
)

// A decision waits for git, and git for Bitbucket. So that nobody's decision waits for another's git,
// three bounds hold together: few decisions work at a time, each workspace has a few of its own, and one
// that has not ended after a moment is set aside. It goes on, up to its timeout, but no longer counts
// among those that work.
const (
	// working is how many decisions work at a time.
	working = 16
	// slow is when a decision is set aside.
	slow = 250 * time.Millisecond
	// perWorkspace is how many decisions of one workspace go on at a time, those set aside included.
	perWorkspace = 16
	// inAll is the same of all workspaces together: each may be a git process.
	inAll = 160
)

// shares runs decisions in turns of their workspaces. It is safe for concurrent use.
type shares struct {
	ctx context.Context //nolint:containedctx // of the decision, which nobody who waits owns
	wg  sync.WaitGroup

	mu             sync.Mutex
	owners         map[string]*owner
	turns          []*owner // owners that have something to run and may, in the order of their turns
	working, going int
}

// owner is a workspace.
type owner struct {
	name    string
	waiting []func(context.Context)
	going   int
	inTurns bool
}

func newShares(ctx context.Context) *shares {
	return &shares{ctx: ctx, owners: map[string]*owner{}}
}

// submit has fn run when it is the workspace's turn. After the context is done it is not run any more.
func (s *shares) submit(workspace string, fn func(context.Context)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.owners[workspace]
	if o == nil {
		o = &owner{name: workspace}
		s.owners[workspace] = o
	}
	o.waiting = append(o.waiting, fn)
	s.queue(o)
	s.next()
}

// queue gives an owner a turn if it can use one.
func (s *shares) queue(o *owner) {
	if !o.inTurns && len(o.waiting) > 0 && o.going < perWorkspace {
		o.inTurns = true
		s.turns = append(s.turns, o)
	}
}

// next starts what may start.
func (s *shares) next() {
	for s.working < working && s.going < inAll && len(s.turns) > 0 && s.ctx.Err() == nil {
		o := s.turns[0]
		s.turns = s.turns[1:]
		o.inTurns = false
		fn := o.waiting[0]
		o.waiting = o.waiting[1:]
		o.going++
		s.going++
		s.working++
		s.queue(o)
		s.wg.Go(func() { s.run(o, fn) })
	}
}

func (s *shares) run(o *owner, fn func(context.Context)) {
	atWork := true
	leave := func() { // with the lock held
		if atWork {
			atWork = false
			s.working--
			s.next()
		}
	}
	aside := time.AfterFunc(slow, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		leave()
	})
	defer func() {
		aside.Stop()
		s.mu.Lock()
		defer s.mu.Unlock()
		o.going--
		s.going--
		s.queue(o)
		if len(o.waiting) == 0 && o.going == 0 {
			delete(s.owners, o.name)
		}
		leave()
		s.next()
	}()
	fn(s.ctx)
}

// wait returns when all that runs has ended.
func (s *shares) wait() { s.wg.Wait() }
