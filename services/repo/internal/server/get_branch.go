package server

import (
	"context"

	repov1 "devpilot.io/bitbucket/proto/gen/devpilot/repo/v1"
)

// GetBranch reads one branch, live.
func (s *Server) GetBranch(ctx context.Context, req *repov1.GetBranchRequest) (*repov1.GetBranchResponse, error) {
	id, err := repositoryID(req.GetRepository())
	if err != nil {
		return nil, err
	}
	b, fullName, err := s.catalog.Branch(ctx, req.GetWorkspace(), id, req.GetBranch())
	if err != nil {
		return nil, err
	}
	return &repov1.GetBranchResponse{Branch: s.branch(b, fullName)}, nil
}
