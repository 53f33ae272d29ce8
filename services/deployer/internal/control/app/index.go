package app

import (
	"context"
	"fmt"
	"slices"
	"sort"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/kv"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

// repositoryKey is the key of a repository's index.
func repositoryKey(workspace, repository string) string { return workspace + "." + repository }

// Index returns a repository's index, empty when nobody ever watched it.
func (s *Service) Index(ctx context.Context, workspace, repository string) (*storev1.RepositoryIndex, error) {
	idx, _, err := s.cfg.Store.Repositories.Get(ctx, repositoryKey(workspace, repository))
	if isAbsent(err) {
		return &storev1.RepositoryIndex{Workspace: workspace, Repository: repository}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("app: read the index of repository %s: %w", repository, err)
	}
	return idx, nil
}

// changeIndex changes a repository's index. Where the set that webhook has to know changes, its
// version grows; somebody is then sure to hand it over, because the due list is written first.
func (s *Service) changeIndex(ctx context.Context, workspace, repository string, fn func(*storev1.RepositoryIndex)) error {
	touched := false
	_, _, err := s.cfg.Store.Repositories.Update(ctx, repositoryKey(workspace, repository), func(idx *storev1.RepositoryIndex) (*storev1.RepositoryIndex, error) {
		if idx == nil {
			idx = &storev1.RepositoryIndex{Workspace: workspace, Repository: repository}
		}
		before := handed(idx)
		fn(idx)
		if !slices.Equal(before, handed(idx)) {
			idx.Version++
			if !touched {
				if err := s.touchWatches(ctx, workspace, repository); err != nil {
					return nil, err
				}
				touched = true
			}
		}
		return idx, nil
	})
	if err != nil {
		return fmt.Errorf("app: change the index of repository %s: %w", repository, err)
	}
	return nil
}

// handed is the set that webhook knows, in a form that can be compared.
func handed(idx *storev1.RepositoryIndex) []string {
	var out []string
	for _, w := range idx.GetWatches() {
		if w.GetAutoDeploy() {
			out = append(out, w.GetApp()+" "+w.GetBranch())
		}
	}
	if len(out) > 0 {
		out = append(out, "named "+idx.GetFullName())
	}
	sort.Strings(out)
	return slices.Compact(out)
}

// watch adds the entry of an app that is about to be saved.
func (s *Service) watch(ctx context.Context, a *storev1.App, fullName string) error {
	return s.changeIndex(ctx, a.GetWorkspace(), a.GetRepository(), func(idx *storev1.RepositoryIndex) {
		idx.Watches = append(idx.Watches, &storev1.Watch{App: a.GetId(), Branch: a.GetBranch(), AutoDeploy: a.GetAutoDeploy(), Version: a.GetVersion(), Tags: a.GetRules().GetTags()})
		if fullName != "" {
			idx.FullName, idx.DoubtedBy = fullName, ""
			idx.Unreachable = nil
		}
	})
}

// unwatch removes the entries of an app whose version is below: those that a save replaced.
func (s *Service) unwatch(ctx context.Context, workspace, repository, app string, below int64) error {
	return s.changeIndex(ctx, workspace, repository, func(idx *storev1.RepositoryIndex) {
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

// FullName is the repository's name as last known. Where a delivery gave another one, Bitbucket is asked
// first: which of the two is older, only Bitbucket knows.
func (s *Service) FullName(ctx context.Context, workspace, repository string) (string, error) {
	idx, err := s.Index(ctx, workspace, repository)
	if err != nil {
		return "", err
	}
	if idx.GetFullName() == "" || idx.GetDoubtedBy() != "" {
		return s.Renamed(ctx, workspace, repository)
	}
	return idx.GetFullName(), nil
}

// Renamed asks Bitbucket for the repository's name of today and remembers it.
func (s *Service) Renamed(ctx context.Context, workspace, repository string) (string, error) {
	r, err := s.cfg.Repositories.Repository(ctx, workspace, repository)
	if err != nil {
		return "", err
	}
	return r.GetFullName(), s.Named(ctx, workspace, repository, r.GetFullName())
}

// Named remembers the repository's name, as Bitbucket tells it now, and has webhook told.
func (s *Service) Named(ctx context.Context, workspace, repository, fullName string) error {
	idx, err := s.Index(ctx, workspace, repository)
	if err != nil || fullName == "" || len(idx.GetWatches()) == 0 || idx.GetFullName() == fullName && idx.GetDoubtedBy() == "" {
		return err
	}
	return s.changeIndex(ctx, workspace, repository, func(idx *storev1.RepositoryIndex) { idx.FullName, idx.DoubtedBy = fullName, "" })
}

// NameGiven takes the name that a delivery gives the repository. It may be of yesterday: one that is not
// the known one makes the next who needs the name ask Bitbucket, and sets nothing by itself.
func (s *Service) NameGiven(ctx context.Context, workspace, repository, fullName string) error {
	_, _, err := s.cfg.Store.Repositories.Update(ctx, repositoryKey(workspace, repository), func(idx *storev1.RepositoryIndex) (*storev1.RepositoryIndex, error) {
		if idx == nil || fullName == "" || idx.GetFullName() == fullName || idx.GetDoubtedBy() == fullName {
			return nil, kv.ErrSkip
		}
		idx.DoubtedBy = fullName
		return idx, nil
	})
	if err != nil {
		return fmt.Errorf("app: note a repository's name: %w", err)
	}
	return nil
}

// Reached notes whether the connected account can reach the repository; nil when it can.
func (s *Service) Reached(ctx context.Context, workspace, repository string, trouble *storev1.Trouble) error {
	_, _, err := s.cfg.Store.Repositories.Update(ctx, repositoryKey(workspace, repository), func(idx *storev1.RepositoryIndex) (*storev1.RepositoryIndex, error) {
		if idx == nil || idx.GetUnreachable().GetReason() == trouble.GetReason() {
			return nil, kv.ErrSkip
		}
		idx.Unreachable = trouble
		return idx, nil
	})
	if err != nil {
		return fmt.Errorf("app: note a repository's reach: %w", err)
	}
	return nil
}
