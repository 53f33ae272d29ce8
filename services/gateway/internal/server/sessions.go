package server

import (
	"context"

	"devpilot.io/bitbucket/pkg/apierr"
	gatewayv1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/v1"
	"devpilot.io/bitbucket/services/gateway/internal/routes"
)

// ListSessions implements the RPC.
func (s *Server) ListSessions(ctx context.Context, _ *gatewayv1.ListSessionsRequest) (*gatewayv1.ListSessionsResponse, error) {
	id, err := user(ctx)
	if err != nil {
		return nil, err
	}
	list, err := s.sessionsOf(ctx, id.Subject)
	if err != nil {
		return nil, err
	}
	return &gatewayv1.ListSessionsResponse{Sessions: list}, nil
}

// sessionsOf lists the living sessions of a subject.
func (s *Server) sessionsOf(ctx context.Context, subject string) ([]*gatewayv1.BrowserSession, error) {
	a, err := s.cfg.Tenants.Account(ctx, subject)
	if err != nil {
		return nil, err
	}
	var list []*gatewayv1.BrowserSession
	current := callMetadata(ctx).SessionID
	for _, e := range a.GetSessions() {
		if !s.cfg.Now().Before(e.GetEndTime().AsTime()) {
			continue
		}
		out := &gatewayv1.BrowserSession{
			Id: e.GetId(), CreateTime: e.GetCreateTime(), LastUsedTime: e.GetLastUsedTime(), EndTime: e.GetEndTime(),
			Address: e.GetAddress(), UserAgent: e.GetUserAgent(), Current: e.GetId() == current,
		}
		if e.GetProvider() != "" {
			out.Provider = s.cfg.Providers.Name(e.GetProvider())
		}
		list = append(list, out)
	}
	return list, nil
}

// EndSession implements the RPC.
func (s *Server) EndSession(ctx context.Context, req *gatewayv1.EndSessionRequest) (*gatewayv1.EndSessionResponse, error) {
	id, err := user(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.endSession(ctx, id.Subject, req.GetSession()); err != nil {
		return nil, err
	}
	s.recordFor(ctx, id, routes.ActionSignOut, "Signed a browser out.")
	return &gatewayv1.EndSessionResponse{}, nil
}

func (s *Server) endSession(ctx context.Context, subject, session string) error {
	ended, err := s.cfg.Sessions.End(ctx, subject, session)
	if err != nil {
		return err
	}
	if !ended {
		return apierr.New(apierr.ReasonSessionNotFound, "There is no such session; it may have ended before.")
	}
	return nil
}
