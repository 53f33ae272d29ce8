package server

import (
	"context"
	"fmt"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/kv"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
	"devpilot.io/bitbucket/services/webhook/internal/delivery"
)

// ReplayDeliveries has a range of deliveries considered again.
func (s *Server) ReplayDeliveries(ctx context.Context, req *webhookv1.ReplayDeliveriesRequest) (*webhookv1.ReplayDeliveriesResponse, error) {
	if err := apierr.CheckRequestID(req.GetRequestId()); err != nil {
		return nil, err
	}
	first, last := req.GetFirst(), req.GetLast()
	switch {
	case first < 1:
		return nil, apierr.InvalidArgument("first", "deliveries are numbered from 1")
	case last < first:
		return nil, apierr.InvalidArgument("last", "is before the first")
	case int64(last)-int64(first) >= delivery.MaxReplays:
		return nil, apierr.InvalidArgument("last", fmt.Sprintf("at most %d deliveries at a time", delivery.MaxReplays))
	}
	rec, err := s.webhook(ctx, req.GetWorkspace(), req.GetWebhook())
	if err != nil {
		return nil, err
	}
	done, skipped, err := s.cfg.Log.ReplayRange(ctx, rec, first, last, req.GetRequestId())
	if err != nil {
		return nil, kv.ToAPI(err)
	}
	return &webhookv1.ReplayDeliveriesResponse{Deliveries: done, Skipped: skipped}, nil
}
