package server

import (
	"context"

	repov1 "devpilot.io/bitbucket/proto/gen/devpilot/repo/v1"
)

// ListBitbucketWorkspaces lists what a workspace can be narrowed to.
func (s *Server) ListBitbucketWorkspaces(ctx context.Context, req *repov1.ListBitbucketWorkspacesRequest) (*repov1.ListBitbucketWorkspacesResponse, error) {
	list, err := s.catalog.BitbucketWorkspaces(ctx, req.GetWorkspace())
	if err != nil {
		return nil, err
	}
	resp := &repov1.ListBitbucketWorkspacesResponse{}
	for _, w := range list {
		resp.BitbucketWorkspaces = append(resp.BitbucketWorkspaces, &repov1.BitbucketWorkspace{Id: w.UUID, Slug: w.Slug, Name: w.Name, Excluded: w.Excluded})
	}
	return resp, nil
}
