package server

import (
	"context"

	"devpilot.io/bitbucket/pkg/kv"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// GetDelivery gets one delivery.
func (s *Server) GetDelivery(ctx context.Context, req *webhookv1.GetDeliveryRequest) (*webhookv1.GetDeliveryResponse, error) {
	rec, err := s.webhook(ctx, req.GetWorkspace(), req.GetWebhook())
	if err != nil {
		return nil, err
	}
	d, err := s.cfg.Log.Get(ctx, rec.GetWorkspace(), rec.GetId(), req.GetDelivery())
	if err != nil {
		return nil, kv.ToAPI(err)
	}
	return &webhookv1.GetDeliveryResponse{Delivery: d}, nil
}
