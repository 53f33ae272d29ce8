package server

import (
	"context"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// CheckPush tells whether a push would deploy.
func (s *Server) CheckPush(ctx context.Context, req *deployerv1.CheckPushRequest) (*deployerv1.CheckPushResponse, error) {
	u, err := s.up()
	if err != nil {
		return nil, err
	}
	out, err := u.Apps.CheckPush(ctx, req)
	if err != nil {
		return nil, fail(err)
	}
	return out, nil
}
