package server

import (
	"context"

	repov1 "devpilot.io/bitbucket/proto/gen/devpilot/repo/v1"
)

// GetHead reads one repository and the head of one of its branches, live.
func (s *Server) GetHead(ctx context.Context, req *repov1.GetHeadRequest) (*repov1.GetHeadResponse, error) {
	id, err := repositoryID(req.GetRepository())
	if err != nil {
		return nil, err
	}
	r, head, err := s.catalog.Head(ctx, req.GetWorkspace(), id, req.GetBranch())
	if err != nil {
		return nil, err
	}
	resp := &repov1.GetHeadResponse{Repository: s.repository(r)}
	if head.Known {
		resp.Hash = &head.Hash
	}
	return resp, nil
}
