package server

import (
	"context"
	"time"

	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/seal/pagetoken"
	gatewaystorev1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/store/v1"
	gatewayv1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/v1"
	"devpilot.io/bitbucket/services/gateway/internal/tenant"
)

func keyProto(k *gatewaystorev1.ApiKey) *gatewayv1.ApiKey {
	role, err := identity.ParseRole(k.GetRole())
	if err != nil {
		role = identity.RoleNone // shown as unspecified; such a key does not work
	}
	return &gatewayv1.ApiKey{
		Id: k.GetId(), Label: k.GetLabel(), Role: rolesByWord[role], Prefix: k.GetPrefix(),
		CreatedBy: k.GetCreatedByLabel(), CreateTime: k.GetCreateTime(), LastUsedTime: k.GetLastUsedTime(), ExpireTime: k.GetExpireTime(),
	}
}

// ListApiKeys implements the RPC.
func (s *Server) ListApiKeys(ctx context.Context, req *gatewayv1.ListApiKeysRequest) (*gatewayv1.ListApiKeysResponse, error) { //nolint:revive // named by the proto
	size, err := pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	scope := pagetoken.Scope("apiKeys", req.GetWorkspace())
	after, err := s.cfg.Pages.Decode(scope, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	list, more, err := s.cfg.Tenants.ListKeys(ctx, req.GetWorkspace(), string(after), size)
	if err != nil {
		return nil, err
	}
	resp := &gatewayv1.ListApiKeysResponse{}
	for _, k := range list {
		resp.ApiKeys = append(resp.ApiKeys, keyProto(k))
	}
	if more {
		resp.NextPageToken = s.cfg.Pages.Encode(scope, []byte(tenant.KeyCursor(list[len(list)-1])))
	}
	return resp, nil
}

// CreateApiKey implements the RPC.
func (s *Server) CreateApiKey(ctx context.Context, req *gatewayv1.CreateApiKeyRequest) (*gatewayv1.CreateApiKeyResponse, error) { //nolint:revive // named by the proto
	id, err := user(ctx)
	if err != nil {
		return nil, err
	}
	role := identity.RoleMember
	if req.GetRole() != gatewayv1.Role_NAME_UNSPECIFIED {
		role = roleOf(req.GetRole())
	}
	var expire time.Time
	if req.GetExpireTime() != nil {
		expire = req.GetExpireTime().AsTime()
	}
	k, secret, err := s.cfg.Tenants.CreateKey(ctx, tenant.NewKey{
		Workspace: req.GetWorkspace(), Label: req.GetLabel(), Role: role, ExpireTime: expire,
		By: tenant.Subject{ID: id.Subject, Label: id.Label}, ByRole: id.Role,
	})
	if err != nil {
		return nil, err
	}
	return &gatewayv1.CreateApiKeyResponse{ApiKey: keyProto(k), Secret: secret.Reveal()}, nil
}

// DeleteApiKey implements the RPC.
func (s *Server) DeleteApiKey(ctx context.Context, req *gatewayv1.DeleteApiKeyRequest) (*gatewayv1.DeleteApiKeyResponse, error) { //nolint:revive // named by the proto
	if err := s.cfg.Tenants.DeleteKey(ctx, req.GetWorkspace(), req.GetApiKey()); err != nil {
		return nil, err
	}
	return &gatewayv1.DeleteApiKeyResponse{}, nil
}
