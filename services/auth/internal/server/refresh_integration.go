package server

import (
	"context"
	"fmt"

	"devpilot.io/bitbucket/pkg/kv"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
)

// RefreshIntegration renews the tokens now.
func (s *Server) RefreshIntegration(ctx context.Context, req *authv1.RefreshIntegrationRequest) (*authv1.RefreshIntegrationResponse, error) {
	n, err := s.narrowing(ctx, req.GetWorkspace())
	if err != nil {
		return nil, err
	}
	rec, err := s.cfg.Tokens.Refresh(ctx, req.GetWorkspace())
	if err != nil {
		return nil, fmt.Errorf("refresh the integration: %w", kv.ToAPI(err))
	}
	return &authv1.RefreshIntegrationResponse{Integration: s.view(ctx, req.GetWorkspace(), rec, n)}, nil
}
