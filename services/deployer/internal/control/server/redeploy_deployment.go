package server

import (
	"context"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// RedeployDeployment deploys an earlier deployment's commit again.
func (s *Server) RedeployDeployment(ctx context.Context, req *deployerv1.RedeployDeploymentRequest) (*deployerv1.RedeployDeploymentResponse, error) {
	u, err := s.up()
	if err != nil {
		return nil, err
	}
	d, err := u.Apps.Redeploy(ctx, req, actor(ctx))
	if err != nil {
		return nil, fail(err)
	}
	return &deployerv1.RedeployDeploymentResponse{Deployment: d}, nil
}
