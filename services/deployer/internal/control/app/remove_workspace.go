package app

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

// Remains is what there still is of a workspace that is being deleted.
type Remains struct {
	Left int
	// Away are servers that do not answer and have releases of it.
	Away []string
}

// RemoveWorkspace deletes all that there is of a workspace, and tells what is left. Each part can be repeated, so
// that whoever dies on the way is followed by whoever asks again. Lanes stay, empty: their epochs guard what a worker
// that was away for long may still have in hand.
//
// It walks buckets by the workspace's prefix: nobody waits for it.
func (s *Service) RemoveWorkspace(ctx context.Context, workspace string) (Remains, error) {
	for key, err := range s.cfg.Store.Apps.Keys(ctx, workspace+".>") {
		if err != nil {
			return Remains{}, fmt.Errorf("app: remove workspace %s: %w", workspace, err)
		}
		_, id, _ := strings.Cut(key, ".")
		if _, err := s.retire(ctx, lane.Key{Workspace: workspace, App: id}, ""); err != nil && !apierr.Has(err, apierr.ReasonAppNotFound) {
			return Remains{}, err
		}
	}
	r, err := s.unlaned(ctx, workspace)
	if err != nil {
		return r, err
	}
	untold, err := s.unwatchAll(ctx, workspace)
	if r.Left += untold; err != nil || r.Left > 0 {
		return r, err
	}
	st := s.cfg.Store
	return r, errors.Join(
		deleteAll(ctx, st.Repositories.Keys(ctx, workspace+".>"), st.Repositories.Delete),
		deleteAll(ctx, st.Reconcile.Keys(ctx, workspace+".>"), st.Reconcile.Delete),
		deleteAll(ctx, st.CodeConfigs.Keys(ctx, workspace+".>"), st.CodeConfigs.Delete),
		deleteAll(ctx, st.Seen.Keys(ctx, workspace+".>"), st.Seen.Delete),
		deleteAll(ctx, one(workspace), st.Connections.Delete),
	)
}

// unlaned counts the lanes of deleted apps whose records or releases are not gone yet.
func (s *Service) unlaned(ctx context.Context, workspace string) (r Remains, err error) {
	for key, err := range s.cfg.Store.Lanes.Keys(ctx, workspace+".>") {
		if err != nil {
			return r, fmt.Errorf("app: remove workspace %s: %w", workspace, err)
		}
		l, _, err := s.cfg.Store.Lanes.Get(ctx, key)
		if errors.Is(err, kv.ErrNotFound) {
			continue
		}
		if err != nil {
			return r, fmt.Errorf("app: remove workspace %s: %w", workspace, err)
		}
		left := !l.GetRetired() && lane.HasWork(l)
		for _, rem := range l.GetRemains() {
			left = left || rem.GetRecords()
			for _, server := range rem.GetServers() {
				if _, offline := s.cfg.Servers.Offline(server); !offline {
					left = true
				} else if !slices.Contains(r.Away, server) {
					r.Away = append(r.Away, server)
				}
			}
		}
		if left {
			r.Left++
		}
	}
	slices.Sort(r.Away)
	return r, nil
}

// unwatchAll tells webhook of each repository that nobody watches it any more, and counts those of which it does not
// know yet.
func (s *Service) unwatchAll(ctx context.Context, workspace string) (untold int, err error) {
	for key, err := range s.cfg.Store.Repositories.Keys(ctx, workspace+".>") {
		if err != nil {
			return untold, fmt.Errorf("app: remove workspace %s: %w", workspace, err)
		}
		_, repository, _ := strings.Cut(key, ".")
		idx, err := s.Index(ctx, workspace, repository)
		if err != nil {
			return untold, err
		}
		if len(idx.GetWatches()) > 0 { // of a save that died on its way
			if _, err := s.ChangeIndex(ctx, workspace, repository, func(idx *storev1.RepositoryIndex) { idx.Watches = nil }); err != nil {
				return untold, err
			}
		}
		done, err := s.handOverNewest(ctx, workspace, repository)
		if err != nil {
			return untold, err
		}
		if !done {
			untold++
		}
	}
	return untold, nil
}

func one(key string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) { yield(key, nil) }
}

func deleteAll(ctx context.Context, keys iter.Seq2[string, error], remove func(ctx context.Context, key string, rev uint64) error) error {
	for key, err := range keys {
		if err == nil {
			err = remove(ctx, key, 0)
		}
		if err != nil && !errors.Is(err, kv.ErrNotFound) {
			return fmt.Errorf("app: remove %s: %w", key, err)
		}
	}
	return nil
}
