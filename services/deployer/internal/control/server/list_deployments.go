package server

import (
	"context"
	"strconv"

	"devpilot.io/bitbucket/pkg/seal/pagetoken"
	"devpilot.io/bitbucket/services/deployer/internal/control/app"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// ListDeployments returns a page of an app's history; the cursor is the number to go on below.
func (s *Server) ListDeployments(ctx context.Context, req *deployerv1.ListDeploymentsRequest) (*deployerv1.ListDeploymentsResponse, error) {
	u, err := s.up()
	if err != nil {
		return nil, err
	}
	size, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	scope := pagetoken.Scope("ListDeployments", req.GetWorkspace(), req.GetApp(), req.GetState().String(), req.GetBranch(), req.GetTrigger().String(),
		req.GetCommit(), req.GetAfter().String(), req.GetBefore().String())
	cursor, err := s.tokens.Decode(scope, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	below := int64(0)
	if len(cursor) > 0 {
		if below, err = strconv.ParseInt(string(cursor), 10, 32); err != nil {
			return nil, pagetoken.Invalid(err)
		}
	}
	f := app.Filter{Branch: req.GetBranch(), Trigger: req.GetTrigger(), Commit: req.GetCommit(), After: req.GetAfter(), Before: req.GetBefore()}
	if state := req.GetState(); state != deployerv1.Deployment_STATE_UNSPECIFIED {
		f.States = []deployerv1.Deployment_State{state}
	}
	ds, next, err := u.Apps.Deployments(ctx, keyOf(req), f, int32(below), size)
	if err != nil {
		return nil, fail(err)
	}
	resp := &deployerv1.ListDeploymentsResponse{Deployments: ds}
	if next > 0 {
		resp.NextPageToken = s.tokens.Encode(scope, strconv.AppendInt(nil, int64(next), 10))
	}
	return resp, nil
}
