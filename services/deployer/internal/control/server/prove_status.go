package server

import (
	"context"

	"devpilot.io/bitbucket/services/deployer/internal/record/lane"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// Statuses writes commit statuses at Bitbucket.
type Statuses interface {
	// Prove writes one to a commit of an app's repository; skipped says why none can be written here at all.
	Prove(ctx context.Context, k lane.Key, hash string) (fullName, skipped string, err error)
}

// ProveStatus writes a commit status to the live commit of an app.
func (s *Server) ProveStatus(ctx context.Context, req *deployerv1.ProveStatusRequest) (*deployerv1.ProveStatusResponse, error) {
	u, err := s.up()
	if err != nil {
		return nil, err
	}
	a, err := u.Apps.Get(ctx, keyOf(req))
	if err != nil {
		return nil, fail(err)
	}
	hash := a.GetLive().GetCommit().GetHash()
	switch {
	case hash == "":
		return &deployerv1.ProveStatusResponse{Skipped: "Nothing of the app is live yet, so there is no commit to write to."}, nil
	case !a.GetCommitStatus():
		return &deployerv1.ProveStatusResponse{Skipped: "The app's deployments are not shown at Bitbucket: its commit statuses are off."}, nil
	}
	name, skipped, err := u.Statuses.Prove(ctx, keyOf(req), hash)
	if err != nil {
		return nil, fail(err)
	}
	return &deployerv1.ProveStatusResponse{RepositoryFullName: name, Commit: hash, Skipped: skipped}, nil
}
