package app

import (
	"context"
	"fmt"
	"slices"
	"time"

	"devpilot.io/bitbucket/services/deployer/internal/lane"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// hookTimeout bounds the question for webhooks: what was last known is shown after it.
const hookTimeout = time.Second

// Get returns an app.
func (s *Service) Get(ctx context.Context, k lane.Key) (*deployerv1.App, error) {
	apps, err := s.views(ctx, k.Workspace, []string{k.App})
	if err != nil {
		return nil, err
	}
	if len(apps) == 0 {
		return nil, notFound(k)
	}
	return apps[0], nil
}

// List returns a page of a workspace's apps by id, after the given one, and the id to go on after,
// empty at the end. A page may come back short while an app is being made or deleted.
func (s *Service) List(ctx context.Context, workspace, after string, size int) (apps []*deployerv1.App, next string, err error) {
	idx, _, err := s.cfg.Store.Workspaces.Get(ctx, workspace)
	if isAbsent(err) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", fmt.Errorf("app: list workspace %s: %w", workspace, err)
	}
	at, found := slices.BinarySearch(idx.GetApps(), after)
	if found {
		at++
	}
	ids := idx.GetApps()[at:]
	if len(ids) > size {
		ids = ids[:size]
		next = ids[size-1]
	}
	apps, err = s.views(ctx, workspace, ids)
	return apps, next, err
}

// Apps returns the ids of a workspace's apps.
func (s *Service) Apps(ctx context.Context, workspace string) ([]string, error) {
	idx, _, err := s.cfg.Store.Workspaces.Get(ctx, workspace)
	if isAbsent(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("app: list workspace %s: %w", workspace, err)
	}
	return idx.GetApps(), nil
}

// parts is what an app's view is made of.
type parts struct {
	app   *storev1.App
	rev   uint64
	lane  *storev1.Lane
	index *storev1.RepositoryIndex
}

// views describes apps; entries of the index whose app is gone are left out.
func (s *Service) views(ctx context.Context, workspace string, ids []string) ([]*deployerv1.App, error) {
	all := make([]*parts, len(ids))
	err := each(len(ids), func(i int) (err error) {
		all[i], err = s.parts(ctx, lane.Key{Workspace: workspace, App: ids[i]})
		return err
	})
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(p *parts) bool { return p == nil })
	connection, err := s.cfg.Connections.Get(ctx, workspace)
	if err != nil {
		return nil, err
	}
	hooks := s.hooks(ctx, workspace, all)
	out := make([]*deployerv1.App, len(all))
	err = each(len(all), func(i int) (err error) {
		out[i], err = s.view(ctx, all[i], connection, hooks)
		return err
	})
	return out, err
}

func (s *Service) parts(ctx context.Context, k lane.Key) (*parts, error) {
	a, rev, err := s.cfg.Store.Apps.Get(ctx, k.String())
	if isAbsent(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("app: read %s: %w", k, err)
	}
	p := &parts{app: a, rev: rev}
	if p.lane, _, err = s.cfg.Keeper.Get(ctx, k); err != nil {
		return nil, err
	}
	p.index, err = s.Index(ctx, k.Workspace, a.GetRepository())
	return p, err
}

// hooks asks webhook how its webhooks stand, in one call; what it does not answer in time is shown
// as it last was.
func (s *Service) hooks(ctx context.Context, workspace string, all []*parts) map[string]*storev1.WebhookView {
	out := map[string]*storev1.WebhookView{}
	var wanted []string
	for _, p := range all {
		if id := p.app.GetRepository(); p.app.GetAutoDeploy() && !slices.Contains(wanted, id) {
			wanted = append(wanted, id)
			out[id] = p.index.GetWebhook()
		}
	}
	if len(wanted) == 0 {
		return out
	}
	ctx, cancel := context.WithTimeout(ctx, hookTimeout)
	defer cancel()
	for batch := range slices.Chunk(wanted, 200) {
		found, err := s.cfg.Webhooks.Webhooks(ctx, workspace, batch)
		if err != nil {
			s.cfg.Logger.InfoContext(ctx, "webhooks shown as last known", "err", err)
			return out
		}
		for id, h := range found {
			out[id] = viewOf(h)
		}
	}
	return out
}

func (s *Service) view(ctx context.Context, p *parts, connection *storev1.Connection, hooks map[string]*storev1.WebhookView) (*deployerv1.App, error) {
	k := lane.Key{Workspace: p.app.GetWorkspace(), App: p.app.GetId()}
	a := &deployerv1.App{
		Id: p.app.GetId(), Workspace: p.app.GetWorkspace(), Repository: p.app.GetRepository(), RepositoryFullName: p.index.GetFullName(),
		Branch: p.app.GetBranch(), AutoDeploy: p.app.GetAutoDeploy(), Server: p.app.GetServer(), Retention: p.app.GetRetention(),
		Etag: Etag(p.rev), CreateTime: p.app.GetCreateTime(), UpdateTime: p.app.GetUpdateTime(),
	}
	live, err := s.deployment(ctx, k, p.lane, p.lane.GetLive().GetNumber())
	if err != nil {
		return nil, err
	}
	latest, err := s.deployment(ctx, k, p.lane, p.lane.GetLastNumber())
	if err != nil {
		return nil, err
	}
	a.Live, a.Latest = summary(live), summary(latest)
	if p.app.GetAutoDeploy() {
		if pause := connection.GetPaused(); pause != nil {
			a.AutoDeployPaused = &deployerv1.AutoDeployPause{Reason: pause.GetReason(), Message: pause.GetMessage(), Time: pause.GetTime()}
		}
		if h := hooks[p.app.GetRepository()]; h != nil {
			a.Webhook = &deployerv1.AppWebhook{Id: h.GetId(), State: h.GetState(), Reason: h.GetReason(), Url: h.GetUrl(), Message: h.GetMessage(), LastVerifiedTime: h.GetLastVerifiedTime()}
		}
	}
	a.Warnings = s.warnings(p, a.GetWebhook())
	return a, nil
}

// warnings says what a person should know.
func (s *Service) warnings(p *parts, hook *deployerv1.AppWebhook) []*deployerv1.Warning {
	var out []*deployerv1.Warning
	if h := lane.HeadOf(p.lane, p.app.GetRepository(), p.app.GetBranch()); h != nil && h.GetHash() == "" {
		out = append(out, &deployerv1.Warning{
			Reason: "BRANCH_NOT_FOUND", Message: fmt.Sprintf("Branch %s does not exist on Bitbucket. Push it, or watch another one.", p.app.GetBranch()),
		})
	}
	if u := p.index.GetUnreachable(); u != nil {
		out = append(out, &deployerv1.Warning{Reason: u.GetReason(), Message: u.GetMessage()})
	}
	if hook.GetReason() != "" && hook.GetState() != webhookv1.Webhook_ACTIVE.String() && hook.GetState() != webhookv1.Webhook_MANUAL.String() {
		out = append(out, &deployerv1.Warning{Reason: hook.GetReason(), Message: hook.GetMessage()})
	}
	if e := s.offline(p.app.GetServer()); e != nil {
		out = append(out, &deployerv1.Warning{Reason: e.GetReason(), Message: e.GetMessage()})
	}
	return out
}
