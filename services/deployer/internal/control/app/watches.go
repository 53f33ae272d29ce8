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
	done, err := s.handOverNewest(ctx, workspace, repository)
	if err != nil || done {
		return time.Time{}, err
	}
	return s.now(), nil // changed meanwhile
}

// handOverNewest hands over what the leader has, and tells whether webhook knows the newest set.
func (s *Service) handOverNewest(ctx context.Context, workspace, repository string) (done bool, err error) {
	idx, err := s.Index(ctx, workspace, repository)
	if err != nil {
		return false, err
	}
	_, done, err = s.handOver(ctx, idx, false)
	return done, err
}

// handOver tells webhook which branches are watched, and remembers its answer: how the webhook stands. wait has
// webhook wait for Bitbucket. It tells whether webhook knows the newest set.
func (s *Service) handOver(ctx context.Context, idx *storev1.RepositoryIndex, wait bool) (hook *storev1.WebhookView, done bool, err error) {
	if idx.GetHandedVersion() >= idx.GetVersion() {
		return idx.GetWebhook(), true, nil
	}
	workspace, repository := idx.GetWorkspace(), idx.GetRepository()
	req := &webhookv1.SetWatchesRequest{
		Workspace: workspace, Repository: repository, RepositoryFullName: idx.GetFullName(), Version: idx.GetVersion(), Wait: wait,
		BitbucketWorkspaceId: idx.GetBitbucketWorkspace(),
	}
	for _, w := range idx.GetWatches() {
		if w.GetAutoDeploy() {
			req.Watches = append(req.Watches, &webhookv1.Watch{App: w.GetApp(), Branch: w.GetBranch()})
		}
	}
	answer, err := s.cfg.Webhooks.SetWatches(ctx, req)
	if err != nil {
		return nil, false, err
	}
	hook = viewOf(answer)
	idx, _, err = s.cfg.Store.Repositories.Update(ctx, apps.RepositoryKey(workspace, repository), func(idx *storev1.RepositoryIndex) (*storev1.RepositoryIndex, error) {
		if idx == nil || idx.GetHandedVersion() >= req.GetVersion() {
			return nil, kv.ErrSkip
		}
		idx.HandedVersion, idx.Webhook = req.GetVersion(), hook
		return idx, nil
	})
	if err != nil {
		return nil, false, fmt.Errorf("app: remember the webhook of %s: %w", repository, err)
	}
	return hook, idx.GetHandedVersion() >= idx.GetVersion(), nil
}

const (
	// handOverTimeout is how long a request that changed the watches tries to hand them over at most.
	handOverTimeout = 8 * time.Second
	// handOverShare is the part of what is left of the request's time that it may take.
	handOverShare = 0.75
)

// tryHandOver hands the watches over within the request that changed them, so that its answer can
// tell how the webhook stands: hook is that, nil for none, where told. Trouble never fails the request: the
// schedule repeats it. Requests that change the watches of one repository at the same time hand them over together.
func (s *Service) tryHandOver(ctx context.Context, workspace, repository string) (hook *storev1.WebhookView, told bool) {
	limit := handOverTimeout
	if deadline, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Duration(float64(time.Until(deadline))*handOverShare))
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	hook, err := s.handOverOwn(ctx, workspace, repository)
	if err != nil {
		s.cfg.Logger.InfoContext(ctx, "webhook not told yet of new watches", slog.String(logs.KeyRepository, repository), logs.Err(err))
	}
	return hook, err == nil
}

// handOverOwn hands over all that this process wrote. The leader is not asked: should another process have changed
// more, it hands that over itself.
func (s *Service) handOverOwn(ctx context.Context, workspace, repository string) (*storev1.WebhookView, error) {
	key := apps.RepositoryKey(workspace, repository)
	unlock, err := s.handing.Lock(ctx, key)
	if err != nil {
		return nil, err
	}
	defer unlock()
	view, err := s.cfg.Copies.Repositories.AtLeast(ctx, 0)
	if err != nil {
		return nil, fmt.Errorf("app: read: %w", err)
	}
	idx, _, err := view.Get(ctx, key)
	if isAbsent(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("app: read the index of repository %s: %w", repository, err)
	}
	hook, _, err := s.handOver(ctx, idx, true)
	return hook, err
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
