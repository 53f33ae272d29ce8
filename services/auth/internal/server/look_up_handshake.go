package server

import (
	"context"

	"devpilot.io/bitbucket/pkg/apierr"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
)

// LookUpHandshake tells the gateway whose handshake an id or a state is.
func (s *Server) LookUpHandshake(ctx context.Context, req *authv1.LookUpHandshakeRequest) (*authv1.LookUpHandshakeResponse, error) {
	if (req.GetHandshake() == "") == (req.GetState() == "") {
		return nil, apierr.InvalidArgument("handshake", "give either the handshake or the state")
	}
	h, err := s.cfg.Flow.LookUp(ctx, req.GetHandshake(), req.GetState())
	if err != nil {
		return nil, err
	}
	return &authv1.LookUpHandshakeResponse{
		Workspace: h.GetWorkspace(), Subject: h.GetSubject(), ReturnPath: h.GetReturnPath(), BindingName: h.GetName(),
	}, nil
}
