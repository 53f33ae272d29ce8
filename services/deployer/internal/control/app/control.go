package app

import (
	"context"
	"crypto/rand"
	"errors"

	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// Cancel stops a deployment: one that waits ends at once, one that runs as soon as its worker has
// killed what it started. Wishing it twice is no error.
func (s *Service) Cancel(ctx context.Context, req *deployerv1.CancelDeploymentRequest, actor *deployerv1.DeploymentActor) (*deployerv1.Deployment, error) {
	k := lane.Key{Workspace: req.GetWorkspace(), App: req.GetApp()}
	d, err := s.Deployment(ctx, k, req.GetNumber())
	if err != nil {
		return nil, err
	}
	if want := req.GetEtag(); want != "" && want != d.GetEtag() {
		return nil, apierr.New(apierr.ReasonEtagMismatch, "The deployment has changed meanwhile. Load it again.")
	}
	l, err := s.cfg.Dispatcher.Change(ctx, k, func(l *storev1.Lane) error { return lane.Cancel(l, req.GetNumber(), actor, s.now()) })
	if errors.Is(err, lane.ErrEnded) {
		if d, err = s.Deployment(ctx, k, req.GetNumber()); err != nil {
			return nil, err
		}
		if d.GetState() == deployerv1.Deployment_CANCELLED {
			return d, nil
		}
		return nil, apierr.Newf(apierr.ReasonNotCancellable, "Deployment %d has ended already: %s.", req.GetNumber(), d.GetState())
	}
	if err != nil {
		return nil, err
	}
	if err := s.cfg.Dispatcher.Dispatch(ctx, k, l); err != nil {
		s.cfg.Logger.WarnContext(ctx, "cancelled deployment is shown a little later", logs.Err(err))
	}
	return s.Deployment(ctx, k, req.GetNumber())
}

// Redeploy deploys the commit of an earlier deployment again.
func (s *Service) Redeploy(ctx context.Context, req *deployerv1.RedeployDeploymentRequest, actor *deployerv1.DeploymentActor) (*deployerv1.Deployment, error) {
	k := lane.Key{Workspace: req.GetWorkspace(), App: req.GetApp()}
	body := proto.CloneOf(req)
	body.RequestId = ""
	return s.again(ctx, k, "RedeployDeployment", req.GetRequestId(), body, func(event string) (lane.Request, error) {
		d, err := s.Deployment(ctx, k, req.GetNumber())
		if err != nil {
			return lane.Request{}, err
		}
		if d.GetCommit().GetHash() == "" {
			return lane.Request{}, apierr.Newf(apierr.ReasonNotRedeployable, "Deployment %d ended before its commit was known. Deploy the latest commit instead.", req.GetNumber())
		}
		ask, err := s.askBitbucket(ctx, k, event, deployerv1.Deployment_REDEPLOY, actor)
		ask.Branch, ask.Tag, ask.Commit, ask.Pinned, ask.SourceNumber = d.GetBranch(), d.GetTag(), d.GetCommit(), true, req.GetNumber()
		return ask, err
	})
}

// RollBack makes an earlier release current again, as a new deployment.
func (s *Service) RollBack(ctx context.Context, req *deployerv1.RollBackAppRequest, actor *deployerv1.DeploymentActor) (*deployerv1.Deployment, error) {
	k := lane.Key{Workspace: req.GetWorkspace(), App: req.GetApp()}
	body := proto.CloneOf(req)
	body.RequestId = ""
	d, err := s.again(ctx, k, "RollBackApp", req.GetRequestId(), body, func(event string) (lane.Request, error) {
		ask, err := s.ask(ctx, k, event, deployerv1.Deployment_ROLLBACK, actor)
		if err != nil {
			return lane.Request{}, err
		}
		l, err := s.laneOf(ctx, k)
		if err != nil {
			return lane.Request{}, err
		}
		kept, err := rollbackTarget(l, k, req.GetDeployment(), ask.Server)
		if err != nil {
			return lane.Request{}, err
		}
		source, err := s.Deployment(ctx, k, kept.GetNumber())
		if err != nil {
			return lane.Request{}, err
		}
		ask.Branch, ask.Tag, ask.Commit = source.GetBranch(), source.GetTag(), source.GetCommit()
		ask.Directory, ask.SourceNumber = kept.GetDirectory(), kept.GetNumber()
		ask.CancelRunning = true // who rolls back does not wait for what is being deployed
		return ask, nil
	})
	if err != nil || !req.GetPauseAutoDeploy() {
		return d, err
	}
	return d, s.switchOff(ctx, k, &deployerv1.AutoDeployOff{Actor: actor, RolledBack: true})
}

// rollbackTarget finds the kept release of a deployment, 0 for the one that was live before.
func rollbackTarget(l *storev1.Lane, k lane.Key, number int32, server string) (*storev1.Kept, error) {
	live := l.GetLive()
	var found *storev1.Kept
	for _, kept := range l.GetKept() {
		if kept.GetServer() != server {
			continue
		}
		if number != 0 && kept.GetNumber() == number || number == 0 && kept.GetDirectory() != live.GetDirectory() {
			found = kept
		}
	}
	switch {
	case found != nil:
		return found, nil
	case number == 0:
		return nil, apierr.Newf(apierr.ReasonReleaseGone, "App %s has no release to go back to: none but the live one is kept.", k.App)
	case number > l.GetLastNumber():
		return nil, noDeployment(k, number)
	}
	return nil, apierr.Newf(apierr.ReasonReleaseGone, "The release of deployment %d is not kept any more, or never was one. Redeploy its commit instead.", number)
}

// switchOff switches auto-deploy off; whoever saves the app meanwhile is not overwritten.
func (s *Service) switchOff(ctx context.Context, k lane.Key, off *deployerv1.AutoDeployOff) error {
	_, err := s.save(ctx, &deployerv1.UpdateAppRequest{
		Workspace: k.Workspace, AppId: k.App, App: &deployerv1.App{}, UpdateMask: maskOf("auto_deploy"),
	}, off)
	return err
}

// ask is a person's wish, as far as it does not depend on what is wished.
func (s *Service) ask(ctx context.Context, k lane.Key, event string, trigger deployerv1.Deployment_Trigger, actor *deployerv1.DeploymentActor) (lane.Request, error) {
	a, _, err := s.load(ctx, k)
	now := s.now()
	return lane.Request{
		Event: event, ReceiveTime: now, Trigger: trigger, Repository: a.GetRepository(), Actor: actor, Server: a.GetServer(), Now: now,
	}, err
}

// askBitbucket is ask for what must be fetched; it refuses what cannot be until somebody connects or widens
// the workspace.
func (s *Service) askBitbucket(ctx context.Context, k lane.Key, event string, trigger deployerv1.Deployment_Trigger, actor *deployerv1.DeploymentActor) (lane.Request, error) {
	if err := s.connected(ctx, k.Workspace); err != nil {
		return lane.Request{}, err
	}
	ask, err := s.ask(ctx, k, event, trigger, actor)
	if err != nil {
		return lane.Request{}, err
	}
	return ask, s.notOutside(ctx, &storev1.App{Workspace: k.Workspace, Repository: ask.Repository})
}

// again makes a deployment out of a wish, once for each request id.
func (s *Service) again(ctx context.Context, k lane.Key, method, id string, body proto.Message, wish func(event string) (lane.Request, error)) (*deployerv1.Deployment, error) {
	if _, _, err := s.load(ctx, k); err != nil {
		return nil, err
	}
	number, err := s.once(ctx, k.Workspace, method, id, body)
	if err != nil {
		return nil, err
	}
	if number == 0 {
		event := method + ":" + rand.Text()
		if id != "" {
			event = "request:" + method + ":" + id
		}
		ask, err := wish(event)
		if err != nil {
			return nil, err
		}
		if number, err = s.Accept(ctx, k, ask); err != nil {
			return nil, err
		}
		if err := s.made(ctx, k.Workspace, method, id, number); err != nil {
			return nil, err
		}
	}
	return s.Deployment(ctx, k, number)
}
