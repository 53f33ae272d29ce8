package server

import (
	"context"

	"devpilot.io/bitbucket/pkg/kv"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
	"devpilot.io/bitbucket/services/webhook/internal/delivery"
)

// ListDeliveries lists what came to a webhook, the newest first.
func (s *Server) ListDeliveries(ctx context.Context, req *webhookv1.ListDeliveriesRequest) (*webhookv1.ListDeliveriesResponse, error) {
	rec, err := s.webhook(ctx, req.GetWorkspace(), req.GetWebhook())
	if err != nil {
		return nil, err
	}
	filter := delivery.Filter{Branch: req.GetBranch(), Commit: req.GetCommit(), Outcome: req.GetOutcome(), Request: req.GetRequestUuid(), Deployment: req.GetDeployment()}
	if req.GetOutcome() != webhookv1.Delivery_RESULT_UNSPECIFIED || req.GetDeployment() != 0 {
		filter.App = req.GetApp()
	}
	if req.GetAfter() != nil {
		filter.After = req.GetAfter().AsTime()
	}
	if req.GetBefore() != nil {
		filter.Before = req.GetBefore().AsTime()
	}
	page, next, err := s.cfg.Log.List(ctx, delivery.Query{
		Workspace: rec.GetWorkspace(), Webhook: rec.GetId(), Refused: req.GetRefused(), Filter: filter,
		PageSize: req.GetPageSize(), PageToken: req.GetPageToken(),
	})
	if err != nil {
		return nil, kv.ToAPI(err)
	}
	return &webhookv1.ListDeliveriesResponse{Deliveries: page, NextPageToken: next}, nil
}
