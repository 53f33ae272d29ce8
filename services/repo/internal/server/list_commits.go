package server

import (
	"context"

	repov1 "devpilot.io/bitbucket/proto/gen/devpilot/repo/v1"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/seal/pagetoken"
	"devpilot.io/bitbucket/services/repo/internal/catalog"
)

// ListCommits lists a branch's commits, live.
func (s *Server) ListCommits(ctx context.Context, req *repov1.ListCommitsRequest) (*repov1.ListCommitsResponse, error) {
	id, err := repositoryID(req.GetRepository())
	if err != nil {
		return nil, err
	}
	size, err := pagetoken.Size(req.GetPageSize(), bitbucket.MaxCommitsPage)
	if err != nil {
		return nil, err
	}
	if req.GetBranch() != "" && !bitbucket.ValidBranchName(req.GetBranch()) {
		return nil, apierr.InvalidArgument("branch", "must be the name of a branch")
	}
	scope := pagetoken.Scope("ListCommits", req.GetWorkspace(), id, req.GetBranch())
	after, err := cursor[catalog.CommitKey](s.tokens, scope, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	p, err := s.catalog.Commits(ctx, catalog.CommitQuestion{Workspace: req.GetWorkspace(), Repository: id, Branch: req.GetBranch(), After: after, Size: size})
	if err != nil {
		return nil, err
	}
	next, err := pageToken(s.tokens, scope, p.Next)
	if err != nil {
		return nil, err
	}
	resp := &repov1.ListCommitsResponse{NextPageToken: next, Branch: p.Branch}
	for _, c := range p.Commits {
		c.Message = shorten(c.Message)
		resp.Commits = append(resp.Commits, s.commit(c, p.FullName))
	}
	return resp, nil
}
