package server

import (
	"context"

	"google.golang.org/protobuf/types/known/durationpb"

	"devpilot.io/bitbucket/pkg/apierr"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
)

// BeginAuthorization turns a visit of the start page into the redirect to Bitbucket.
func (s *Server) BeginAuthorization(ctx context.Context, req *authv1.BeginAuthorizationRequest) (*authv1.BeginAuthorizationResponse, error) {
	if req.GetHandshake() == "" {
		return nil, apierr.InvalidArgument("handshake", "name the handshake")
	}
	v, _, err := visitor(ctx, req.GetWorkspace())
	if err != nil {
		return nil, err
	}
	authorizeURL, a, err := s.cfg.Flow.Authorize(ctx, req.GetHandshake(), v)
	if err != nil {
		return nil, err
	}
	return &authv1.BeginAuthorizationResponse{
		AuthorizeUrl: authorizeURL, BindingName: a.BindingName, Binding: a.Binding, Life: durationpb.New(a.Life),
	}, nil
}
