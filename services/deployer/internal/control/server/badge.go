package server

import (
	"context"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// ReadBadge tells what a badge shows to whoever has its key.
func (s *Server) ReadBadge(ctx context.Context, req *deployerv1.ReadBadgeRequest) (*deployerv1.ReadBadgeResponse, error) {
	u, err := s.up()
	if err != nil {
		return nil, err
	}
	state, err := u.Apps.Badge(ctx, req.GetKey())
	if err != nil {
		return nil, fail(err)
	}
	return &deployerv1.ReadBadgeResponse{State: state}, nil
}
