package server

import (
	"context"

	"devpilot.io/bitbucket/pkg/apierr"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// UpdateApp changes an app.
func (s *Server) UpdateApp(ctx context.Context, req *deployerv1.UpdateAppRequest) (*deployerv1.UpdateAppResponse, error) {
	u, err := s.up()
	if err != nil {
		return nil, err
	}
	if req.GetApp() == nil {
		return nil, apierr.InvalidArgument("app", "give the new values")
	}
	a, err := u.Apps.Update(ctx, req, actor(ctx))
	if err != nil {
		return nil, fail(err)
	}
	return &deployerv1.UpdateAppResponse{App: a}, nil
}
