package server

import (
	"context"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// CancelDeployment stops a deployment.
func (s *Server) CancelDeployment(ctx context.Context, req *deployerv1.CancelDeploymentRequest) (*deployerv1.CancelDeploymentResponse, error) {
	u, err := s.up()
	if err != nil {
		return nil, err
	}
	d, err := u.Apps.Cancel(ctx, req, actor(ctx))
	if err != nil {
		return nil, fail(err)
	}
	return &deployerv1.CancelDeploymentResponse{Deployment: d}, nil
}
