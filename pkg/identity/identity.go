package identity

import (
	"context"
	"fmt"
	"strings"
)

// Gateway is the one service that may sign user tokens.
const Gateway = "gateway"

// Role is what a member may do in a workspace. The order is meant: a higher role may do all that a
// lower one may.
type Role int

// The roles of DESIGN.md#words.
const (
	RoleNone Role = iota
	RoleMember
	RoleAdmin
	RoleOwner
)

// RoleChoices says to people which roles somebody can be given.
const RoleChoices = "MEMBER, ADMIN or OWNER"

// String is the role's word in lower case; "none" for RoleNone.
func (r Role) String() string {
	switch r {
	case RoleNone:
		return "none"
	case RoleMember:
		return "member"
	case RoleAdmin:
		return "admin"
	case RoleOwner:
		return "owner"
	}
	return fmt.Sprintf("role(%d)", int(r))
}

// ParseRole reads the word of a role, in any case; it does not know "none".
func ParseRole(s string) (Role, error) {
	switch strings.ToLower(s) {
	case "member":
		return RoleMember, nil
	case "admin":
		return RoleAdmin, nil
	case "owner":
		return RoleOwner, nil
	}
	return RoleNone, fmt.Errorf("identity: %q is not a role (owner, admin, member)", s)
}

// SubjectKind says how the subject showed who it is.
type SubjectKind string

// The kinds of subjects.
const (
	SubjectSession    SubjectKind = "session"
	SubjectAPIKey     SubjectKind = "api_key"
	SubjectAdminToken SubjectKind = "admin_token"
	SubjectLocal      SubjectKind = "local"
	SubjectOIDCToken  SubjectKind = "oidc_token" // a token of an identity provider, sent by a script
)

// IsProgram tells the kinds that no person at a browser is behind.
func (k SubjectKind) IsProgram() bool { return k == SubjectAPIKey || k == SubjectOIDCToken }

func (k SubjectKind) valid() bool {
	switch k {
	case SubjectSession, SubjectAPIKey, SubjectAdminToken, SubjectLocal, SubjectOIDCToken:
		return true
	}
	return false
}

// Identity is on whose behalf a call is made.
type Identity struct {
	Subject     string // stable id of the user or key
	SubjectKind SubjectKind
	Label       string // for people: shown in histories and the activity list
	Workspace   string // the workspace the role holds in; empty outside any
	Role        Role
	Scope       Scope  // of programs; ScopeNone for people
	Apps        Apps   // of programs that are limited to some
	Operator    bool   // whether the call may be about the whole installation: see Rule.Operator of pkg/rpc
	RequestID   string // of the request at the gateway
}

type (
	identityKey struct{}
	callerKey   struct{}
	tokenKey    struct{}
)

// WithIdentity returns a context that carries id.
func WithIdentity(ctx context.Context, id Identity) context.Context {
	return context.WithValue(ctx, identityKey{}, id)
}

// FromContext returns the identity that the server verified (or that WithIdentity put there).
func FromContext(ctx context.Context) (Identity, bool) {
	id, ok := ctx.Value(identityKey{}).(Identity)
	return id, ok
}

// WithCaller returns a context that carries the name of the verified calling service.
func WithCaller(ctx context.Context, service string) context.Context {
	return context.WithValue(ctx, callerKey{}, service)
}

// CallerFromContext returns the name of the verified calling service, or "".
func CallerFromContext(ctx context.Context) string {
	s, _ := ctx.Value(callerKey{}).(string)
	return s
}

// WithUserToken returns a context whose outgoing calls carry this user token: the gateway puts one
// there after signing it, a server the one it received, unchanged.
func WithUserToken(ctx context.Context, token string) context.Context {
	return context.WithValue(ctx, tokenKey{}, token)
}

// UserTokenFromContext returns the user token for outgoing calls, or "".
func UserTokenFromContext(ctx context.Context) string {
	s, _ := ctx.Value(tokenKey{}).(string)
	return s
}
