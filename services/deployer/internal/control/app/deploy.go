package app

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/address"
	"devpilot.io/bitbucket/services/deployer/internal/record/apps"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
	"devpilot.io/bitbucket/services/deployer/internal/record/rules"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	repov1 "devpilot.io/bitbucket/proto/gen/devpilot/repo/v1"
)

// Deploy makes a deployment of the branch's latest commit, or of the commit or tag that a person chose.
func (s *Service) Deploy(ctx context.Context, req *deployerv1.CreateDeploymentRequest, actor *deployerv1.DeploymentActor) (*deployerv1.Deployment, error) {
	k := lane.Key{Workspace: req.GetWorkspace(), App: req.GetApp()}
	req = proto.CloneOf(req)
	req.Commit = strings.ToLower(req.GetCommit())
	if err := checkChoice(req); err != nil {
		return nil, err
	}
	body := proto.CloneOf(req)
	body.RequestId = ""
	d, err := s.again(ctx, k, "CreateDeployment", req.GetRequestId(), body, func(event string) (lane.Request, error) {
		a, _, err := s.load(ctx, k)
		if err != nil {
			return lane.Request{}, err
		}
		branch := ""
		if req.GetTag() == "" {
			if branch, err = s.branchToDeploy(ctx, k, a, req.GetBranch()); err != nil {
				return lane.Request{}, err
			}
		}
		ask, err := s.askBitbucket(ctx, k, event, deployerv1.Deployment_MANUAL, actor)
		if err != nil {
			return lane.Request{}, err
		}
		ask.Branch, ask.Tag = branch, req.GetTag()
		if namesCommit(req) {
			ask.Pinned = true
			ask.Commit, err = s.resolve(ctx, k.Workspace, ask, req.GetCommit())
		}
		return ask, err
	})
	if err != nil || !req.GetPauseAutoDeploy() {
		return d, err
	}
	return d, s.switchOff(ctx, k, &deployerv1.AutoDeployOff{Actor: actor})
}

// namesCommit tells whether a commit or a tag is named.
func namesCommit(req *deployerv1.CreateDeploymentRequest) bool {
	return req.GetCommit() != "" || req.GetTag() != ""
}

// checkChoice refuses what names two things, or nothing that git has.
func checkChoice(req *deployerv1.CreateDeploymentRequest) error {
	switch {
	case req.GetCommit() != "" && req.GetTag() != "":
		return apierr.InvalidArgument("tag", "goes without commit: name one of the two")
	case req.GetTag() != "" && req.GetBranch() != "":
		return apierr.InvalidArgument("branch", "goes without tag: a tag is of no branch")
	case req.GetCommit() != "" && !address.ValidBeginning(req.GetCommit()):
		return apierr.InvalidArgument("commit", "must be a commit's hash, or at least the first 7 of its 40 hexadecimal digits")
	case req.GetTag() != "" && !address.ValidBranch(req.GetTag()):
		return apierr.InvalidArgument("tag", fmt.Sprintf("%q cannot be the name of a tag", req.GetTag()))
	case req.GetPauseAutoDeploy() && !namesCommit(req):
		return apierr.InvalidArgument("pauseAutoDeploy", "goes with a commit or a tag: the latest commit is what auto-deploy deploys")
	}
	return nil
}

// resolve asks Bitbucket for the commit that a person chose.
func (s *Service) resolve(ctx context.Context, workspace string, ask lane.Request, commit string) (*deployerv1.DeploymentCommit, error) {
	c, err := s.cfg.Repositories.Resolve(ctx, &repov1.ResolveCommitRequest{
		Workspace: workspace, Repository: ask.Repository, Commit: commit, Branch: ask.Branch, Tag: ask.Tag,
	})
	if err != nil {
		return nil, err
	}
	return &deployerv1.DeploymentCommit{
		Hash: c.GetHash(), Url: c.GetUrl(), Message: c.GetMessage(), AuthorName: c.GetAuthorName(), AuthorEmail: c.GetAuthorEmail(), Time: c.GetTime(),
	}, nil
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

// within refuses a repository in a Bitbucket workspace that an admin narrowed the workspace away from, as far as is
// known here. The repo service, which read the repository, has asked auth.
func (s *Service) within(ctx context.Context, workspace, bitbucketWorkspace string) error {
	c, err := s.cfg.Connections.Shown(ctx, workspace)
	if err == nil && !apps.Allows(c, bitbucketWorkspace) {
		err = apps.Excluded()
	}
	return err
}
