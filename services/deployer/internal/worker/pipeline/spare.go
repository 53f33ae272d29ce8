package pipeline

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/tree"
	"devpilot.io/bitbucket/services/deployer/internal/engine/release"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
)

const (
	// spareTime bounds the making of one spare.
	spareTime = 15 * time.Minute
	// sparePause is how long the making of a spare gives way at most, each time it looks, while
	// deployments run.
	sparePause = 250 * time.Millisecond
)

// spares are the pristine copies that wait to be made, the newest of each app. One is made at a
// time, and none while a deployment of its app runs.
type spares struct {
	mu     sync.Mutex
	want   map[lane.Key]spare
	order  []lane.Key
	making lane.Key
	cancel context.CancelFunc // of the one that is being made
	kick   chan struct{}
}

type spare struct {
	epoch int64
	write tree.Copier
}

func newSpares() *spares { return &spares{want: map[lane.Key]spare{}, kick: make(chan struct{}, 1)} }

// add asks for a spare; nil is none.
func (s *spares) add(k lane.Key, epoch int64, write tree.Copier) {
	if write == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.want[k]; !ok {
		s.order = append(s.order, k)
	}
	s.want[k] = spare{epoch, write}
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// abandon forgets the app's spare, and stops it if it is being made, without waiting.
func (s *spares) abandon(k lane.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.want, k)
	if s.cancel != nil && s.making == k {
		s.cancel()
	}
}

// next takes the spare that has waited for longest.
func (s *spares) next(ctx context.Context) (context.Context, lane.Key, spare, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.order) > 0 {
		k := s.order[0]
		s.order = s.order[1:]
		if job, ok := s.want[k]; ok {
			delete(s.want, k)
			ctx, s.cancel = context.WithTimeout(ctx, spareTime)
			s.making = k
			return ctx, k, job, true
		}
	}
	return ctx, lane.Key{}, spare{}, false
}

func (s *spares) made() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cancel()
	s.cancel, s.making = nil, lane.Key{}
}

// Run prepares the next deployments: after each one it makes the app a pristine copy of the tree,
// which the next one only has to change. It returns when ctx is done; without it, each deployment
// checks out in full.
func (w *Worker) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.spares.kick:
		}
		for {
			making, k, job, ok := w.spares.next(ctx)
			if !ok {
				break
			}
			w.makeSpare(making, k, job)
			w.spares.made()
		}
	}
}

func (w *Worker) makeSpare(ctx context.Context, k lane.Key, job spare) {
	begin := time.Now()
	err := w.cfg.Releases.MakeSpare(ctx, k.Workspace, k.App, job.epoch, func(tree *os.Root) ([]byte, error) {
		return job.write(ctx, tree, w.giveWay)
	})
	log := w.cfg.Logger.With(slog.String(logs.KeyWorkspace, k.Workspace), slog.String(logs.KeyApp, k.App))
	switch {
	case err == nil:
		log.DebugContext(ctx, "pristine copy made", logs.Duration(time.Since(begin)))
	case ctx.Err() != nil, errors.Is(err, release.ErrStale):
		log.DebugContext(ctx, "pristine copy abandoned")
	default:
		// The next deployment takes longer, and is none the worse.
		log.InfoContext(ctx, "pristine copy not made", logs.Err(err))
	}
}

// giveWay holds up the making of a spare while deployments run, but not for ever.
func (w *Worker) giveWay(ctx context.Context) error {
	t := time.NewTicker(sparePause / 10)
	defer t.Stop()
	for range 10 {
		if w.Busy() == 0 {
			break
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-t.C:
		}
	}
	return ctx.Err()
}

// makeRoom removes spares when the disk is short. It reports whether there is more room now.
func (a *attempt) makeRoom(ctx context.Context, err error) bool {
	if !diskShort(err) {
		return false
	}
	n, derr := a.w.cfg.Releases.DropSpares(ctx)
	if derr != nil {
		a.w.cfg.Logger.WarnContext(ctx, "pristine copies not removed", logs.Err(derr))
	}
	if n > 0 {
		a.say("The server's disk is short: %d prepared copies were removed to make room.", n)
	}
	return n > 0
}

// place brings the tree into the attempt's release directory: from the spare where there is one
// that is of use, else in full.
func (a *attempt) place(ctx context.Context, source Tree) (tree.Stats, error) {
	fetched, checkedOut := a.fetched()
	progress := func(done, all int) { a.progress.within(fetched, checkedOut, done, all) }
	ws, app := a.key.Workspace, a.key.App
	dir, list, err := a.w.cfg.Releases.TakeSpare(ctx, ws, app, a.run.GetEpoch(), a.directory)
	if errors.Is(err, release.ErrStale) || ctx.Err() != nil {
		return tree.Stats{}, err
	}
	if err != nil {
		a.w.cfg.Logger.WarnContext(ctx, "pristine copy not taken", logs.Err(err))
	}
	if dir != nil {
		stats, err := source.Update(ctx, dir, list, progress)
		_ = dir.Close()
		if !errors.Is(err, tree.ErrPristine) {
			return stats, err
		}
		a.w.cfg.Logger.InfoContext(ctx, "pristine copy not used", logs.Err(err))
	}
	if dir, err = a.w.cfg.Releases.Prepare(ws, app, a.directory); err != nil {
		return tree.Stats{}, err
	}
	defer func() { _ = dir.Close() }()
	return source.Checkout(ctx, dir, progress)
}

// diskShort tells errors that go away with more room on the disk.
func diskShort(err error) bool {
	var m *remote.Error
	return errors.As(err, &m) && m.Reason == remote.ReasonDiskFull || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}
