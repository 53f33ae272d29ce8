package server

import (
	"context"

	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/seal/pagetoken"
	"devpilot.io/bitbucket/services/deployer/internal/control/app"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// ListWorkspaceDeployments returns a page of the history of all apps; the cursor is the last deployment.
func (s *Server) ListWorkspaceDeployments(ctx context.Context, req *deployerv1.ListWorkspaceDeploymentsRequest) (*deployerv1.ListWorkspaceDeploymentsResponse, error) {
	u, err := s.up()
	if err != nil {
		return nil, err
	}
	size, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	question := proto.CloneOf(req)
	question.PageSize, question.PageToken = 0, ""
	asked, err := proto.MarshalOptions{Deterministic: true}.Marshal(question)
	if err != nil {
		return nil, apierr.New(apierr.ReasonInvalidArgument, "The question cannot be read.", apierr.WithCause(err))
	}
	scope := pagetoken.Scope("ListWorkspaceDeployments", string(asked))
	cursor, err := s.tokens.Decode(scope, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	after, err := app.ParsePlace(string(cursor))
	if err != nil {
		return nil, pagetoken.Invalid(err)
	}
	f := app.Filter{Apps: apps(ctx), States: req.GetStates(), Branch: req.GetBranch(), Trigger: req.GetTrigger(), Commit: req.GetCommit(), After: req.GetAfter(), Before: req.GetBefore()}
	ds, next, err := u.Apps.WorkspaceDeployments(ctx, req.GetWorkspace(), f, after, size)
	if err != nil {
		return nil, fail(err)
	}
	resp := &deployerv1.ListWorkspaceDeploymentsResponse{Deployments: ds}
	if next != nil {
		resp.NextPageToken = s.tokens.Encode(scope, []byte(next.String()))
	}
	return resp, nil
}
