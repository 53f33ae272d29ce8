package server

import (
	"context"

	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// GetWebhook gets a webhook.
func (s *Server) GetWebhook(ctx context.Context, req *webhookv1.GetWebhookRequest) (*webhookv1.GetWebhookResponse, error) {
	rec, err := s.webhook(ctx, req.GetWorkspace(), req.GetWebhook())
	if err != nil {
		return nil, err
	}
	w, err := s.show(ctx, rec)
	if err != nil {
		return nil, err
	}
	return &webhookv1.GetWebhookResponse{Webhook: w}, nil
}
