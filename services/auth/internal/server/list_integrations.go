package server

import (
	"context"

	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
)

// ListIntegrations lists one entry per provider, and there is one provider.
func (s *Server) ListIntegrations(ctx context.Context, req *authv1.ListIntegrationsRequest) (*authv1.ListIntegrationsResponse, error) {
	if err := needWorkspace(req.GetWorkspace()); err != nil {
		return nil, err
	}
	rec, _, err := s.read(ctx, req.GetWorkspace())
	if err != nil {
		return nil, err
	}
	n, err := s.narrowing(ctx, req.GetWorkspace())
	if err != nil {
		return nil, err
	}
	return &authv1.ListIntegrationsResponse{Integrations: []*authv1.Integration{s.view(ctx, req.GetWorkspace(), rec, n)}}, nil
}
