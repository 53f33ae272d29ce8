package app

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/seal/pagetoken"
	"devpilot.io/bitbucket/services/deployer/internal/record/apps"
	"devpilot.io/bitbucket/services/deployer/internal/record/codeconfig"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
	"devpilot.io/bitbucket/services/deployer/internal/record/rules"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// hookTimeout bounds the question for webhooks: what was last known is shown after it.
const hookTimeout = time.Second

// Get returns an app.
func (s *Service) Get(ctx context.Context, k lane.Key) (*deployerv1.App, error) {
	r, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	return s.one(ctx, r, k, nil)
}

// created returns an app that the request at hand has just made. hooks is how its webhook stands; nil: webhook
// is asked.
func (s *Service) created(ctx context.Context, k lane.Key, hooks webhookViews) (*deployerv1.App, error) {
	r, err := s.readOwn(ctx)
	if err != nil {
		return nil, err
	}
	return s.one(ctx, r, k, hooks)
}

func (s *Service) one(ctx context.Context, r *reading, k lane.Key, hooks webhookViews) (*deployerv1.App, error) {
	p, err := s.parts(ctx, r, k)
	if err != nil {
		return nil, err
	}
	if p == nil {
		return nil, notFound(k)
	}
	apps, err := s.describe(ctx, r, k.Workspace, []*parts{p}, hooks)
	if err != nil {
		return nil, err
	}
	return apps[0], nil
}

// preview is an app as it would be saved.
func preview(a *storev1.App) *deployerv1.App {
	out := saved(a)
	out.Id, out.Workspace, out.Repository, out.Variables = a.GetId(), a.GetWorkspace(), a.GetRepository(), shown(a.GetVariables())
	out.CreateTime, out.UpdateTime = a.GetCreateTime(), a.GetUpdateTime()
	out.Need = needOf(nil, nil) // of what is not saved nothing is known
	return out
}

// Apps returns the ids of a workspace's apps.
func (s *Service) Apps(ctx context.Context, workspace string) ([]string, error) {
	prefix := workspace + "."
	view, err := s.cfg.Copies.Apps.Fresh(ctx)
	var ids []string
	if err == nil {
		ids, err = view.Keys(ctx, prefix, "", 0)
	}
	if err != nil && !isAbsent(err) {
		return nil, fmt.Errorf("app: list workspace %s: %w", workspace, err)
	}
	for i, key := range ids {
		ids[i] = strings.TrimPrefix(key, prefix)
	}
	return ids, nil
}

// parts is what an app's view is made of.
type parts struct {
	key   lane.Key
	app   *storev1.App
	rev   uint64
	lane  *storev1.Lane
	index *storev1.RepositoryIndex
}

// views describes the apps of some keys; those that are gone are left out.
func (s *Service) views(ctx context.Context, r *reading, workspace string, keys []string) ([]*deployerv1.App, error) {
	all, err := s.partsOf(ctx, r, workspace, keys)
	if err != nil {
		return nil, err
	}
	return s.describe(ctx, r, workspace, all, nil)
}

// partsOf reads the apps of some keys; those that are gone are left out.
func (s *Service) partsOf(ctx context.Context, r *reading, workspace string, keys []string) ([]*parts, error) {
	all := make([]*parts, len(keys))
	err := each(len(keys), r.apps.FromCopy() && r.lanes.FromCopy(), func(i int) (err error) {
		all[i], err = s.parts(ctx, r, lane.Key{Workspace: workspace, App: strings.TrimPrefix(keys[i], workspace+".")})
		return err
	})
	return slices.DeleteFunc(all, func(p *parts) bool { return p == nil }), err
}

// webhookViews are how webhooks stand, by repository.
type webhookViews map[string]*storev1.WebhookView

// describe makes the views of apps that were read. Webhooks are asked for where they are not known yet.
func (s *Service) describe(ctx context.Context, r *reading, workspace string, all []*parts, hooks webhookViews) ([]*deployerv1.App, error) {
	if len(all) == 0 {
		return nil, nil
	}
	if err := r.recordsOf(ctx, all); err != nil {
		return nil, err
	}
	connection, err := s.cfg.Connections.Shown(ctx, workspace)
	if err != nil {
		return nil, err
	}
	files, err := r.codeConfigs(ctx, all)
	if err != nil {
		return nil, err
	}
	if hooks == nil {
		hooks = s.hooks(ctx, workspace, all)
	}
	out := make([]*deployerv1.App, len(all))
	err = each(len(all), r.deployments.FromCopy(), func(i int) (err error) {
		out[i], err = s.view(ctx, r, all[i], connection, hooks, files)
		return err
	})
	return out, err
}

func (s *Service) parts(ctx context.Context, r *reading, k lane.Key) (*parts, error) {
	a, rev, err := r.app(ctx, k)
	if apierr.Has(err, apierr.ReasonAppNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	p := &parts{key: k, app: a, rev: rev}
	if p.lane, err = r.lane(ctx, k); err != nil {
		return nil, err
	}
	p.index, err = r.index(ctx, a)
	return p, err
}

// hooks asks webhook how its webhooks stand, in one call; what it does not answer in time is shown
// as it last was.
func (s *Service) hooks(ctx context.Context, workspace string, all []*parts) webhookViews {
	out := webhookViews{}
	var wanted []string
	for _, p := range all {
		id := p.app.GetRepository()
		if _, there := out[id]; p.app.GetAutoDeploy() && !there {
			wanted = append(wanted, id)
			out[id] = p.index.GetWebhook()
		}
	}
	if len(wanted) == 0 {
		return out
	}
	ctx, cancel := context.WithTimeout(ctx, hookTimeout)
	defer cancel()
	for batch := range slices.Chunk(wanted, pagetoken.MaxPage) {
		found, err := s.cfg.Webhooks.Webhooks(ctx, workspace, batch)
		if err != nil {
			s.cfg.Logger.InfoContext(ctx, "webhooks shown as last known", logs.Err(err))
			return out
		}
		for id, h := range found {
			out[id] = viewOf(h)
		}
	}
	return out
}

func (s *Service) view(ctx context.Context, r *reading, p *parts, connection *storev1.Connection, hooks webhookViews, files *codeConfigView) (*deployerv1.App, error) {
	a := saved(p.app)
	a.Id, a.Workspace, a.Repository, a.RepositoryFullName = p.app.GetId(), p.app.GetWorkspace(), p.app.GetRepository(), p.index.GetFullName()
	a.Etag, a.CreateTime, a.UpdateTime = Etag(p.rev), p.app.GetCreateTime(), p.app.GetUpdateTime()
	a.Variables, a.BadgePath = shown(p.app.GetVariables()), badgePath(p.app)
	a.HookRunner = s.cfg.Servers.HookRunner(p.app.GetServer())
	if err := s.viewFile(ctx, p, files, a); err != nil {
		return nil, err
	}
	live, err := s.deployment(ctx, r, p.key, p.app, p.lane, p.lane.GetLive().GetNumber())
	if err != nil {
		return nil, err
	}
	latest := live
	if p.lane.GetLastNumber() != p.lane.GetLive().GetNumber() {
		if latest, err = s.deployment(ctx, r, p.key, p.app, p.lane, p.lane.GetLastNumber()); err != nil {
			return nil, err
		}
	}
	a.Live, a.Latest = summary(live), summary(latest)
	if !p.app.GetAutoDeploy() {
		a.AutoDeployOff = p.app.GetAutoDeployOff()
	}
	if a.Sync, err = s.sync(ctx, r, p, connection, live, latest); err != nil {
		return nil, err
	}
	if p.app.GetAutoDeploy() {
		if pause := connection.GetPaused(); pause != nil {
			a.AutoDeployPaused = &deployerv1.AutoDeployPause{Reason: pause.GetReason(), Message: pause.GetMessage(), Time: pause.GetTime()}
		} else if out := apps.Outside(connection, p.index); out != nil {
			a.AutoDeployPaused = &deployerv1.AutoDeployPause{Reason: out.GetReason(), Message: out.GetMessage(), Time: out.GetTime()}
		}
	}
	a.Webhook = s.webhook(p, hooks)
	for _, t := range slices.Backward(p.lane.GetTurnedAway()) {
		a.TurnedAway = append(a.TurnedAway, t)
	}
	a.Warnings = s.warnings(p, a, connection)
	a.Need = needOf(a.GetLatest(), a.GetSync())
	return a, nil
}

// webhook is how the webhook stands that an app deploys by; nil where pushes do not deploy it.
func (s *Service) webhook(p *parts, hooks webhookViews) *deployerv1.AppWebhook {
	h := hooks[p.app.GetRepository()]
	if h == nil || !p.app.GetAutoDeploy() {
		return nil
	}
	out := &deployerv1.AppWebhook{
		Id: h.GetId(), State: h.GetState(), Reason: h.GetReason(), Url: h.GetUrl(), Message: h.GetMessage(), LastVerifiedTime: h.GetLastVerifiedTime(),
		Health: h.GetHealth(), HealthMessage: h.GetHealthMessage(), HealthTime: h.GetHealthTime(),
		Repairable: h.GetRepairable(),
	}
	if s.cfg.FindsWithin != nil {
		out.FoundWithin = durationpb.New(s.cfg.FindsWithin(p.key.Workspace, p.app.GetRepository()))
	}
	return out
}

// viewFile adds what .devpilot.yaml says, and where the live release is served.
func (s *Service) viewFile(ctx context.Context, p *parts, files *codeConfigView, a *deployerv1.App) error {
	k := p.key
	if p.app.GetConfigAsCode() {
		c, _, err := files.Get(ctx, k.String())
		switch {
		case isAbsent(err):
		case err != nil:
			return fmt.Errorf("app: read what the file of %s said: %w", k, err)
		case c.GetGeneration() == p.app.GetGeneration():
			a.CodeConfig = c.GetConfig()
		}
	}
	if l := p.lane.GetLive(); l != nil && s.cfg.Live != nil && served(p.app, p.lane, l.GetNumber()) {
		a.LiveUrl = s.cfg.Live(k.Workspace, k.App, 0)
	}
	return nil
}

func served(a *storev1.App, l *storev1.Lane, number int32) bool {
	return apps.Serve(a, l, number).GetDirectory() != ""
}

const noHookRunner = "The app has deployment hooks, but its server runs none: install bubblewrap there, or start the deployer with --allow-unsandboxed-hooks if a single workspace uses it. Deployments fail at the first hook until then."

// unwell reports whether something is wrong with a webhook that stands as registered. That Bitbucket does
// not answer for a while is said of the connection.
func unwell(health string) bool {
	switch health {
	case "", webhookv1.Webhook_HEALTH_UNSPECIFIED.String(), webhookv1.Webhook_REGISTERED.String(), webhookv1.Webhook_NOT_CHECKED.String():
		return false
	default:
		return true
	}
}

// unreached says why an app's repository cannot be had; nil where it can.
func unreached(p *parts, connection *storev1.Connection) *deployerv1.Warning {
	if t := apps.Outside(connection, p.index); t != nil {
		return &deployerv1.Warning{Reason: t.GetReason(), Message: t.GetMessage()}
	}
	if u := p.index.GetUnreachable(); u != nil {
		return &deployerv1.Warning{Reason: u.GetReason(), Message: u.GetMessage()}
	}
	return nil
}

// warnings says what a person should know.
func (s *Service) warnings(p *parts, a *deployerv1.App, connection *storev1.Connection) []*deployerv1.Warning {
	hook := a.GetWebhook()
	var out []*deployerv1.Warning
	if h := lane.HeadOf(p.lane, p.app.GetRepository(), lane.Branch(p.app.GetBranch())); h != nil && h.GetHash() == "" && !rules.IsGlob(p.app.GetBranch()) {
		out = append(out, &deployerv1.Warning{
			Reason: "BRANCH_NOT_FOUND", Message: noBranchMessage(p.app.GetBranch()),
		})
	}
	if w := unreached(p, connection); w != nil {
		out = append(out, w)
	}
	if hook.GetReason() != "" && hook.GetState() != webhookv1.Webhook_ACTIVE.String() && hook.GetState() != webhookv1.Webhook_MANUAL.String() {
		out = append(out, &deployerv1.Warning{Reason: hook.GetReason(), Message: hook.GetMessage()})
	} else if unwell(hook.GetHealth()) {
		out = append(out, &deployerv1.Warning{Reason: "WEBHOOK_" + hook.GetHealth(), Message: hook.GetHealthMessage()})
	}
	if e := s.away(p); e != nil {
		out = append(out, &deployerv1.Warning{Reason: e.GetReason(), Message: e.GetMessage()})
	} else if a.GetHookRunner() == "" && (len(a.GetHooks()) > 0 || len(a.GetCodeConfig().GetHooks()) > 0) {
		out = append(out, &deployerv1.Warning{Reason: "NO_HOOK_RUNNER", Message: noHookRunner})
	}
	if len(a.GetCodeConfig().GetProblems()) > 0 {
		first := a.GetCodeConfig().GetProblems()[0]
		out = append(out, &deployerv1.Warning{Reason: "CODE_CONFIG_INVALID", Message: fmt.Sprintf(
			"%s is not valid, so that no commit with it deploys: line %d: %s", a.GetCodeConfig().GetPath(), first.GetLine(), first.GetMessage())})
	}
	if ignored := a.GetCodeConfig().GetIgnoredPath(); ignored != "" {
		out = append(out, &deployerv1.Warning{Reason: "CODE_CONFIG_IGNORED", Message: fmt.Sprintf("%s does not count: the file has to be called %s. Rename it.", ignored, codeconfig.FileName)})
	}
	if s.cfg.Statuses != nil && a.GetCommitStatus() {
		if reason, message := s.cfg.Statuses(); reason != "" {
			out = append(out, &deployerv1.Warning{Reason: reason, Message: message})
		}
	}
	return out
}
