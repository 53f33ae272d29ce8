package app

import (
	"context"
	"slices"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	repov1 "devpilot.io/bitbucket/proto/gen/devpilot/repo/v1"
)

// watch adds the entry of an app that is about to be saved, with what Bitbucket says of its repository where it was asked, and notes the index's revision in it.
func (s *Service) watch(ctx context.Context, a *storev1.App, found *repov1.Repository) (err error) {
	a.IndexRevision, err = s.ChangeIndex(ctx, a.GetWorkspace(), a.GetRepository(), func(idx *storev1.RepositoryIndex) {
		idx.Watches = append(idx.Watches, &storev1.Watch{App: a.GetId(), Branch: a.GetBranch(), AutoDeploy: a.GetAutoDeploy(), Version: a.GetVersion(), Tags: a.GetRules().GetTags()})
		if found.GetFullName() != "" {
			idx.FullName, idx.DoubtedBy, idx.BitbucketWorkspace = found.GetFullName(), "", found.GetBitbucketWorkspaceId()
			idx.Unreachable = nil
		}
	})
	return err
}

// unwatch removes the entries of an app whose version is below: those that a save replaced.
func (s *Service) unwatch(ctx context.Context, workspace, repository, app string, below int64) error {
	_, err := s.ChangeIndex(ctx, workspace, repository, func(idx *storev1.RepositoryIndex) {
		idx.Watches = slices.DeleteFunc(idx.Watches, func(w *storev1.Watch) bool { return w.GetApp() == app && w.GetVersion() < below })
	})
	return err
}
