package server

import (
	"context"

	"devpilot.io/bitbucket/pkg/kv"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// RegisterWebhook registers the webhook on Bitbucket and answers what came of it.
func (s *Server) RegisterWebhook(ctx context.Context, req *webhookv1.RegisterWebhookRequest) (*webhookv1.RegisterWebhookResponse, error) {
	rec, err := s.cfg.Registry.Register(ctx, req.GetWorkspace(), req.GetWebhook(), req.GetEtag())
	if err != nil {
		return nil, kv.ToAPI(err)
	}
	w, err := s.show(ctx, rec)
	if err != nil {
		return nil, err
	}
	return &webhookv1.RegisterWebhookResponse{Webhook: w}, nil
}
