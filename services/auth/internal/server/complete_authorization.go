package server

import (
	"context"
	"fmt"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/kv"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	"devpilot.io/bitbucket/services/auth/internal/connect"
)

// CompleteAuthorization finishes the connect that Bitbucket redirects back from.
func (s *Server) CompleteAuthorization(ctx context.Context, req *authv1.CompleteAuthorizationRequest) (*authv1.CompleteAuthorizationResponse, error) {
	if req.GetState() == "" {
		return nil, apierr.InvalidArgument("state", "give the state that Bitbucket sent back")
	}
	v, id, err := visitor(ctx, req.GetWorkspace())
	if err != nil {
		return nil, err
	}
	who := id.Label
	if who == "" {
		who = id.Subject
	}
	n, err := s.narrowing(ctx, req.GetWorkspace())
	if err != nil {
		return nil, err
	}
	rec, returnPath, err := s.cfg.Flow.Complete(ctx, connect.Callback{
		State: req.GetState(), Code: req.GetCode(), Error: req.GetError(), Bindings: req.GetBindings(), Used: req.GetUsed(),
	}, v, who)
	if err != nil {
		return nil, fmt.Errorf("complete the authorization: %w", kv.ToAPI(err))
	}
	return &authv1.CompleteAuthorizationResponse{Integration: s.view(ctx, req.GetWorkspace(), rec, n), ReturnPath: returnPath}, nil
}
