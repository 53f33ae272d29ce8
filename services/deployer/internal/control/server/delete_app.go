package server

import (
	"context"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// DeleteApp deletes an app.
func (s *Server) DeleteApp(ctx context.Context, req *deployerv1.DeleteAppRequest) (*deployerv1.DeleteAppResponse, error) {
	u, err := s.up()
	if err != nil {
		return nil, err
	}
	if err := u.Apps.Delete(ctx, keyOf(req), req.GetEtag()); err != nil {
		return nil, fail(err)
	}
	return &deployerv1.DeleteAppResponse{}, nil
}
