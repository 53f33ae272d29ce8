package server

import (
	"context"
	"time"

	"devpilot.io/bitbucket/pkg/kv"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// LeaveWebhooks marks a workspace's webhooks as left on Bitbucket.
func (s *Server) LeaveWebhooks(ctx context.Context, req *webhookv1.LeaveWebhooksRequest) (*webhookv1.LeaveWebhooksResponse, error) {
	var at time.Time
	if req.GetTime() != nil {
		at = req.GetTime().AsTime()
	}
	recs, err := s.cfg.Registry.Leave(ctx, req.GetWorkspace(), at)
	if err != nil {
		return nil, kv.ToAPI(err)
	}
	webhooks, err := s.showAll(ctx, recs)
	if err != nil {
		return nil, err
	}
	return &webhookv1.LeaveWebhooksResponse{Webhooks: webhooks}, nil
}
