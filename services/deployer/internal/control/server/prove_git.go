package server

import (
	"context"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// Heads asks Bitbucket for branches, with git and the workspace's token.
type Heads interface {
	Heads(ctx context.Context, workspace, fullName string, want remote.Wanted) (remote.Heads, error)
}

// ProveGit lists the branches of an app's repository, as a poll would.
func (s *Server) ProveGit(ctx context.Context, req *deployerv1.ProveGitRequest) (*deployerv1.ProveGitResponse, error) {
	u, err := s.up()
	if err != nil {
		return nil, err
	}
	a, err := u.Apps.App(ctx, keyOf(req))
	if err != nil {
		return nil, fail(err)
	}
	name, err := u.Apps.FullName(ctx, req.GetWorkspace(), a.GetRepository())
	if err != nil {
		return nil, fail(err)
	}
	heads, err := u.Heads.Heads(ctx, req.GetWorkspace(), name, remote.Wanted{Branch: func(string) bool { return true }})
	if m, ok := remote.AsError(err); ok {
		reason := apierr.Reason(m.Reason)
		if _, known := apierr.Lookup(reason); !known { // a deployment's own
			reason = apierr.ReasonBitbucketUnavailable
		}
		return nil, apierr.New(reason, m.Message, apierr.WithCause(err))
	}
	if err != nil {
		return nil, fail(err)
	}
	return &deployerv1.ProveGitResponse{RepositoryFullName: name, Branches: int32(len(heads.Branches))}, nil
}
