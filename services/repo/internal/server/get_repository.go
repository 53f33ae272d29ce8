package server

import (
	"context"

	repov1 "devpilot.io/bitbucket/proto/gen/devpilot/repo/v1"
)

// GetRepository reads one repository, live.
func (s *Server) GetRepository(ctx context.Context, req *repov1.GetRepositoryRequest) (*repov1.GetRepositoryResponse, error) {
	id, err := repositoryID(req.GetRepository())
	if err != nil {
		return nil, err
	}
	r, err := s.catalog.Repository(ctx, req.GetWorkspace(), id)
	if err != nil {
		return nil, err
	}
	return &repov1.GetRepositoryResponse{Repository: s.repository(r)}, nil
}
