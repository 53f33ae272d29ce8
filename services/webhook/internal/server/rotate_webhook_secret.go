package server

import (
	"context"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/kv"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// RotateWebhookSecret makes a new secret; the old one is accepted for a while.
func (s *Server) RotateWebhookSecret(ctx context.Context, req *webhookv1.RotateWebhookSecretRequest) (*webhookv1.RotateWebhookSecretResponse, error) {
	if err := apierr.CheckRequestID(req.GetRequestId()); err != nil {
		return nil, err
	}
	rec, err := s.cfg.Registry.Rotate(ctx, req.GetWorkspace(), req.GetWebhook(), req.GetEtag(), req.GetRequestId())
	if err != nil {
		return nil, kv.ToAPI(err)
	}
	w, err := s.show(ctx, rec)
	if err != nil {
		return nil, err
	}
	return &webhookv1.RotateWebhookSecretResponse{Webhook: w}, nil
}
