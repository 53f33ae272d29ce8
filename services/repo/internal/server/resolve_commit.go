package server

import (
	"context"
	"regexp"

	repov1 "devpilot.io/bitbucket/proto/gen/devpilot/repo/v1"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/services/repo/internal/catalog"
)

var partOfHash = regexp.MustCompile(`^[0-9a-f]{7,40}$`)

// ResolveCommit finds the commit that a person names.
func (s *Server) ResolveCommit(ctx context.Context, req *repov1.ResolveCommitRequest) (*repov1.ResolveCommitResponse, error) {
	id, err := repositoryID(req.GetRepository())
	if err != nil {
		return nil, err
	}
	chosen := catalog.Chosen{Commit: req.GetCommit(), Branch: req.GetBranch(), Tag: req.GetTag()}
	if chosen.Tag == "" && !partOfHash.MatchString(chosen.Commit) {
		return nil, apierr.InvalidArgument("commit", "must be a commit's hash, or at least the first 7 of its 40 hexadecimal digits")
	}
	c, fullName, err := s.catalog.Resolve(ctx, req.GetWorkspace(), id, chosen)
	if err != nil {
		return nil, err
	}
	return &repov1.ResolveCommitResponse{Commit: s.commit(c, fullName)}, nil
}
