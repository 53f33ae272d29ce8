package server

import (
	"context"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/kv"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// ReplayDelivery has a delivery considered again.
func (s *Server) ReplayDelivery(ctx context.Context, req *webhookv1.ReplayDeliveryRequest) (*webhookv1.ReplayDeliveryResponse, error) {
	if err := apierr.CheckRequestID(req.GetRequestId()); err != nil {
		return nil, err
	}
	rec, err := s.webhook(ctx, req.GetWorkspace(), req.GetWebhook())
	if err != nil {
		return nil, err
	}
	d, err := s.cfg.Log.Replay(ctx, rec, req.GetDelivery(), req.GetRequestId())
	if err != nil {
		return nil, kv.ToAPI(err)
	}
	return &webhookv1.ReplayDeliveryResponse{Delivery: d}, nil
}
