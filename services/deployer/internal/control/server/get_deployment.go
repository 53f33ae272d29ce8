package server

import (
	"context"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// GetDeployment returns a deployment.
func (s *Server) GetDeployment(ctx context.Context, req *deployerv1.GetDeploymentRequest) (*deployerv1.GetDeploymentResponse, error) {
	u, err := s.up()
	if err != nil {
		return nil, err
	}
	d, err := u.Apps.Deployment(ctx, keyOf(req), req.GetNumber())
	if err != nil {
		return nil, fail(err)
	}
	return &deployerv1.GetDeploymentResponse{Deployment: d}, nil
}
