package server

import (
	"context"
	"strconv"
	"strings"

	"devpilot.io/bitbucket/pkg/seal/pagetoken"
	gatewayv1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/v1"
)

// ListActivity implements the RPC.
func (s *Server) ListActivity(ctx context.Context, req *gatewayv1.ListActivityRequest) (*gatewayv1.ListActivityResponse, error) {
	size, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	scope := pagetoken.Scope("activity", req.GetWorkspace())
	cursor, err := s.cfg.Pages.Decode(scope, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	var before int64
	if len(cursor) > 0 {
		if before, err = strconv.ParseInt(string(cursor), 10, 32); err != nil {
			return nil, err // a token that we sealed ourselves
		}
	}
	list, next, err := s.cfg.Activity.List(ctx, req.GetWorkspace(), int32(before), size)
	if err != nil {
		return nil, err
	}
	resp := &gatewayv1.ListActivityResponse{}
	for _, a := range list {
		var changes []*gatewayv1.ActivityChange
		for _, c := range a.GetChanges() {
			changes = append(changes, &gatewayv1.ActivityChange{Field: c.GetField(), Before: c.GetBefore(), After: c.GetAfter()})
		}
		resp.Activity = append(resp.Activity, &gatewayv1.ActivityRecord{
			Address: a.GetAddress(), Changes: changes,
			Number: a.GetNumber(), Time: a.GetTime(), ActorLabel: a.GetActorLabel(), ActorKind: strings.ToUpper(a.GetActorKind()),
			Action: a.GetAction(), Target: a.GetTarget(), Succeeded: a.GetSucceeded(),
			Reason: a.GetReason(), Message: a.GetMessage(), RequestId: a.GetRequestId(),
		})
	}
	if next > 0 {
		resp.NextPageToken = s.cfg.Pages.Encode(scope, []byte(strconv.Itoa(int(next))))
	}
	return resp, nil
}
