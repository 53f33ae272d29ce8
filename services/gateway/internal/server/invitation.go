package server

import (
	"context"
	"crypto/sha256"
	"net/mail"
	"strings"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/pasted"
	"devpilot.io/bitbucket/pkg/seal"
	gatewaystorev1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/store/v1"
	gatewayv1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/v1"
	"devpilot.io/bitbucket/services/gateway/internal/tenant"
)

const maxEmail = 254 // RFC 5321 section 4.5.3.1.3, without the brackets

func invitationProto(i *gatewaystorev1.Invitation) *gatewayv1.Invitation {
	role, err := identity.ParseRole(i.GetRole())
	if err != nil {
		role = identity.RoleNone
	}
	return &gatewayv1.Invitation{
		Id: i.GetId(), Email: i.GetEmail(), Role: rolesByWord[role], CreatedBy: i.GetCreatedByLabel(), CreateTime: i.GetCreateTime(), ExpireTime: i.GetExpireTime(),
	}
}

// ListInvitations implements the RPC.
func (s *Server) ListInvitations(ctx context.Context, req *gatewayv1.ListInvitationsRequest) (*gatewayv1.ListInvitationsResponse, error) {
	list, err := s.cfg.Tenants.Invitations(ctx, req.GetWorkspace())
	if err != nil {
		return nil, err
	}
	resp := &gatewayv1.ListInvitationsResponse{}
	for _, i := range list {
		resp.Invitations = append(resp.Invitations, invitationProto(i))
	}
	return resp, nil
}

// CreateInvitation implements the RPC.
func (s *Server) CreateInvitation(ctx context.Context, req *gatewayv1.CreateInvitationRequest) (*gatewayv1.CreateInvitationResponse, error) {
	id, err := user(ctx)
	if err != nil {
		return nil, err
	}
	n := tenant.NewInvitation{
		Workspace: req.GetWorkspace(), Email: strings.ToLower(pasted.Line(req.GetEmail())), Role: identity.RoleMember,
		By: tenant.Subject{ID: id.Subject, Label: id.Label}, Token: tenant.NewInvitationToken(req.GetWorkspace()),
	}
	if req.GetRole() != gatewayv1.Role_NAME_UNSPECIFIED {
		n.Role = roleOf(req.GetRole())
	}
	var faults apierr.Faults
	if a, err := mail.ParseAddress(n.Email); err != nil || a.Address != n.Email || len(n.Email) > maxEmail {
		faults.Add("email", "an address like jane@example.com")
	}
	if n.Role == identity.RoleNone {
		faults.Add("role", identity.RoleChoices)
	}
	faults.RequestID(req.GetRequestId())
	if err := faults.Err(); err != nil {
		return nil, err
	}
	if err := (tenant.By{Subject: id.Subject, Role: id.Role}).Over(req.GetWorkspace(), n.Role); err != nil {
		return nil, err
	}
	if req.GetValidateOnly() {
		return &gatewayv1.CreateInvitationResponse{Invitation: &gatewayv1.Invitation{Email: n.Email, Role: rolesByWord[n.Role]}}, nil
	}
	made, token, err := s.invite(ctx, n, req.GetRequestId())
	if err != nil {
		return nil, err
	}
	return &gatewayv1.CreateInvitationResponse{Invitation: invitationProto(made), Url: s.cfg.PublicURL + "/sign-in#invitation=" + token.Reveal()}, nil
}

// invite makes the invitation, or finds the one that the same request made before.
func (s *Server) invite(ctx context.Context, n tenant.NewInvitation, requestID string) (*gatewaystorev1.Invitation, seal.Secret, error) {
	if requestID == "" {
		made, err := s.cfg.Tenants.Invite(ctx, n)
		return made, n.Token, err
	}
	sum := sha256.Sum256([]byte(n.Workspace + "\n" + n.Email + "\n" + n.Role.String()))
	kept, _, first, err := s.cfg.Short.OnceWithSecret(ctx, n.By.ID, requestID, "CreateInvitation", sum[:], n.Token)
	if err != nil {
		return nil, seal.Secret{}, err
	}
	if first {
		made, err := s.cfg.Tenants.Invite(ctx, n)
		return made, n.Token, err
	}
	made, err := s.cfg.Tenants.InvitationOf(ctx, n.Workspace, kept)
	return made, kept, err
}

// DeleteInvitation implements the RPC.
func (s *Server) DeleteInvitation(ctx context.Context, req *gatewayv1.DeleteInvitationRequest) (*gatewayv1.DeleteInvitationResponse, error) {
	if err := s.cfg.Tenants.Withdraw(ctx, req.GetWorkspace(), req.GetInvitation()); err != nil {
		return nil, err
	}
	return &gatewayv1.DeleteInvitationResponse{}, nil
}
