package reconcile

import (
	"context"
	"errors"
	"fmt"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/services/deployer/internal/record/apps"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

// view is what a poll compares Bitbucket's answer with. It is read from memory, so that a poll costs the
// store nothing for each app: what another process wrote a moment ago may be missing, as if the poll had
// begun before. That decides nothing wrong: whatever a poll changes, it changes in the newest lane, and
// only where that has noted nothing since about the branch.
type view struct {
	index *storev1.RepositoryIndex
	apps  *kv.View[storev1.App, *storev1.App]
	lanes *kv.View[storev1.Lane, *storev1.Lane]
}

// view reads the repository's index at least as new as the one that had it polled.
func (r *Reconciler) view(ctx context.Context, workspace, repository string) (v view, err error) {
	key := apps.RepositoryKey(workspace, repository)
	_, rev, _ := r.mirror.Get(key)
	indexes, err := r.cfg.Copies.Repositories.AtLeast(ctx, rev)
	if err != nil {
		return view{}, fmt.Errorf("reconcile: read the index of repository %s: %w", repository, err)
	}
	v.index, _, err = indexes.Get(ctx, key)
	if errors.Is(err, kv.ErrNotFound) { // nobody ever watched it
		v.index, err = &storev1.RepositoryIndex{Workspace: workspace, Repository: repository}, nil
	}
	if err != nil {
		return view{}, fmt.Errorf("reconcile: read the index of repository %s: %w", repository, err)
	}
	// In this order: a save writes the index first, then the app, then the lane.
	if v.apps, err = r.cfg.Copies.Apps.AtLeast(ctx, 0); err == nil {
		v.lanes, err = r.cfg.Copies.Lanes.AtLeast(ctx, 0)
	}
	if err != nil {
		return view{}, fmt.Errorf("reconcile: read apps and lanes: %w", err)
	}
	return v, nil
}
