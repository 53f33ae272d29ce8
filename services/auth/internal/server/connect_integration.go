package server

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
)

// ConnectIntegration begins a handshake.
func (s *Server) ConnectIntegration(ctx context.Context, req *authv1.ConnectIntegrationRequest) (*authv1.ConnectIntegrationResponse, error) {
	v, id, err := visitor(ctx, req.GetWorkspace())
	if err != nil {
		return nil, err
	}
	if id.SubjectKind.IsProgram() {
		return nil, apierr.New(apierr.ReasonBrowserRequired, "An API key or token cannot connect an account: Bitbucket asks a person in a browser, and only who began may finish. Sign in to the console as an owner or admin and connect there.")
	}
	start, expire, err := s.cfg.Flow.Begin(ctx, v, req.GetReturnPath())
	if err != nil {
		return nil, err
	}
	return &authv1.ConnectIntegrationResponse{AuthorizeUrl: start, ExpireTime: timestamppb.New(expire)}, nil
}
