package server

import (
	"context"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/identity"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// CreateDeployment deploys the branch's latest commit, or the commit or tag that is named. Every member may;
// switching auto-deploy off with it changes the app, which is for admins.
func (s *Server) CreateDeployment(ctx context.Context, req *deployerv1.CreateDeploymentRequest) (*deployerv1.CreateDeploymentResponse, error) {
	u, err := s.up()
	if err != nil {
		return nil, err
	}
	if id, ok := identity.FromContext(ctx); req.GetPauseAutoDeploy() && (!ok || id.Role < identity.RoleAdmin) {
		return nil, apierr.New(apierr.ReasonPermissionDenied, "Only owners and admins can switch auto-deploy off. Deploy without it, or ask one of them.")
	}
	d, err := u.Apps.Deploy(ctx, req, actor(ctx))
	if err != nil {
		return nil, fail(err)
	}
	return &deployerv1.CreateDeploymentResponse{Deployment: d}, nil
}
