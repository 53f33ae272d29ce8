package server

import (
	"context"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// CreateDeployment deploys the branch's latest commit.
func (s *Server) CreateDeployment(ctx context.Context, req *deployerv1.CreateDeploymentRequest) (*deployerv1.CreateDeploymentResponse, error) {
	u, err := s.up()
	if err != nil {
		return nil, err
	}
	d, err := u.Apps.Deploy(ctx, req, actor(ctx))
	if err != nil {
		return nil, fail(err)
	}
	return &deployerv1.CreateDeploymentResponse{Deployment: d}, nil
}
