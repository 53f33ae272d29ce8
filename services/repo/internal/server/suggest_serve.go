package server

import (
	"context"
	"regexp"

	repov1 "devpilot.io/bitbucket/proto/gen/devpilot/repo/v1"

	"devpilot.io/bitbucket/pkg/apierr"
)

var fullHash = regexp.MustCompile(`^[0-9a-f]{40}$`)

// SuggestServe suggests which directory of a repository to serve.
func (s *Server) SuggestServe(ctx context.Context, req *repov1.SuggestServeRequest) (*repov1.SuggestServeResponse, error) {
	id, err := repositoryID(req.GetRepository())
	if err != nil {
		return nil, err
	}
	if !fullHash.MatchString(req.GetCommit()) {
		return nil, apierr.InvalidArgument("commit", "must be a commit's whole hash, 40 hexadecimal digits")
	}
	list, err := s.catalog.SuggestServe(ctx, req.GetWorkspace(), id, req.GetCommit())
	if err != nil {
		return nil, err
	}
	resp := &repov1.SuggestServeResponse{}
	for _, x := range list {
		resp.Suggestions = append(resp.Suggestions, &repov1.ServeSuggestion{Directory: x.Directory, Found: x.Found, Built: x.Built, Message: x.Message})
	}
	return resp, nil
}
