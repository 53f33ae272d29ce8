package server

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	gatewayv1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// leaveTimeout bounds the second half of a removal, so that its trouble cannot eat the whole time
// of a request whose purpose is fulfilled.
const leaveTimeout = 5 * time.Second

// DisconnectIntegration implements the RPC. The tokens go first; that the webhooks cannot be read
// does not undo it, and webhook itself leaves them when it sees the change.
func (s *Server) DisconnectIntegration(ctx context.Context, req *gatewayv1.DisconnectIntegrationRequest) (*gatewayv1.DisconnectIntegrationResponse, error) {
	removed, err := s.cfg.Auth.RemoveIntegration(ctx, &authv1.RemoveIntegrationRequest{Workspace: req.GetWorkspace(), Etag: req.GetEtag()})
	if err != nil {
		return nil, err
	}
	resp := &gatewayv1.DisconnectIntegrationResponse{Integration: removed.GetIntegration()}
	ctx, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	left, err := s.cfg.Webhook.LeaveWebhooks(ctx, &webhookv1.LeaveWebhooksRequest{Workspace: req.GetWorkspace(), Time: timestamppb.New(s.cfg.Now())})
	if err != nil {
		resp.Warning = &gatewayv1.DisconnectWarning{
			Reason:  string(apierr.ReasonOf(err)),
			Message: "Bitbucket is disconnected and its tokens are deleted. Which webhooks are left on Bitbucket could not be read now; they will be listed under Webhooks in a moment.",
		}
		return resp, nil
	}
	resp.WebhooksLeft = left.GetWebhooks()
	return resp, nil
}
