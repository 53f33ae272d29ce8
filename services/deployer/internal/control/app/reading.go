package app

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/services/deployer/internal/record/apps"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

// reading is what one request reads in order to show it (pkg/kv, "Reads from memory"). The leaders of
// the apps and the lanes are asked once each how far they are. What else belongs to an app is found by
// the revision that its record or its lane tells, so that nobody is asked for it.
type reading struct {
	s           *Service
	apps        appsView
	lanes       *kv.View[storev1.Lane, *storev1.Lane]
	deployments *kv.View[storev1.Deployment, *storev1.Deployment] // set by history or recordsOf
}

type appsView = *kv.View[storev1.App, *storev1.App]

type codeConfigView = kv.View[storev1.CodeConfig, *storev1.CodeConfig]

// read begins a reading that has everything written before.
func (s *Service) read(ctx context.Context) (*reading, error) {
	r := &reading{s: s}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		r.apps, err = s.cfg.Copies.Apps.Fresh(ctx)
		return err
	})
	g.Go(func() (err error) {
		r.lanes, err = s.cfg.Copies.Lanes.Fresh(ctx)
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("app: read: %w", err)
	}
	return r, nil
}

// readOwn begins a reading that has everything this process wrote before: it shows a caller what the
// caller's own request changed. The leaders are not asked.
func (s *Service) readOwn(ctx context.Context) (*reading, error) {
	apps, err := s.cfg.Copies.Apps.AtLeast(ctx, 0)
	if err != nil {
		return nil, fmt.Errorf("app: read: %w", err)
	}
	lanes, err := s.cfg.Copies.Lanes.AtLeast(ctx, 0)
	if err != nil {
		return nil, fmt.Errorf("app: read: %w", err)
	}
	return &reading{s: s, apps: apps, lanes: lanes}, nil
}

// history is read with all deployments, as they are now: their progress and their etags too.
func (s *Service) history(ctx context.Context) (*reading, error) {
	var r *reading
	var deployments *kv.View[storev1.Deployment, *storev1.Deployment]
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		r, err = s.read(gctx)
		return err
	})
	g.Go(func() (err error) {
		deployments, err = s.cfg.Copies.Deployments.Fresh(gctx)
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("app: read: %w", err)
	}
	r.deployments = deployments
	return r, nil
}

// recordsOf has the records of deployments read at least as new as the lanes' decisions.
func (r *reading) recordsOf(ctx context.Context, all []*parts) (err error) {
	var rev uint64
	untold := false
	for _, p := range all {
		rev = max(rev, p.lane.GetRecordsRevision())
		untold = untold || !told(p.lane)
	}
	if untold {
		r.deployments, err = r.s.cfg.Copies.Deployments.Fresh(ctx)
	} else {
		r.deployments, err = r.s.cfg.Copies.Deployments.AtLeast(ctx, rev)
	}
	if err != nil {
		return fmt.Errorf("app: read deployments: %w", err)
	}
	return nil
}

// told says that a lane knows where its deployments' records are: it was written since that is kept, or
// nothing ever left its outbox.
func told(l *storev1.Lane) bool {
	out := l.GetOutbox()
	return l.GetRecordsRevision() > 0 || l.GetLastNumber() == 0 || len(out) > 0 && out[0].GetSeq() == 1
}

// app returns an app's record and its revision; APP_NOT_FOUND when it is gone.
func (r *reading) app(ctx context.Context, k lane.Key) (*storev1.App, uint64, error) {
	a, rev, err := r.apps.Get(ctx, k.String())
	switch {
	case isAbsent(err):
		return nil, 0, notFound(k)
	case err != nil:
		return nil, 0, fmt.Errorf("app: read %s: %w", k, err)
	}
	return a, rev, nil
}

// lane returns an app's lane; an empty one where there is none.
func (r *reading) lane(ctx context.Context, k lane.Key) (*storev1.Lane, error) {
	l, _, err := r.lanes.Get(ctx, k.String())
	switch {
	case isAbsent(err):
		return &storev1.Lane{}, nil
	case err != nil:
		return nil, fmt.Errorf("app: read the lane of %s: %w", k, err)
	}
	return l, nil
}

// laneOf returns the lane of an app that must be there.
func (r *reading) laneOf(ctx context.Context, k lane.Key) (*storev1.App, *storev1.Lane, error) {
	a, _, err := r.app(ctx, k)
	if err != nil {
		return nil, nil, err
	}
	l, err := r.lane(ctx, k)
	return a, l, err
}

// index returns the index of an app's repository, with the app's entry at least.
func (r *reading) index(ctx context.Context, a *storev1.App) (*storev1.RepositoryIndex, error) {
	view, err := r.s.cfg.Copies.Repositories.AtLeast(ctx, a.GetIndexRevision())
	if err == nil {
		var idx *storev1.RepositoryIndex
		if idx, _, err = view.Get(ctx, apps.RepositoryKey(a.GetWorkspace(), a.GetRepository())); err == nil {
			return idx, nil
		}
	}
	if isAbsent(err) {
		return &storev1.RepositoryIndex{Workspace: a.GetWorkspace(), Repository: a.GetRepository()}, nil
	}
	return nil, fmt.Errorf("app: read the index of repository %s: %w", a.GetRepository(), err)
}

// codeConfigs is what the apps' files said; nil when no app lets its file count.
func (r *reading) codeConfigs(ctx context.Context, all []*parts) (*codeConfigView, error) {
	for _, p := range all {
		if !p.app.GetConfigAsCode() {
			continue
		}
		view, err := r.s.cfg.Copies.CodeConfigs.Fresh(ctx)
		if err != nil {
			return nil, fmt.Errorf("app: read what files said: %w", err)
		}
		return view, nil
	}
	return nil, nil
}
