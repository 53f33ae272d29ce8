package server

import (
	"context"

	"devpilot.io/bitbucket/pkg/kv"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// RemoveWorkspace says how far a workspace's webhooks are removed, and forgets it when asked to.
func (s *Server) RemoveWorkspace(ctx context.Context, req *webhookv1.RemoveWorkspaceRequest) (*webhookv1.RemoveWorkspaceResponse, error) {
	if req.GetErase() {
		return &webhookv1.RemoveWorkspaceResponse{}, kv.ToAPI(s.cfg.Registry.EraseWorkspace(ctx, req.GetWorkspace()))
	}
	r, err := s.cfg.Registry.Removal(ctx, req.GetWorkspace())
	if err != nil {
		return nil, kv.ToAPI(err)
	}
	left, err := s.showAll(ctx, r.Left)
	if err != nil {
		return nil, err
	}
	return &webhookv1.RemoveWorkspaceResponse{Waiting: int32(min(r.Waiting, 1<<30)), Left: left}, nil
}
