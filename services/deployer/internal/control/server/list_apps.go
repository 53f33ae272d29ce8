package server

import (
	"context"

	"devpilot.io/bitbucket/pkg/seal/pagetoken"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// ListApps returns a page of a workspace's apps; the cursor is the last id.
func (s *Server) ListApps(ctx context.Context, req *deployerv1.ListAppsRequest) (*deployerv1.ListAppsResponse, error) {
	u, err := s.up()
	if err != nil {
		return nil, err
	}
	size, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	scope := pagetoken.Scope("ListApps", req.GetWorkspace())
	after, err := s.tokens.Decode(scope, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	list, next, err := u.Apps.List(ctx, req.GetWorkspace(), apps(ctx), string(after), size)
	if err != nil {
		return nil, fail(err)
	}
	return &deployerv1.ListAppsResponse{Apps: list, NextPageToken: s.tokens.Encode(scope, []byte(next))}, nil
}
