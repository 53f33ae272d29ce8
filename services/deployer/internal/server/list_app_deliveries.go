package server

import (
	"context"
	"slices"

	"devpilot.io/bitbucket/services/deployer/internal/lane"

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
		Workspace: k.Workspace, Webhook: hook.GetId(), PageSize: int32(size), PageToken: req.GetPageToken(), //nolint:gosec // at most 200
	})
	if err != nil {
		return nil, err
	}
	for _, d := range page.GetDeliveries() {
		d.Outcomes = slices.DeleteFunc(d.GetOutcomes(), func(o *webhookv1.DeliveryOutcome) bool { return o.GetApp() != "" && o.GetApp() != k.App })
	}
	return &deployerv1.ListAppDeliveriesResponse{Deliveries: page.GetDeliveries(), NextPageToken: page.GetNextPageToken()}, nil
}
