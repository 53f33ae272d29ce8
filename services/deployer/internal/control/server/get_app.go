package server

import (
	"context"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// GetApp returns an app.
func (s *Server) GetApp(ctx context.Context, req *deployerv1.GetAppRequest) (*deployerv1.GetAppResponse, error) {
	u, err := s.up()
	if err != nil {
		return nil, err
	}
	a, err := u.Apps.Get(ctx, keyOf(req))
	if err != nil {
		return nil, fail(err)
	}
	return &deployerv1.GetAppResponse{App: a}, nil
}
