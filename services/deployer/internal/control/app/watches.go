package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/services/deployer/internal/record/apps"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// HandOver is the schedule's handler for watches.
func (s *Service) HandOver(ctx context.Context, workspace, repository string, _ int) (time.Time, error) {
	done, err := s.handOver(ctx, workspace, repository, false)
	if err != nil || done {
		return time.Time{}, err
	}
	return s.now(), nil // changed meanwhile
}

// handOver tells webhook which branches are watched, and remembers its answer. It tells whether
// webhook knows the newest set.
func (s *Service) handOver(ctx context.Context, workspace, repository string, wait bool) (bool, error) {
	idx, err := s.Index(ctx, workspace, repository)
	if err != nil || idx.GetHandedVersion() >= idx.GetVersion() {
		return true, err
	}
	req := &webhookv1.SetWatchesRequest{
		Workspace: workspace, Repository: repository, RepositoryFullName: idx.GetFullName(), Version: idx.GetVersion(), Wait: wait,
		BitbucketWorkspaceId: idx.GetBitbucketWorkspace(),
	}
	for _, w := range idx.GetWatches() {
		if w.GetAutoDeploy() {
			req.Watches = append(req.Watches, &webhookv1.Watch{App: w.GetApp(), Branch: w.GetBranch()})
		}
	}
	hook, err := s.cfg.Webhooks.SetWatches(ctx, req)
	if err != nil {
		return false, err
	}
	idx, _, err = s.cfg.Store.Repositories.Update(ctx, apps.RepositoryKey(workspace, repository), func(idx *storev1.RepositoryIndex) (*storev1.RepositoryIndex, error) {
		if idx == nil || idx.GetHandedVersion() >= req.GetVersion() {
			return nil, kv.ErrSkip
		}
		idx.HandedVersion, idx.Webhook = req.GetVersion(), viewOf(hook)
		return idx, nil
	})
	if err != nil {
		return false, fmt.Errorf("app: remember the webhook of %s: %w", repository, err)
	}
	return idx.GetHandedVersion() >= idx.GetVersion(), nil
}

// tryHandOver hands the watches over within the request that changed them, so that its answer can
// tell how the webhook stands. Trouble never fails the request: the schedule repeats it.
func (s *Service) tryHandOver(ctx context.Context, workspace, repository string) {
	limit := 8 * time.Second
	if deadline, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(deadline)*3/4)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if _, err := s.handOver(ctx, workspace, repository, true); err != nil {
		s.cfg.Logger.InfoContext(ctx, "webhook not told yet of new watches", slog.String(logs.KeyRepository, repository), logs.Err(err))
	}
}

func viewOf(h *webhookv1.Webhook) *storev1.WebhookView {
	if h == nil {
		return nil
	}
	return &storev1.WebhookView{
		Id: h.GetId(), State: h.GetState().String(), Reason: h.GetReason(), Url: h.GetUrl(), Message: h.GetMessage(), LastVerifiedTime: h.GetLastVerifiedTime(),
		Health: h.GetHealth().String(), HealthMessage: h.GetHealthMessage(), HealthTime: h.GetHealthTime(),
		Repairable: h.GetRepairable(),
	}
}

func isAbsent(err error) bool { return errors.Is(err, kv.ErrNotFound) || errors.Is(err, kv.ErrBadKey) }
