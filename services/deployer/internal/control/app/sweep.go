package app

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

// sweepEvery is how often the indexes are held against the apps' records.
const sweepEvery = 6 * time.Hour

// Sweep checks the indexes now and then, until ctx is done: an app that an index lacks is added, an
// entry without an app removed. Whatever died between two writes of a save is mended here at the
// latest. Several deployers may sweep at once.
func (s *Service) Sweep(ctx context.Context) error {
	for wait := rand.N(time.Minute); ; wait = sweepEvery - rand.N(sweepEvery/4) {
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-t.C:
		}
		if err := s.SweepOnce(ctx); err != nil && ctx.Err() == nil {
			s.cfg.Logger.WarnContext(ctx, "indexes not checked to the end", logs.Err(err))
		}
	}
}

// SweepOnce checks all indexes.
func (s *Service) SweepOnce(ctx context.Context) error {
	for key, err := range s.cfg.Store.Apps.Keys(ctx, ">") {
		if err != nil {
			return fmt.Errorf("app: sweep: %w", err)
		}
		if err := s.sweepApp(ctx, key); err != nil {
			return err
		}
	}
	for key, err := range s.cfg.Store.Repositories.Keys(ctx, ">") {
		if err != nil {
			return fmt.Errorf("app: sweep: %w", err)
		}
		workspace, repository, _ := strings.Cut(key, ".")
		if err := s.sweepRepository(ctx, workspace, repository); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) sweepApp(ctx context.Context, key string) error {
	workspace, id, _ := strings.Cut(key, ".")
	a, _, err := s.load(ctx, lane.Key{Workspace: workspace, App: id})
	if apierr.Has(err, apierr.ReasonAppNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	idx, err := s.Index(ctx, workspace, a.GetRepository())
	if err != nil || slices.ContainsFunc(idx.GetWatches(), func(w *storev1.Watch) bool { return entryOf(w, a) }) {
		return err
	}
	s.cfg.Logger.WarnContext(ctx, "app was missing in its repository's index", logs.KeyApp, id)
	return s.watch(ctx, a, nil)
}

func entryOf(w *storev1.Watch, a *storev1.App) bool {
	return w.GetApp() == a.GetId() && w.GetBranch() == a.GetBranch() && w.GetAutoDeploy() == a.GetAutoDeploy()
}

// settled is how old an entry must be to be taken for left over: its save is over by then.
const settled = 10 * time.Minute

func (s *Service) sweepRepository(ctx context.Context, workspace, repository string) error {
	idx, err := s.Index(ctx, workspace, repository)
	if err != nil {
		return err
	}
	for _, w := range idx.GetWatches() {
		if s.now().Sub(time.Unix(0, w.GetVersion())) < settled {
			continue
		}
		a, _, err := s.load(ctx, lane.Key{Workspace: workspace, App: w.GetApp()})
		switch {
		case apierr.Has(err, apierr.ReasonAppNotFound):
			err = s.unwatch(ctx, workspace, repository, w.GetApp(), w.GetVersion()+1)
		case err == nil && a.GetRepository() != repository:
			err = s.unwatch(ctx, workspace, repository, w.GetApp(), w.GetVersion()+1)
		case err == nil && w.GetVersion() < a.GetVersion():
			err = s.unwatch(ctx, workspace, repository, w.GetApp(), a.GetVersion())
		}
		if err != nil {
			return err
		}
	}
	return nil
}
