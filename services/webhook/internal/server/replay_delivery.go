package server

import (
	"context"
	"fmt"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/kv"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// maxRequestID is the longest request id, in bytes.
const maxRequestID = 128

func longRequestID() error {
	return apierr.InvalidArgument("requestId", fmt.Sprintf("at most %d characters", maxRequestID))
}

// ReplayDelivery has a delivery considered again.
func (s *Server) ReplayDelivery(ctx context.Context, req *webhookv1.ReplayDeliveryRequest) (*webhookv1.ReplayDeliveryResponse, error) {
	if len(req.GetRequestId()) > maxRequestID {
		return nil, longRequestID()
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
