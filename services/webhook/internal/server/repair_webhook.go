package server

import (
	"context"

	"devpilot.io/bitbucket/pkg/kv"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// RepairWebhook compares the webhook with what Bitbucket has and puts it right.
func (s *Server) RepairWebhook(ctx context.Context, req *webhookv1.RepairWebhookRequest) (*webhookv1.RepairWebhookResponse, error) {
	rec, err := s.cfg.Registry.Repair(ctx, req.GetWorkspace(), req.GetWebhook(), req.GetEtag())
	if err != nil {
		return nil, kv.ToAPI(err)
	}
	w, err := s.show(ctx, rec)
	if err != nil {
		return nil, err
	}
	return &webhookv1.RepairWebhookResponse{Webhook: w}, nil
}
