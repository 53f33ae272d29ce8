package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/pasted"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
	"devpilot.io/bitbucket/services/deployer/internal/record/rules"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// Create saves a new app. A webhook that cannot be registered, or a branch that is not there yet,
// is told in the answer and fails nothing.
func (s *Service) Create(ctx context.Context, req *deployerv1.CreateAppRequest, actor *deployerv1.DeploymentActor) (*deployerv1.App, error) {
	now := s.now()
	req = proto.CloneOf(req)
	req.AppId = pasted.Line(req.GetAppId())
	asMeant(req.GetApp())
	a := &storev1.App{
		Workspace: req.GetWorkspace(), Id: req.GetAppId(), Repository: req.GetApp().GetRepository(),
		CreateTime: timestamppb.New(now), UpdateTime: timestamppb.New(now), CreateRequest: hashID(req.GetRequestId()), Version: now.UnixNano(),
	}
	save(a, req.GetApp())
	withDefaults(a)
	if err := s.keyBadge(a); err != nil {
		return nil, err
	}
	var faults apierr.Faults
	if req.GetDeployNow() && rules.IsGlob(a.GetBranch()) {
		faults.Add("deployNow", "an app that watches a pattern has no latest commit; push, or deploy one branch of it afterwards")
	}
	faults.RequestID(req.GetRequestId())
	if err := s.setVariables(a, req.GetApp().GetVariables(), now, &faults); err != nil {
		return nil, err
	}
	if err := s.check(ctx, a, &faults); err != nil {
		return nil, err
	}
	if req.GetValidateOnly() {
		return preview(a), nil
	}
	body := proto.CloneOf(req)
	body.RequestId = ""
	withoutValues(body.GetApp().GetVariables())
	if _, err := s.once(ctx, a.GetWorkspace(), "CreateApp", req.GetRequestId(), body); err != nil {
		return nil, err
	}
	k := lane.Key{Workspace: a.GetWorkspace(), App: a.GetId()}
	have, err := s.cfg.Copies.Apps.Fresh(ctx)
	if err != nil {
		return nil, fmt.Errorf("app: read: %w", err)
	}
	show := func() (*deployerv1.App, error) { return s.Get(ctx, k) }
	if done, err := madeBefore(ctx, have, k, a.GetCreateRequest()); err != nil {
		return nil, err
	} else if !done {
		if err := room(ctx, have, a.GetWorkspace()); err != nil {
			return nil, err
		}
		own, hooks, err := s.create(ctx, k, a, actor)
		if err != nil {
			return nil, err
		}
		if own {
			show = func() (*deployerv1.App, error) { return s.created(ctx, k, hooks) }
		}
	}
	if req.GetDeployNow() {
		event := "create:" + a.GetCreateTime().AsTime().Format(time.RFC3339Nano)
		if req.GetRequestId() != "" {
			event = "create:" + req.GetRequestId()
		}
		ask, err := s.askBitbucket(ctx, k, event, deployerv1.Deployment_MANUAL, actor)
		if err != nil {
			return nil, err
		}
		ask.Branch = a.GetBranch()
		if _, err := s.Accept(ctx, k, ask); err != nil {
			return nil, err
		}
	}
	return show()
}

// madeBefore tells whether the app is there because of this very request, or else APP_EXISTS.
func madeBefore(ctx context.Context, view appsView, k lane.Key, request []byte) (bool, error) {
	have, _, err := view.Get(ctx, k.String())
	if isAbsent(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("app: read %s: %w", k, err)
	}
	if len(request) > 0 && bytes.Equal(have.GetCreateRequest(), request) {
		return true, nil
	}
	return false, apierr.Newf(apierr.ReasonAppExists, "Workspace %s has an app %s already. Choose another name.", k.Workspace, k.App)
}

// create asks Bitbucket for the repository and saves the app. Index and lane come first, so that an app
// that exists can always be found by its repository and can always take a push. own is false where another
// caller did the same request meanwhile; hooks is how the webhook stands, nil where webhook did not answer.
func (s *Service) create(ctx context.Context, k lane.Key, a *storev1.App, actor *deployerv1.DeploymentActor) (own bool, hooks webhookViews, err error) {
	branch := a.GetBranch()
	if rules.IsGlob(branch) {
		branch = "" // of a pattern the next poll notes what there is
	}
	repository, head, known, err := s.cfg.Repositories.RepositoryAndHead(ctx, a.GetWorkspace(), a.GetRepository(), branch)
	if err != nil {
		return false, nil, err
	}
	if err := s.within(ctx, a.GetWorkspace(), repository.GetBitbucketWorkspaceId()); err != nil {
		return false, nil, err
	}
	var generation int64
	write, wctx := errgroup.WithContext(ctx)
	write.Go(func() error { return s.watch(wctx, a, repository) })
	write.Go(func() error {
		_, err := s.cfg.Dispatcher.Begin(wctx, k, func(l *storev1.Lane) error {
			generation = lane.Begin(l)
			if known {
				lane.Baseline(l, a.GetRepository(), a.GetBranch(), head, s.now())
			} else { // the reconciler takes the first head it sees for the baseline
				lane.ForgetHead(l, a.GetRepository(), a.GetBranch(), s.now())
			}
			return nil
		})
		return err
	})
	if err := write.Wait(); err != nil {
		return false, nil, err
	}
	a.Generation = generation
	if a.GetAutoDeploy() {
		a.AutoDeployTime = a.GetCreateTime()
	} else {
		a.AutoDeployOff = &deployerv1.AutoDeployOff{Time: a.GetCreateTime(), Actor: actor}
	}
	if _, err := s.cfg.Store.Apps.Create(ctx, k.String(), a); errors.Is(err, kv.ErrExists) {
		have, err := s.cfg.Copies.Apps.Fresh(ctx) // with the one that came first
		if err == nil {
			_, err = madeBefore(ctx, have, k, a.GetCreateRequest())
		}
		return false, nil, err
	} else if err != nil {
		return false, nil, fmt.Errorf("app: save %s: %w", k, err)
	}
	if hook, told := s.tryHandOver(ctx, a.GetWorkspace(), a.GetRepository()); told {
		hooks = webhookViews{a.GetRepository(): hook}
	}
	return true, hooks, nil
}

// room refuses one app more than a workspace may have.
func room(ctx context.Context, view appsView, workspace string) error {
	n, err := view.Count(ctx, workspace+".")
	if err != nil {
		return fmt.Errorf("app: count the apps of %s: %w", workspace, err)
	}
	if n >= maxApps {
		return apierr.InvalidArgument("workspace", fmt.Sprintf("it has %d apps, as many as a workspace can have", maxApps))
	}
	return nil
}

// head asks for the branch's head: the baseline, empty where the branch is not there. Trouble makes
// it unknown: the reconciler then takes the first head it sees for the baseline.
func (s *Service) head(ctx context.Context, a *storev1.App) (hash string, known bool) {
	hash, err := s.cfg.Repositories.Head(ctx, a.GetWorkspace(), a.GetRepository(), a.GetBranch())
	switch {
	case err == nil:
		return hash, true
	case apierr.Has(err, apierr.ReasonBranchNotFound):
		return "", true
	}
	s.cfg.Logger.InfoContext(ctx, "baseline not known yet", slog.String(logs.KeyRepository, a.GetRepository()), slog.String(logs.KeyBranch, a.GetBranch()), logs.Err(err))
	return "", false
}
