package server

import (
	"context"

	"devpilot.io/bitbucket/pkg/apierr"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// CreateApp saves a new app.
func (s *Server) CreateApp(ctx context.Context, req *deployerv1.CreateAppRequest) (*deployerv1.CreateAppResponse, error) {
	u, err := s.up()
	if err != nil {
		return nil, err
	}
	if req.GetApp() == nil {
		return nil, apierr.InvalidArgument("app", "give the app")
	}
	a, err := u.Apps.Create(ctx, req, actor(ctx))
	if err != nil {
		return nil, fail(err)
	}
	return &deployerv1.CreateAppResponse{App: a}, nil
}
