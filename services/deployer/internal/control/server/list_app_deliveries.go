package server

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
	"devpilot.io/bitbucket/services/deployer/internal/record/rules"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// ListAppDeliveries returns the deliveries of the app's repository, with what came of them for this
// app. The page token is webhook's.
func (s *Server) ListAppDeliveries(ctx context.Context, req *deployerv1.ListAppDeliveriesRequest) (*deployerv1.ListAppDeliveriesResponse, error) {
	u, err := s.up()
	if err != nil {
		return nil, err
	}
	size, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	k := lane.Key{Workspace: req.GetWorkspace(), App: req.GetApp()}
	a, err := u.Apps.App(ctx, k)
	if err != nil {
		return nil, fail(err)
	}
	hooks, err := u.Deliveries.Webhooks(ctx, k.Workspace, []string{a.GetRepository()})
	if err != nil {
		return nil, err
	}
	hook := hooks[a.GetRepository()]
	if hook == nil {
		return &deployerv1.ListAppDeliveriesResponse{}, nil
	}
	page, err := u.Deliveries.Deliveries(ctx, &webhookv1.ListDeliveriesRequest{
		Workspace: k.Workspace, Webhook: hook.GetId(), PageSize: int32(size), PageToken: req.GetPageToken(), // at most 200
		Branch: req.GetBranch(), Commit: req.GetCommit(), After: req.GetAfter(), Before: req.GetBefore(), Outcome: req.GetOutcome(), App: a.GetId(),
	})
	if err != nil {
		return nil, err
	}
	now := time.Now()
	for _, d := range page.GetDeliveries() {
		d.Outcomes = outcomesFor(a, d, now)
	}
	return &deployerv1.ListAppDeliveriesResponse{Deliveries: page.GetDeliveries(), NextPageToken: page.GetNextPageToken()}, nil
}

// settled is how long after another app's outcome this one's may still come.
const settled = time.Minute

// outcomesFor are the outcomes of a delivery that concern an app. Outcomes are kept for the apps that
// watch a change; of a change that this app does not watch it says so.
func outcomesFor(a *storev1.App, d *webhookv1.Delivery, now time.Time) []*webhookv1.DeliveryOutcome {
	var out []*webhookv1.DeliveryOutcome
	told, others := map[int32]bool{}, map[int32]time.Time{}
	for _, o := range d.GetOutcomes() {
		if o.GetApp() == "" || o.GetApp() == a.GetId() {
			out = append(out, o)
			told[o.GetChange()] = true
		} else if at := o.GetTime().AsTime(); at.After(others[o.GetChange()]) {
			others[o.GetChange()] = at
		}
	}
	for i, c := range d.GetChanges() {
		at, decided := others[int32(i)] // there are 1,000 at most
		if told[int32(i)] || !decided { // there are 1,000 at most
			continue
		}
		o := &webhookv1.DeliveryOutcome{Change: int32(i), App: a.GetId(), Kind: webhookv1.DeliveryOutcome_IGNORED, Time: timestamppb.New(at)} // there are 1,000 at most
		kind, watched := "Branch", rules.MatchBranch(a.GetBranch(), c.GetRef())
		o.Reason = rules.ReasonBranchNotWatched
		if c.GetRefType() == webhookv1.DeliveryChange_TAG {
			kind, watched = "Tag", rules.MatchTag(a.GetRules().GetTags(), c.GetRef())
			o.Reason = rules.ReasonTagNotWatched
		}
		switch {
		case !watched:
			o.Message = fmt.Sprintf("%s %s is not watched by %s", kind, c.GetRef(), a.GetId())
		case now.Sub(at) > settled:
			o.Message = fmt.Sprintf("%s %s was not watched by %s when it was pushed", kind, c.GetRef(), a.GetId())
		default:
			continue // it is being decided
		}
		out = append(out, o)
	}
	return out
}
