package server

import (
	"context"
	"errors"

	"devpilot.io/bitbucket/pkg/kv"
	authstorev1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/store/v1"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
)

// GetIntegration always answers: NOT_CONNECTED with the setup when there is nothing.
func (s *Server) GetIntegration(ctx context.Context, req *authv1.GetIntegrationRequest) (*authv1.GetIntegrationResponse, error) {
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
	return &authv1.GetIntegrationResponse{Integration: s.view(ctx, req.GetWorkspace(), rec, n)}, nil
}

// read returns the record and its revision; nil when there is none.
func (s *Server) read(ctx context.Context, workspace string) (*authstorev1.Integration, uint64, error) {
	rec, rev, err := s.cfg.Integrations.Get(ctx, workspace)
	if errors.Is(err, kv.ErrNotFound) {
		return nil, 0, nil
	}
	return rec, rev, kv.ToAPI(err)
}
