package server

import (
	"context"
	"log/slog"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/logs"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// RevealDeliveryBody shows a delivery's body as it came. That it was shown is logged, with who asked
// (the context's attributes); the body is not. It has no secret: those are in headers, which are not kept.
func (s *Server) RevealDeliveryBody(ctx context.Context, req *webhookv1.RevealDeliveryBodyRequest) (*webhookv1.RevealDeliveryBodyResponse, error) {
	rec, err := s.webhook(ctx, req.GetWorkspace(), req.GetWebhook())
	if err != nil {
		return nil, err
	}
	body, until, err := s.cfg.Log.Body(ctx, rec.GetWorkspace(), rec.GetId(), req.GetDelivery())
	if err != nil {
		return nil, kv.ToAPI(err)
	}
	s.cfg.Logger.InfoContext(ctx, "delivery body revealed", slog.String(logs.KeyWorkspace, rec.GetWorkspace()), slog.String(logs.KeyWebhook, rec.GetId()),
		slog.Int(logs.KeyDelivery, int(req.GetDelivery())))
	return &webhookv1.RevealDeliveryBodyResponse{Body: strings.ToValidUTF8(string(body), "\uFFFD"), ExpireTime: timestamppb.New(until)}, nil
}
