package server

import (
	"context"

	"devpilot.io/bitbucket/pkg/kv"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// DismissWebhook takes a webhook that nobody uses off the list.
func (s *Server) DismissWebhook(ctx context.Context, req *webhookv1.DismissWebhookRequest) (*webhookv1.DismissWebhookResponse, error) {
	if err := s.cfg.Registry.Dismiss(ctx, req.GetWorkspace(), req.GetWebhook(), req.GetEtag()); err != nil {
		return nil, kv.ToAPI(err)
	}
	return &webhookv1.DismissWebhookResponse{}, nil
}
