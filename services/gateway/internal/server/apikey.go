package server

import (
	"context"
	"crypto/sha256"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/pasted"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/seal/pagetoken"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	gatewaystorev1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/store/v1"
	gatewayv1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/v1"
	"devpilot.io/bitbucket/services/gateway/internal/caller"
	"devpilot.io/bitbucket/services/gateway/internal/tenant"
)

func keyProto(k *gatewaystorev1.ApiKey) *gatewayv1.ApiKey {
	role, err := identity.ParseRole(k.GetRole())
	if err != nil {
		role = identity.RoleNone // shown as unspecified; such a key does not work
	}
	scope, err := tenant.KeyScope(k)
	if err != nil {
		scope = identity.ScopeNone // likewise
	}
	return &gatewayv1.ApiKey{
		Scope: scopesByWord[scope], Apps: k.GetApps(),
		Id: k.GetId(), Label: k.GetLabel(), Role: rolesByWord[role], Prefix: k.GetPrefix(),
		CreatedBy: k.GetCreatedByLabel(), CreateTime: k.GetCreateTime(), LastUsedTime: k.GetLastUsedTime(), ExpireTime: k.GetExpireTime(),
	}
}

// keysOf is whose keys the caller may see: the caller's own, or all ("") for owners and admins. A program may so
// only with the scope ADMIN, as for all that takes an admin.
func (s *Server) keysOf(ctx context.Context) (owner string, err error) {
	id, err := user(ctx)
	switch {
	case err != nil:
		return "", err
	case id.Role >= identity.RoleAdmin && (id.Scope == identity.ScopeNone || id.Scope == identity.ScopeAdmin):
		return "", nil
	case caller.KeyID(id) == "":
		return id.Subject, nil
	}
	k, err := s.cfg.Tenants.Key(ctx, caller.KeyID(id))
	if err != nil {
		return "", err
	}
	owner = tenant.KeyOwner(k)
	if owner == "" { // not known of keys that a key made before whose they are was kept
		return id.Subject, nil
	}
	return owner, nil
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
	owner, err := s.keysOf(ctx)
	if err != nil {
		return nil, err
	}
	list, more, err := s.cfg.Tenants.ListKeysOf(ctx, req.GetWorkspace(), owner, string(after), size)
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
	if id.SubjectKind == identity.SubjectOIDCToken { // as internal/routes publishes
		return nil, apierr.New(apierr.ReasonPermissionDenied, "A token of an identity provider cannot make API keys: they would outlive it. Sign in, or use a key.")
	}
	role, keyScope := rightsOf(req)
	var expire time.Time
	if req.GetExpireTime() != nil {
		expire = req.GetExpireTime().AsTime()
	}
	n := tenant.NewKey{
		Workspace: req.GetWorkspace(), Label: pasted.Line(req.GetLabel()), Role: role, Scope: keyScope, Apps: req.GetApps(), ExpireTime: expire,
		By: tenant.Subject{ID: id.Subject, Label: id.Label}, ByRole: id.Role, ByKey: caller.KeyID(id), Secret: tenant.NewKeySecret(),
	}
	var faults apierr.Faults
	faults.RequestID(req.GetRequestId())
	if err := faults.Take(s.cfg.Tenants.CheckKey(n)); err != nil {
		return nil, err
	}
	if err := faults.Take(s.cfg.Tenants.BoundByMaker(ctx, &n)); err != nil {
		return nil, err
	}
	if faults.Err() == nil {
		if err := s.checkApps(ctx, n, &faults); err != nil {
			return nil, err
		}
	}
	if err := faults.Err(); err != nil || req.GetValidateOnly() {
		return &gatewayv1.CreateApiKeyResponse{ApiKey: &gatewayv1.ApiKey{
			Label: n.Label, Role: rolesByWord[role], Scope: scopesByWord[keyScope], Apps: n.Apps, CreateTime: timestamppb.New(s.cfg.Now()), ExpireTime: req.GetExpireTime(),
		}}, err
	}
	k, secret, err := s.createKey(ctx, n, req)
	if err != nil {
		return nil, err
	}
	return &gatewayv1.CreateApiKeyResponse{ApiKey: keyProto(k), Secret: secret.Reveal()}, nil
}

var scopesByWord = map[identity.Scope]gatewayv1.ApiKey_Scope{
	identity.ScopeRead:   gatewayv1.ApiKey_READ,
	identity.ScopeDeploy: gatewayv1.ApiKey_DEPLOY,
	identity.ScopeAdmin:  gatewayv1.ApiKey_ADMIN,
}

// rightsOf are the role and the scope of a key to make: what is left out follows from the other one.
func rightsOf(req *gatewayv1.CreateApiKeyRequest) (identity.Role, identity.Scope) {
	scope := identity.ScopeNone
	for s, word := range scopesByWord {
		if word == req.GetScope() {
			scope = s
		}
	}
	unsaid := req.GetScope() == gatewayv1.ApiKey_SCOPE_UNSPECIFIED
	switch {
	case req.GetRole() != gatewayv1.Role_NAME_UNSPECIFIED && unsaid:
		role := roleOf(req.GetRole())
		return role, identity.ScopeOfRole(role)
	case req.GetRole() != gatewayv1.Role_NAME_UNSPECIFIED:
		return roleOf(req.GetRole()), scope
	case unsaid:
		return identity.RoleMember, identity.ScopeDeploy
	}
	return scope.Role(), scope
}

// checkApps refuses apps that are not there: a key for a misspelt one could do nothing, and would not say why.
func (s *Server) checkApps(ctx context.Context, n tenant.NewKey, faults *apierr.Faults) error {
	for i, app := range n.Apps {
		_, err := s.cfg.Deployer.GetApp(ctx, &deployerv1.GetAppRequest{Workspace: n.Workspace, App: app})
		switch {
		case apierr.Has(err, apierr.ReasonAppNotFound):
			faults.Add(fmt.Sprintf("apps[%d]", i), fmt.Sprintf("there is no app %q in this workspace", app))
		case err != nil:
			return err
		}
	}
	return nil
}

// createKey makes the key, or finds the one that the same request made before. One that is gone since
// then is not made again: it was deleted, or has expired.
func (s *Server) createKey(ctx context.Context, n tenant.NewKey, req *gatewayv1.CreateApiKeyRequest) (*gatewaystorev1.ApiKey, seal.Secret, error) {
	if req.GetRequestId() == "" {
		return s.cfg.Tenants.CreateKey(ctx, n)
	}
	body := &gatewayv1.CreateApiKeyRequest{
		Workspace: req.GetWorkspace(), Label: req.GetLabel(), Role: rolesByWord[n.Role], ExpireTime: req.GetExpireTime(),
		Scope: req.GetScope(), Apps: req.GetApps(), // as they came: what was asked before there were scopes stays the same
	}
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(body)
	if err != nil {
		return nil, seal.Secret{}, fmt.Errorf("server: fingerprint of a request: %w", err)
	}
	sum := sha256.Sum256(raw)
	kept, _, first, err := s.cfg.Short.OnceWithSecret(ctx, n.By.ID, req.GetRequestId(), "CreateApiKey", sum[:], n.Secret)
	if err != nil {
		return nil, seal.Secret{}, err
	}
	if first {
		return s.cfg.Tenants.CreateKey(ctx, n)
	}
	k, ok, err := s.cfg.Tenants.FindKey(ctx, kept)
	if err == nil && !ok {
		err = apierr.New(apierr.ReasonAPIKeyNotFound, "The API key that this request created is gone: it was deleted or has expired, or creating it was interrupted. Use a new requestId to make another.")
	}
	return k, kept, err
}

// endsKeysOf is whose keys the caller may end: those that it may see. A key may end itself, whatever else it may; that is
// all that one may which changes nothing else.
func (s *Server) endsKeysOf(ctx context.Context, key string) (owner string, err error) {
	id, err := user(ctx)
	if err != nil {
		return "", err
	}
	switch itself := caller.KeyID(id) == key; {
	case itself:
		return "", nil
	case id.Scope == identity.ScopeRead:
		return id.Subject, nil // of whom there is no key
	}
	return s.keysOf(ctx)
}

// DeleteApiKey implements the RPC.
func (s *Server) DeleteApiKey(ctx context.Context, req *gatewayv1.DeleteApiKeyRequest) (*gatewayv1.DeleteApiKeyResponse, error) { //nolint:revive // named by the proto
	owner, err := s.endsKeysOf(ctx, req.GetApiKey())
	if err != nil {
		return nil, err
	}
	if err := s.cfg.Tenants.DeleteKeyOf(ctx, req.GetWorkspace(), owner, req.GetApiKey()); err != nil {
		return nil, err
	}
	return &gatewayv1.DeleteApiKeyResponse{}, nil
}
