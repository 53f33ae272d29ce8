package server

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/seal/pagetoken"
	gatewayv1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/v1"
	"devpilot.io/bitbucket/services/gateway/internal/activity"
	"devpilot.io/bitbucket/services/gateway/internal/routes"
)

const (
	maxActorFilter = 200 // characters; names are shorter
	maxAppFilter   = 100 // characters; ids of apps are shorter
)

// ListActivity implements the RPC.
func (s *Server) ListActivity(ctx context.Context, req *gatewayv1.ListActivityRequest) (*gatewayv1.ListActivityResponse, error) {
	size, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	filter, err := activityFilter(req)
	if err != nil {
		return nil, err
	}
	scope := activityScope(req)
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
	list, next, err := s.cfg.Activity.List(ctx, req.GetWorkspace(), filter, int32(before), size)
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
			Address: a.GetAddress(), Changes: changes, Resource: a.GetResource(),
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

// activityFilter reads what of the list is asked for. All that is wrong with it is told at once.
func activityFilter(req *gatewayv1.ListActivityRequest) (activity.Filter, error) {
	f := activity.Filter{Actor: strings.TrimSpace(req.GetActor()), Action: req.GetAction(), After: timeOf(req.GetAfter()), Before: timeOf(req.GetBefore())}
	var faults apierr.Faults
	if len([]rune(f.Actor)) > maxActorFilter {
		faults.Add("actor", "at most "+strconv.Itoa(maxActorFilter)+" characters")
	}
	if f.Action != "" && !slices.ContainsFunc(routes.ActionNames(), func(name string) bool {
		kind, _, _ := strings.Cut(name, ".")
		return f.Action == name || f.Action == kind
	}) {
		faults.Add("action", "no such action; known are: "+strings.Join(routes.ActionNames(), ", ")+", and what is before the dot for all of a kind")
	}
	if len([]rune(req.GetApp())) > maxAppFilter {
		faults.Add("app", "at most "+strconv.Itoa(maxAppFilter)+" characters")
	}
	if req.GetApp() != "" {
		f.Target = routes.AppNamed(req.GetApp())
	}
	for name, t := range map[string]*timestamppb.Timestamp{"after": req.GetAfter(), "before": req.GetBefore()} {
		if t != nil && !t.IsValid() {
			faults.Add(name, "must be a time like 2026-11-22T14:15:16Z")
		}
	}
	if !f.After.IsZero() && !f.Before.IsZero() && !f.After.Before(f.Before) {
		faults.Add("before", "must be later than after")
	}
	return f, faults.Err()
}

// activityScope binds a page's token to what was asked for.
func activityScope(req *gatewayv1.ListActivityRequest) string {
	return pagetoken.Scope("activity", req.GetWorkspace(), req.GetActor(), req.GetAction(), req.GetApp(),
		timeOf(req.GetAfter()).Format(time.RFC3339Nano), timeOf(req.GetBefore()).Format(time.RFC3339Nano))
}

// timeOf is zero for a time that is not given.
func timeOf(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}
