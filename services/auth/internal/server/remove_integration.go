package server

import (
	"context"
	"errors"
	"fmt"

	"devpilot.io/bitbucket/pkg/kv"
	authstorev1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/store/v1"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
)

// removeTries bounds RemoveIntegration against a record that changes all the time.
const removeTries = 20

// RemoveIntegration deletes and erases the integration, spare tokens and all. Asked again it erases
// again, in case that something was left.
func (s *Server) RemoveIntegration(ctx context.Context, req *authv1.RemoveIntegrationRequest) (*authv1.RemoveIntegrationResponse, error) {
	ws := req.GetWorkspace()
	if req.GetForGood() {
		if err := s.cfg.Narrowings.Remove(ctx, ws); err != nil {
			return nil, fmt.Errorf("forget what the workspace is narrowed to: %w", kv.ToAPI(err))
		}
	}
	n, err := s.narrowing(ctx, ws)
	if err != nil {
		return nil, err
	}
	err = kv.ErrConflict
	for try := 0; try < removeTries && errors.Is(err, kv.ErrConflict); try++ {
		var rec *authstorev1.Integration
		var rev uint64
		if rec, rev, err = s.read(ctx, ws); err != nil {
			return nil, err
		}
		if req.GetEtag() != "" && req.GetEtag() != etag(s.resource(ws, rec, n)) {
			return nil, changedSince()
		}
		if rec == nil {
			if err := s.cfg.Integrations.Erase(ctx, ws); err != nil {
				return nil, fmt.Errorf("erase the integration: %w", kv.ToAPI(err))
			}
			return &authv1.RemoveIntegrationResponse{Integration: s.view(ctx, ws, nil, n)}, nil
		}
		if err = s.cfg.Integrations.Remove(ctx, ws, rev); err == nil {
			s.cfg.Tokens.Changed(ctx, ws, nil, rev)
			return &authv1.RemoveIntegrationResponse{Integration: s.view(ctx, ws, nil, n), Removed: true}, nil
		}
		if errors.Is(err, kv.ErrNotFound) {
			err = kv.ErrConflict // removed by another one at this moment
		}
	}
	return nil, fmt.Errorf("remove the integration: %w", kv.ToAPI(err))
}
