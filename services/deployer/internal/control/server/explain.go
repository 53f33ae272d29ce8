package server

import (
	"context"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// Explain tells why a push did or did not deploy.
func (s *Server) Explain(ctx context.Context, req *deployerv1.ExplainRequest) (*deployerv1.ExplainResponse, error) {
	u, err := s.up()
	if err != nil {
		return nil, err
	}
	e, err := u.Apps.Explain(ctx, req)
	if err != nil {
		return nil, fail(err)
	}
	return &deployerv1.ExplainResponse{Explanation: e}, nil
}
