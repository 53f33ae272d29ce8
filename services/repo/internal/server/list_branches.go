package server

import (
	"context"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	repov1 "devpilot.io/bitbucket/proto/gen/devpilot/repo/v1"

	"devpilot.io/bitbucket/pkg/seal/pagetoken"
	"devpilot.io/bitbucket/services/repo/internal/catalog"
)

// maxListedMessage caps each commit message of a list, in bytes: a thousand branches must fit into
// one answer. GetBranch has the whole message.
const maxListedMessage = 4 << 10

func shorten(message string) string {
	if len(message) <= maxListedMessage {
		return message
	}
	return strings.ToValidUTF8(message[:maxListedMessage], "") + "…"
}

// refsRequest asks for a page of branches or tags.
type refsRequest interface {
	GetWorkspace() string
	GetRepository() string
	GetQuery() string
	GetPageSize() int32
	GetPageToken() string
}

// refs answers it, with the next page's token.
func (s *Server) refs(ctx context.Context, method string, list func(context.Context, catalog.BranchQuestion) (catalog.BranchAnswer, error), req refsRequest) (catalog.BranchAnswer, string, error) {
	id, err := repositoryID(req.GetRepository())
	if err != nil {
		return catalog.BranchAnswer{}, "", err
	}
	size, err := pageSize(req.GetPageSize())
	if err != nil {
		return catalog.BranchAnswer{}, "", err
	}
	if err := checkQuery(req.GetQuery()); err != nil {
		return catalog.BranchAnswer{}, "", err
	}
	scope := pagetoken.Scope(method, req.GetWorkspace(), id, strings.ToLower(strings.TrimSpace(req.GetQuery())))
	after, err := cursor[catalog.BranchKey](s.tokens, scope, req.GetPageToken())
	if err != nil {
		return catalog.BranchAnswer{}, "", err
	}
	a, err := list(ctx, catalog.BranchQuestion{
		Workspace: req.GetWorkspace(), Repository: id, Query: req.GetQuery(), After: after, Size: size,
	})
	if err != nil {
		return catalog.BranchAnswer{}, "", err
	}
	next, err := pageToken(s.tokens, scope, a.Next)
	return a, next, err
}

// ListBranches lists a repository's branches, live.
func (s *Server) ListBranches(ctx context.Context, req *repov1.ListBranchesRequest) (*repov1.ListBranchesResponse, error) {
	a, next, err := s.refs(ctx, "ListBranches", s.catalog.Branches, req)
	if err != nil {
		return nil, err
	}
	resp := &repov1.ListBranchesResponse{
		NextPageToken: next, TotalSize: int32(a.Total), FetchTime: timestamppb.New(a.FetchTime),
		PartialFailures: failures(a.Failures),
	}
	for _, b := range a.Branches {
		b.Message = shorten(b.Message)
		resp.Branches = append(resp.Branches, s.branch(b, a.FullName))
	}
	return resp, nil
}
