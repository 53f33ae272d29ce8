package app

import (
	"context"
	"fmt"
	"slices"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/kv"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

// watch adds the entry of an app that is about to be saved.
func (s *Service) watch(ctx context.Context, a *storev1.App, fullName string) error {
	return s.ChangeIndex(ctx, a.GetWorkspace(), a.GetRepository(), func(idx *storev1.RepositoryIndex) {
		idx.Watches = append(idx.Watches, &storev1.Watch{App: a.GetId(), Branch: a.GetBranch(), AutoDeploy: a.GetAutoDeploy(), Version: a.GetVersion(), Tags: a.GetRules().GetTags()})
		if fullName != "" {
			idx.FullName, idx.DoubtedBy = fullName, ""
			idx.Unreachable = nil
		}
	})
}

// unwatch removes the entries of an app whose version is below: those that a save replaced.
func (s *Service) unwatch(ctx context.Context, workspace, repository, app string, below int64) error {
	return s.ChangeIndex(ctx, workspace, repository, func(idx *storev1.RepositoryIndex) {
		idx.Watches = slices.DeleteFunc(idx.Watches, func(w *storev1.Watch) bool { return w.GetApp() == app && w.GetVersion() < below })
	})
}

// list adds an app to its workspace's index.
func (s *Service) list(ctx context.Context, workspace, app string) error {
	_, _, err := s.cfg.Store.Workspaces.Update(ctx, workspace, func(idx *storev1.WorkspaceIndex) (*storev1.WorkspaceIndex, error) {
		if idx == nil {
			idx = &storev1.WorkspaceIndex{}
		}
		at, found := slices.BinarySearch(idx.Apps, app)
		switch {
		case found:
			return nil, kv.ErrSkip
		case len(idx.Apps) >= maxApps:
			return nil, apierr.InvalidArgument("workspace", fmt.Sprintf("it has %d apps, as many as a workspace can have", maxApps))
		}
		idx.Apps = slices.Insert(idx.Apps, at, app)
		return idx, nil
	})
	if err != nil {
		return fmt.Errorf("app: list %s: %w", app, err)
	}
	return nil
}

// unlist removes an app from its workspace's index.
func (s *Service) unlist(ctx context.Context, workspace, app string) error {
	_, _, err := s.cfg.Store.Workspaces.Update(ctx, workspace, func(idx *storev1.WorkspaceIndex) (*storev1.WorkspaceIndex, error) {
		at, found := slices.BinarySearch(idx.GetApps(), app)
		if !found {
			return nil, kv.ErrSkip
		}
		idx.Apps = slices.Delete(idx.Apps, at, at+1)
		return idx, nil
	})
	if err != nil {
		return fmt.Errorf("app: unlist %s: %w", app, err)
	}
	return nil
}
