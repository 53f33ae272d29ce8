package server

import (
	"context"
	"log/slog"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/rpc"
	"devpilot.io/bitbucket/pkg/seal/pagetoken"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	gatewaystorev1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/store/v1"
	gatewayv1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/v1"
	"devpilot.io/bitbucket/services/gateway/internal/activity"
	"devpilot.io/bitbucket/services/gateway/internal/routes"
	"devpilot.io/bitbucket/services/gateway/internal/tenant"
)

func (s *Server) memberProto(m *gatewaystorev1.TeamMember) *gatewayv1.Member {
	if m == nil {
		return nil
	}
	out := &gatewayv1.Member{Id: m.GetSubject(), Label: m.GetLabel(), Email: m.GetEmail(), Role: rolesByWord[tenant.RoleOf(m)], CreateTime: m.GetCreateTime()}
	if role, err := identity.ParseRole(m.GetRuledRole()); err == nil {
		out.ProviderRole = rolesByWord[role]
	}
	if m.GetProvider() != "" {
		out.Provider = s.cfg.Providers.Name(m.GetProvider())
	}
	return out
}

// ListMembers implements the RPC.
func (s *Server) ListMembers(ctx context.Context, req *gatewayv1.ListMembersRequest) (*gatewayv1.ListMembersResponse, error) {
	size, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	scope := pagetoken.Scope("members", req.GetWorkspace())
	after, err := s.cfg.Pages.Decode(scope, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	list, more, err := s.cfg.Tenants.MembersAfter(ctx, req.GetWorkspace(), string(after), size)
	if err != nil {
		return nil, err
	}
	resp := &gatewayv1.ListMembersResponse{}
	for _, m := range list {
		resp.Members = append(resp.Members, s.memberProto(m))
	}
	if more {
		resp.NextPageToken = s.cfg.Pages.Encode(scope, []byte(list[len(list)-1].GetSubject()))
	}
	return resp, nil
}

// SetMemberRole implements the RPC.
func (s *Server) SetMemberRole(ctx context.Context, req *gatewayv1.SetMemberRoleRequest) (*gatewayv1.SetMemberRoleResponse, error) {
	id, err := user(ctx)
	if err != nil {
		return nil, err
	}
	var faults apierr.Faults
	role := roleOf(req.GetRole())
	if role == identity.RoleNone {
		faults.Add("role", identity.RoleChoices)
	}
	faults.RequestID(req.GetRequestId())
	if err := faults.Err(); err != nil {
		return nil, err
	}
	m, err := s.cfg.Tenants.ChangeRole(ctx, req.GetWorkspace(), req.GetMember(), role, tenant.By{Subject: id.Subject, Role: id.Role})
	if err != nil {
		return nil, err
	}
	return &gatewayv1.SetMemberRoleResponse{Member: s.memberProto(m)}, nil
}

// RemoveMember implements the RPC.
func (s *Server) RemoveMember(ctx context.Context, req *gatewayv1.RemoveMemberRequest) (*gatewayv1.RemoveMemberResponse, error) {
	id, err := user(ctx)
	if err != nil {
		return nil, err
	}
	m, err := s.cfg.Tenants.Member(ctx, req.GetWorkspace(), req.GetMember())
	if err != nil {
		return nil, err
	}
	if err := s.cfg.Tenants.RemoveMember(ctx, req.GetWorkspace(), req.GetMember(), tenant.By{Subject: id.Subject, Role: id.Role}); err != nil {
		return nil, err
	}
	s.connectorLeft(ctx, id, req.GetWorkspace(), req.GetMember())
	return &gatewayv1.RemoveMemberResponse{Member: s.memberProto(m)}, nil
}

// connectorLeft records that who is removed had connected Bitbucket. The integration itself says it from now on: a
// record that is lost leaves owners no less told.
func (s *Server) connectorLeft(ctx context.Context, id identity.Identity, workspace, member string) {
	got, err := s.cfg.Auth.GetIntegration(ctx, &authv1.GetIntegrationRequest{Workspace: workspace})
	if err != nil {
		s.cfg.Logger.WarnContext(ctx, "whether the member had connected Bitbucket is not known", slog.String(logs.KeyWorkspace, workspace), logs.Err(err))
		return
	}
	i := got.GetIntegration()
	if i.GetConnectedById() != member || i.GetWarning() == "" {
		return
	}
	s.cfg.Recorder.Record(ctx, activity.Entry{
		Workspace: workspace, Time: s.cfg.Now(), Actor: id, Action: routes.ActionConnectorLeft, Target: routes.BitbucketIntegration, Resource: "integrations/bitbucket",
		Message: i.GetWarning(), RequestID: rpc.RequestID(ctx), Address: callMetadata(ctx).ClientAddress,
	})
}

// ListMemberSessions implements the RPC.
func (s *Server) ListMemberSessions(ctx context.Context, req *gatewayv1.ListMemberSessionsRequest) (*gatewayv1.ListMemberSessionsResponse, error) {
	if _, err := s.cfg.Tenants.Member(ctx, req.GetWorkspace(), req.GetMember()); err != nil {
		return nil, err
	}
	list, err := s.sessionsOf(ctx, req.GetMember())
	if err != nil {
		return nil, err
	}
	return &gatewayv1.ListMemberSessionsResponse{Sessions: list}, nil
}

// EndMemberSession implements the RPC.
func (s *Server) EndMemberSession(ctx context.Context, req *gatewayv1.EndMemberSessionRequest) (*gatewayv1.EndMemberSessionResponse, error) {
	m, err := s.cfg.Tenants.Member(ctx, req.GetWorkspace(), req.GetMember())
	if err != nil {
		return nil, err
	}
	if err := s.endSession(ctx, req.GetMember(), req.GetSession()); err != nil {
		return nil, err
	}
	return &gatewayv1.EndMemberSessionResponse{Member: s.memberProto(m)}, nil
}
