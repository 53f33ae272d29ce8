package server

import (
	"context"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// RemoveWorkspace deletes all that there is of a workspace.
func (s *Server) RemoveWorkspace(ctx context.Context, req *deployerv1.RemoveWorkspaceRequest) (*deployerv1.RemoveWorkspaceResponse, error) {
	u, err := s.up()
	if err != nil {
		return nil, err
	}
	r, err := u.Apps.RemoveWorkspace(ctx, req.GetWorkspace())
	if err != nil {
		return nil, fail(err)
	}
	return &deployerv1.RemoveWorkspaceResponse{Left: int32(min(r.Left, 1<<30)), ServersAway: r.Away}, nil
}
