package server

import (
	"context"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	repov1 "devpilot.io/bitbucket/proto/gen/devpilot/repo/v1"

	"devpilot.io/bitbucket/pkg/seal/pagetoken"
	"devpilot.io/bitbucket/services/repo/internal/catalog"
)

// ListRepositories lists the repositories that the workspace's account can reach.
func (s *Server) ListRepositories(ctx context.Context, req *repov1.ListRepositoriesRequest) (*repov1.ListRepositoriesResponse, error) {
	size, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	if err := checkQuery(req.GetQuery()); err != nil {
		return nil, err
	}
	scope := pagetoken.Scope("ListRepositories", req.GetWorkspace(), strings.ToLower(strings.TrimSpace(req.GetQuery())))
	after, err := cursor[catalog.Key](s.tokens, scope, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	a, err := s.catalog.List(ctx, catalog.Question{
		Workspace: req.GetWorkspace(), Query: req.GetQuery(), Refresh: req.GetRefresh(), After: after, Size: size,
	})
	if err != nil {
		return nil, err
	}
	next, err := pageToken(s.tokens, scope, a.Next)
	if err != nil {
		return nil, err
	}
	resp := &repov1.ListRepositoriesResponse{
		FetchTime: timestamppb.New(a.FetchTime), Stale: a.Stale, NextPageToken: next, TotalSize: int32(a.Total),
	}
	if !a.NextRefresh.IsZero() {
		resp.NextRefreshTime = timestamppb.New(a.NextRefresh)
	}
	for _, r := range a.Repositories {
		resp.Repositories = append(resp.Repositories, s.repository(r))
	}
	resp.PartialFailures = failures(a.Failures)
	return resp, nil
}
