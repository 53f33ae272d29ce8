package server

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	repov1 "devpilot.io/bitbucket/proto/gen/devpilot/repo/v1"
)

// ListTags lists a repository's tags, live.
func (s *Server) ListTags(ctx context.Context, req *repov1.ListTagsRequest) (*repov1.ListTagsResponse, error) {
	a, next, err := s.refs(ctx, "ListTags", s.catalog.Tags, req)
	if err != nil {
		return nil, err
	}
	resp := &repov1.ListTagsResponse{
		NextPageToken: next, TotalSize: int32(a.Total), FetchTime: timestamppb.New(a.FetchTime),
		PartialFailures: failures(a.Failures),
	}
	for _, t := range a.Branches {
		t.Message = shorten(t.Message)
		resp.Tags = append(resp.Tags, &repov1.Tag{Name: t.Name, Commit: s.branch(t, a.FullName).GetCommit()})
	}
	return resp, nil
}
