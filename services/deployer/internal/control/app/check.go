package app

import (
	"context"
	"fmt"
	"regexp"

	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
	"devpilot.io/bitbucket/services/deployer/internal/record/policy"
	"devpilot.io/bitbucket/services/deployer/internal/record/rules"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

var hashPattern = regexp.MustCompile(`^[0-9a-f]{40}$`)

const maxChangedPaths = 10_000 // paths of a dry run

// CheckPush tells what would come of a push, by the saved rules or by those in the request.
func (s *Service) CheckPush(ctx context.Context, req *deployerv1.CheckPushRequest) (*deployerv1.CheckPushResponse, error) {
	k := lane.Key{Workspace: req.GetWorkspace(), App: req.GetApp()}
	stored, _, err := s.load(ctx, k)
	if err != nil {
		return nil, err
	}
	a := proto.CloneOf(stored)
	if req.GetRules() != nil {
		a.Rules = req.GetRules()
	}
	if req.GetWatchedBranch() != "" {
		a.Branch = req.GetWatchedBranch()
	}
	if err := checkPush(req); err != nil {
		return nil, err
	}
	ask := lane.Request{
		Repository: a.GetRepository(), Branch: req.GetBranch(), Tag: req.GetTag(), Old: req.GetOldCommit(), Found: true, // as it is given
		Created: req.GetNewCommit() != "" && req.GetOldCommit() == "", MessageKnown: req.GetMessage() != "" || req.GetNewCommit() == "",
		Commit: &deployerv1.DeploymentCommit{Hash: req.GetNewCommit(), Message: req.GetMessage()},
	}
	push := policy.Of(nil, ask)
	push.Paths = req.GetChangedPaths()
	v, decided, err := policy.Quick(ctx, a, push)
	if err != nil {
		return nil, err
	}
	out := policy.Response(v)
	if !decided {
		if out, err = s.askWorker(ctx, a, ask, push); err != nil {
			return nil, err
		}
	}
	if out.GetDeploys() && !stored.GetAutoDeploy() {
		out.Notes = append(out.Notes, "Auto-deploy of the app is off: no push deploys until it is switched on.")
	}
	return out, nil
}

// checkPush refuses what is no push.
func checkPush(req *deployerv1.CheckPushRequest) error {
	var faults apierr.Faults
	if (req.GetBranch() == "") == (req.GetTag() == "") {
		faults.Add("branch", "name the branch or the tag that is pushed")
	}
	const whole = "give the whole hash: 40 digits and letters a to f"
	if req.GetNewCommit() != "" && !hashPattern.MatchString(req.GetNewCommit()) {
		faults.Add("newCommit", whole)
	}
	if req.GetOldCommit() != "" && !hashPattern.MatchString(req.GetOldCommit()) {
		faults.Add("oldCommit", whole)
	}
	if req.GetOldCommit() != "" && req.GetNewCommit() == "" {
		faults.Add("newCommit", "give the commit after the push too")
	}
	if len(req.GetChangedPaths()) > maxChangedPaths {
		faults.Add("changedPaths", "give at most 10,000 paths")
	}
	if req.GetWatchedBranch() != "" {
		if err := rules.CheckBranch(req.GetWatchedBranch()); err != nil {
			faults.Add("watchedBranch", err.Error())
		}
	}
	checkRules("rules", req.GetRules(), &faults)
	return faults.Err()
}

// askWorker has a worker of the app's server read the repository. Where none is there, the answer says
// so: a push would wait for one.
func (s *Service) askWorker(ctx context.Context, a *storev1.App, ask lane.Request, push policy.Push) (*deployerv1.CheckPushResponse, error) {
	a = proto.CloneOf(a)
	a.Variables, a.Hooks = nil, nil // nothing of them is asked for
	out, err := s.cfg.Workers.Check(ctx, a.GetServer(), &storev1.PushQuestion{App: a, Push: ask.Candidate()})
	if err == nil || ctx.Err() != nil {
		return out, err
	}
	s.cfg.Logger.InfoContext(ctx, "no worker answered what would come of a push", logs.Err(err))
	v, err := policy.Unread(ctx, a, push)
	if err != nil {
		return nil, err
	}
	out = policy.Response(v)
	out.Notes = append(out.Notes, fmt.Sprintf("No worker of server %s answered. A push waits for one, which decides when it has fetched the repository.", a.GetServer()))
	return out, nil
}
