package app

import (
	"context"
	"errors"
	"fmt"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

// Delete deletes an app. The retired lane is the decision: what runs has lost its fence, and
// whatever is left (records, log lines, directories) is removed by whoever looks after the lane.
func (s *Service) Delete(ctx context.Context, k lane.Key, etag string) error {
	a, err := s.retire(ctx, k, etag)
	if err != nil {
		return err
	}
	s.tryHandOver(ctx, a.GetWorkspace(), a.GetRepository())
	return nil
}

// retire is Delete without telling webhook: the reminder does that.
func (s *Service) retire(ctx context.Context, k lane.Key, etag string) (*storev1.App, error) {
	a, rev, err := s.load(ctx, k)
	if err != nil {
		return nil, err
	}
	if err := checkEtag(etag, rev); err != nil {
		return nil, err
	}
	info, err := s.cfg.Store.Logs.Info(ctx)
	if err != nil {
		return nil, fmt.Errorf("app: delete %s: %w: %w", k, kv.ErrUnavailable, err)
	}
	l, err := s.cfg.Dispatcher.Change(ctx, k, func(l *storev1.Lane) error {
		return lane.Retire(l, a.GetGeneration(), info.State.LastSeq)
	})
	if err != nil {
		return nil, err
	}
	if err := s.Forget(ctx, k, a.GetGeneration()); err != nil {
		return nil, err
	}
	return a, s.cfg.Dispatcher.Dispatch(ctx, k, l)
}

// Forget removes the record and the index entries of an app whose lane was retired. The record goes
// last: while it is there, nobody can make another app of its name.
func (s *Service) Forget(ctx context.Context, k lane.Key, generation int64) error {
	a, rev, err := s.load(ctx, k)
	if apierr.Has(err, apierr.ReasonAppNotFound) || err == nil && a.GetGeneration() != generation {
		return nil
	}
	if err != nil {
		return err
	}
	if err := s.unwatch(ctx, k.Workspace, a.GetRepository(), k.App, a.GetVersion()+1); err != nil {
		return err
	}
	if err := s.forgetSeen(ctx, k); err != nil {
		return err
	}
	err = s.cfg.Store.Apps.Delete(ctx, k.String(), rev)
	if errors.Is(err, kv.ErrConflict) { // saved meanwhile; a save does not bring it back
		return s.Forget(ctx, k, generation)
	}
	if err != nil && !errors.Is(err, kv.ErrNotFound) {
		return fmt.Errorf("app: delete %s: %w", k, err)
	}
	return nil
}

// forgetSeen removes what the app's lane saw of branches and tags. What a reconciler at the same time
// writes after that belongs to a baseline that no later app has.
func (s *Service) forgetSeen(ctx context.Context, k lane.Key) error {
	_, rev, err := s.cfg.Store.Seen.Get(ctx, k.String())
	if err == nil {
		err = s.cfg.Store.Seen.Delete(ctx, k.String(), rev)
	}
	if err != nil && !errors.Is(err, kv.ErrNotFound) && !errors.Is(err, kv.ErrConflict) {
		return fmt.Errorf("app: delete what %s saw: %w", k, err)
	}
	return nil
}
