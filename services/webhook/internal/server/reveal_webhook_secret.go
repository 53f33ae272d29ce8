package server

import (
	"context"
	"log/slog"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/logs"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// RevealWebhookSecret shows the secret to enter at Bitbucket. That it was shown is logged, with who
// asked (the context's attributes); the secret is not.
func (s *Server) RevealWebhookSecret(ctx context.Context, req *webhookv1.RevealWebhookSecretRequest) (*webhookv1.RevealWebhookSecretResponse, error) {
	rec, secret, err := s.cfg.Registry.Reveal(ctx, req.GetWorkspace(), req.GetWebhook())
	if err != nil {
		return nil, kv.ToAPI(err)
	}
	s.cfg.Logger.InfoContext(ctx, "webhook secret revealed", slog.String(logs.KeyWorkspace, rec.GetWorkspace()), slog.String(logs.KeyWebhook, rec.GetId()))
	return &webhookv1.RevealWebhookSecretResponse{Secret: secret.Reveal(), Url: s.cfg.Registry.View().Address.URL(rec.GetId())}, nil
}
