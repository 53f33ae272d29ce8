package server

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
)

// ConnectIntegration begins a handshake.
func (s *Server) ConnectIntegration(ctx context.Context, req *authv1.ConnectIntegrationRequest) (*authv1.ConnectIntegrationResponse, error) {
	v, _, err := visitor(ctx, req.GetWorkspace())
	if err != nil {
		return nil, err
	}
	start, expire, err := s.cfg.Flow.Begin(ctx, v, req.GetReturnPath(), req.GetEvenIfAppsStop())
	if err != nil {
		return nil, err
	}
	return &authv1.ConnectIntegrationResponse{AuthorizeUrl: start, ExpireTime: timestamppb.New(expire)}, nil
}
