package app

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/address"
	"devpilot.io/bitbucket/services/deployer/internal/record/apps"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
	"devpilot.io/bitbucket/services/deployer/internal/record/rules"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// Deploy makes a deployment of the branch's latest commit.
func (s *Service) Deploy(ctx context.Context, req *deployerv1.CreateDeploymentRequest, actor *deployerv1.DeploymentActor) (*deployerv1.Deployment, error) {
	k := lane.Key{Workspace: req.GetWorkspace(), App: req.GetApp()}
	a, _, err := s.load(ctx, k)
	if err != nil {
		return nil, err
	}
	branch, err := s.branchToDeploy(ctx, k, a, req.GetBranch())
	if err != nil {
		return nil, err
	}
	body := &deployerv1.CreateDeploymentRequest{Workspace: req.GetWorkspace(), App: req.GetApp(), Branch: req.GetBranch()}
	const method = "CreateDeployment"
	number, err := s.once(ctx, k.Workspace, method, req.GetRequestId(), body)
	if err != nil {
		return nil, err
	}
	if number == 0 {
		event := "manual:" + rand.Text()
		if req.GetRequestId() != "" {
			event = "request:" + req.GetRequestId()
		}
		if number, err = s.deploy(ctx, k, branch, event, actor); err != nil {
			return nil, err
		}
		if err := s.made(ctx, k.Workspace, method, req.GetRequestId(), number); err != nil {
			return nil, err
		}
	}
	return s.Deployment(ctx, k, number)
}

// branchToDeploy is the branch that a person means: the app's, or of an app that watches a pattern
// the one named, or else the one that was deployed last.
func (s *Service) branchToDeploy(ctx context.Context, k lane.Key, a *storev1.App, named string) (string, error) {
	if named != "" {
		if !address.ValidBranch(named) || !rules.MatchBranch(a.GetBranch(), named) {
			return "", apierr.InvalidArgument("branch", fmt.Sprintf("app %s watches %s, which %q does not match", k.App, a.GetBranch(), named))
		}
		return named, nil
	}
	if !rules.IsGlob(a.GetBranch()) {
		return a.GetBranch(), nil
	}
	r, err := s.history(ctx)
	if err != nil {
		return "", err
	}
	l, err := r.lane(ctx, k)
	if err != nil {
		return "", err
	}
	for n := l.GetLastNumber(); n > max(0, l.GetLastNumber()-20); n-- {
		d, err := s.deployment(ctx, r, k, a, l, n)
		if err != nil {
			return "", err
		}
		if d.GetBranch() != "" && rules.MatchBranch(a.GetBranch(), d.GetBranch()) {
			return d.GetBranch(), nil
		}
	}
	return "", apierr.InvalidArgument("branch", fmt.Sprintf("app %s watches %s and deployed none of those branches yet: name the branch", k.App, a.GetBranch()))
}

// deploy accepts a person's wish for a branch's latest commit.
func (s *Service) deploy(ctx context.Context, k lane.Key, branch, event string, actor *deployerv1.DeploymentActor) (int32, error) {
	if err := s.connected(ctx, k.Workspace); err != nil {
		return 0, err
	}
	ask, err := s.ask(ctx, k, event, deployerv1.Deployment_MANUAL, actor)
	if err != nil {
		return 0, err
	}
	if err := s.notOutside(ctx, &storev1.App{Workspace: k.Workspace, Repository: ask.Repository}); err != nil {
		return 0, err
	}
	ask.Branch = branch
	return s.Accept(ctx, k, ask)
}

// Accept has the lane decide on a wish and carries the decision out. Once it is decided, it does not
// fail.
func (s *Service) Accept(ctx context.Context, k lane.Key, ask lane.Request) (int32, error) {
	for {
		var d lane.Decision
		l, err := s.cfg.Dispatcher.Change(ctx, k, func(l *storev1.Lane) (err error) {
			d, err = lane.Accept(l, ask)
			return err
		})
		switch {
		case errors.Is(err, lane.ErrRetired):
			return 0, notFound(k)
		case errors.Is(err, lane.ErrBacklog):
			if err := s.flush(ctx, k); err != nil {
				return 0, err
			}
			continue
		case err != nil:
			return 0, err
		}
		// The decision is stored and the lane watched: what cannot be carried out now is carried
		// out soon, and the caller is not told to try again.
		if err := s.cfg.Dispatcher.Dispatch(ctx, k, l); err != nil {
			s.cfg.Logger.WarnContext(ctx, "accepted deployment starts a little later", logs.Err(err))
		}
		return d.Number, nil
	}
}

func (s *Service) flush(ctx context.Context, k lane.Key) error {
	l, _, err := s.cfg.Dispatcher.Get(ctx, k)
	if err != nil {
		return err
	}
	return s.cfg.Dispatcher.Flush(ctx, k, l)
}

// connected refuses a wish that cannot come true until somebody connects.
func (s *Service) connected(ctx context.Context, workspace string) error {
	c, err := s.cfg.Connections.Refresh(ctx, workspace)
	if err != nil { // auth is away: the deployment waits for it, if it must
		if c, err = s.cfg.Connections.Get(ctx, workspace); err != nil {
			return err
		}
	}
	p := c.GetPaused()
	if p == nil {
		return nil
	}
	return apierr.New(apierr.Reason(p.GetReason()), p.GetMessage())
}

// notOutside refuses an app whose repository an admin narrowed the workspace away from.
func (s *Service) notOutside(ctx context.Context, a *storev1.App) error {
	c, err := s.cfg.Connections.Get(ctx, a.GetWorkspace())
	if err != nil {
		return err
	}
	idx, err := s.Index(ctx, a.GetWorkspace(), a.GetRepository())
	if err != nil {
		return err
	}
	if t := apps.Outside(c, idx); t != nil {
		return apierr.New(apierr.Reason(t.GetReason()), t.GetMessage())
	}
	return nil
}

// within refuses a repository in a Bitbucket workspace that an admin narrowed the workspace away from.
func (s *Service) within(ctx context.Context, workspace, bitbucketWorkspace string) error {
	c, err := s.cfg.Connections.Get(ctx, workspace)
	if err == nil && !apps.Allows(c, bitbucketWorkspace) {
		err = apps.Excluded()
	}
	return err
}
