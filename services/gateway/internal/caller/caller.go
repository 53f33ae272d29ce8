// Package caller says who makes a request and what they may do: a browser session, an API key,
// a token of an identity provider or the admin token; in which workspace; with today's role. It turns that into the signed identity
// that every service verifies (DESIGN.md#who-calls).
//
// A caller whose own credentials are missing or dead gets UNAUTHENTICATED, the only 401 there is. A
// workspace that the caller is not a member of looks like one that does not exist.
//
// It depends on internal/session, internal/tenant and pkg/identity.
package caller

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net/http"
	"strings"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/pasted"
	"devpilot.io/bitbucket/pkg/rpc"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/services/gateway/internal/session"
	"devpilot.io/bitbucket/services/gateway/internal/tenant"
)

// The local owner is who the admin token and its one-time codes sign in: the one person of an
// installation without other users.
const (
	LocalSubject     = "local"
	LocalLabel       = "Local owner"
	adminTokenLabel  = "The admin token"
	apiKeySubject    = "api-key:"
	DefaultWorkspace = "default"
)

// Caller is who makes a request.
type Caller struct {
	Kind    identity.SubjectKind
	Subject string
	Label   string
	// Session is the browser session; zero for other kinds.
	Session session.Session
	// KeyID is that of the API key; empty for other kinds.
	KeyID string
	// Workspace is the one that a program's credential is for, and Role its role there; zero for people.
	Workspace string
	Role      identity.Role
	// Scope and Apps bound what a program may do; zero for people.
	Scope identity.Scope
	Apps  identity.Apps
	// Expire is when a token of an identity provider ends; zero for other kinds.
	Expire time.Time
	closed tenant.Closed // of an API key's workspace
}

// KeyID is the id of the API key that the identity is of; empty for others.
func KeyID(id identity.Identity) string {
	if id.SubjectKind != identity.SubjectAPIKey {
		return ""
	}
	return strings.TrimPrefix(id.Subject, apiKeySubject)
}

type contextKey struct{}

// With returns a context that carries the caller.
func With(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, contextKey{}, c)
}

// From returns the caller of a request; ok is false for a request without one.
func From(ctx context.Context) (c Caller, ok bool) {
	c, ok = ctx.Value(contextKey{}).(Caller)
	return c, ok
}

// Tokens checks tokens of identity providers. Its method may be called concurrently.
type Tokens interface {
	Check(ctx context.Context, token string) (Caller, error)
}

// Authenticator finds out who calls. It is safe for concurrent use.
type Authenticator struct {
	AdminToken seal.Secret // zero: nobody can use one
	// LocalOff says that the local owner is switched off: neither the token nor a code nor a session of before
	// lets anybody in.
	LocalOff bool
	Cookies  session.Cookies
	Sessions *session.Manager
	Tenants  *tenant.Store
	Tokens   Tokens
	Signer   *identity.Signer
	Now      func() time.Time
	// KeyUsed hears that a key whose last use is not noted yet was used; it must not block.
	KeyUsed func(id string)
}

// IsAdminToken compares in constant time, of values of any length.
func (a *Authenticator) IsAdminToken(token string) bool {
	if a.AdminToken.IsZero() || a.LocalOff {
		return false
	}
	want, got := sha256.Sum256([]byte(a.AdminToken.Reveal())), sha256.Sum256([]byte(token))
	return subtle.ConstantTimeCompare(want[:], got[:]) == 1
}

// Credential is what vouches for the local owner today: a hash that the admin token cannot be found
// from, so that sessions and codes made with a token die with it. Nobody else has one.
func (a *Authenticator) Credential(subject string) []byte {
	switch {
	case subject != LocalSubject:
		return nil
	case a.LocalOff:
		return []byte("off") // what no code and no session was made with
	}
	mac := hmac.New(sha256.New, []byte(a.AdminToken.Reveal()))
	_, _ = mac.Write([]byte("devpilot gateway session v1")) // never fails (hash.Hash)
	return mac.Sum(nil)[:16]
}

// Authenticate says who makes the request: UNAUTHENTICATED, or trouble with the store. A bearer
// token decides alone when there is one: a caller that sends a dead key is told so, whatever cookie
// it also sends.
func (a *Authenticator) Authenticate(r *http.Request) (Caller, error) {
	if auth := r.Header.Values("Authorization"); len(auth) > 0 {
		return a.bearer(r.Context(), auth)
	}
	value := a.Cookies.Value(r)
	if value == "" {
		return Caller{}, apierr.New(apierr.ReasonUnauthenticated, "You are not signed in. Sign in, or send an API key as Authorization: Bearer.")
	}
	s, err := a.Sessions.Verify(r.Context(), value)
	if errors.Is(err, session.ErrDead) {
		return Caller{}, tenant.SessionEnded()
	}
	if err != nil {
		return Caller{}, err
	}
	return Caller{Kind: identity.SubjectSession, Subject: s.Subject, Label: s.Label, Session: s}, nil
}

func (a *Authenticator) bearer(ctx context.Context, values []string) (Caller, error) {
	dead := apierr.New(apierr.ReasonUnauthenticated, "The API key or admin token in the Authorization header is not valid: it may have expired or been deleted.")
	scheme, token, ok := strings.Cut(values[0], " ")
	if token = pasted.Line(token); len(values) > 1 || !ok || token == "" || !strings.EqualFold(scheme, "Bearer") {
		return Caller{}, apierr.New(apierr.ReasonUnauthenticated, `The Authorization header must be "Bearer" and an API key, a token of an identity provider or the admin token.`)
	}
	if a.IsAdminToken(token) {
		return Caller{Kind: identity.SubjectAdminToken, Subject: LocalSubject, Label: adminTokenLabel}, nil
	}
	if strings.Count(token, ".") == 2 {
		return a.Tokens.Check(ctx, token) // signed: three parts with dots between
	}
	if !tenant.LooksLikeKey(token) {
		return Caller{}, dead
	}
	k, ok, err := a.Tenants.FindKey(ctx, seal.NewSecret(token))
	if err != nil {
		return Caller{}, err
	}
	if !ok {
		return Caller{}, dead
	}
	role, closed, err := a.Tenants.KeyRole(ctx, k)
	if err != nil {
		return Caller{}, err
	}
	if role == identity.RoleNone {
		return Caller{}, dead
	}
	scope, err := tenant.KeyScope(k)
	if err != nil {
		return Caller{}, err
	}
	if !a.Tenants.UsedWithinHour(k) {
		a.KeyUsed(k.GetId())
	}
	return Caller{
		Kind: identity.SubjectAPIKey, Subject: apiKeySubject + k.GetId(), Label: k.GetLabel(),
		KeyID: k.GetId(), Workspace: k.GetWorkspace(), Role: role,
		Scope: scope, Apps: identity.LimitedTo(k.GetApps()...), closed: closed,
	}, nil
}

// tokenStanding is the role of a token in its workspace: none when the workspace is gone, whose rule may be left over.
func (a *Authenticator) tokenStanding(ctx context.Context, c Caller) (tenant.Standing, error) {
	w, err := a.Tenants.Get(ctx, c.Workspace, c.Role)
	switch {
	case apierr.Has(err, apierr.ReasonWorkspaceNotFound), w.Closed() == tenant.Deleted:
		return tenant.Standing{}, nil
	case err != nil:
		return tenant.Standing{}, err
	}
	return tenant.Standing{Role: c.Role, Closed: w.Closed()}, nil
}

// standing is how the caller stands in the workspace today.
func (a *Authenticator) standing(ctx context.Context, c Caller, workspace string) (tenant.Standing, error) {
	switch {
	case c.Kind.IsProgram() && workspace != c.Workspace:
		return tenant.Standing{}, nil
	case c.Kind == identity.SubjectOIDCToken:
		return a.tokenStanding(ctx, c)
	case c.Kind.IsProgram():
		return tenant.Standing{Role: c.Role, Closed: c.closed}, nil
	}
	return a.Tenants.Standing(ctx, workspace, c.Subject)
}

// Identify returns a context whose RPCs are made on the caller's behalf in the workspace ("" for
// none): WORKSPACE_NOT_FOUND when it is not a member, WORKSPACE_BEING_DELETED. The identity in it lives for 60 s; a
// stream is held against it when it begins.
func (a *Authenticator) Identify(ctx context.Context, c Caller, workspace string) (context.Context, error) {
	return a.identify(ctx, c, workspace, false)
}

// IdentifyClosed is Identify for what may be asked of a workspace that is being deleted, and by its owners of one that
// is.
func (a *Authenticator) IdentifyClosed(ctx context.Context, c Caller, workspace string) (context.Context, error) {
	return a.identify(ctx, c, workspace, true)
}

// IdentifyOperator is Identify, outside of any workspace, for what takes an operator of the installation: whether the
// caller is one today stands in the identity.
func (a *Authenticator) IdentifyOperator(ctx context.Context, c Caller, _ string) (context.Context, error) {
	operator, err := a.IsOperator(ctx, c.Kind, c.Subject)
	if err != nil {
		return nil, err
	}
	return a.sign(ctx, c, identity.Identity{Subject: c.Subject, SubjectKind: c.Kind, Label: c.Label, Scope: c.Scope, Apps: c.Apps, Operator: operator})
}

// IsOperator tells whether somebody is an operator of the installation today: the local owner, in a browser or by the
// admin token, or a person whom a rule of the provider makes one. No program is.
func (a *Authenticator) IsOperator(ctx context.Context, kind identity.SubjectKind, subject string) (bool, error) {
	switch {
	case kind == identity.SubjectAdminToken:
		return true, nil
	case kind != identity.SubjectSession:
		return false, nil
	case subject == LocalSubject:
		return true, nil
	}
	account, err := a.Tenants.Account(ctx, subject)
	return account.GetOperator(), err
}

func (a *Authenticator) identify(ctx context.Context, c Caller, workspace string, closedToo bool) (context.Context, error) {
	id := identity.Identity{
		Subject: c.Subject, SubjectKind: c.Kind, Label: c.Label, Workspace: workspace, Scope: c.Scope, Apps: c.Apps,
	}
	if workspace == "" && c.Kind.IsProgram() {
		id.Workspace = c.Workspace
	}
	if id.Workspace != "" {
		is, err := a.standing(ctx, c, id.Workspace)
		if err != nil {
			return nil, err
		}
		if is.Role == identity.RoleNone {
			return nil, tenant.WorkspaceNotFound(id.Workspace)
		}
		if err := is.Closed.Err(id.Workspace); err != nil && !closedToo {
			return nil, err
		}
		id.Role, id.Label = is.Role, cmp.Or(is.Label, c.Label) // what is recorded tells people of one name apart
	}
	return a.sign(ctx, c, id)
}

func (a *Authenticator) sign(ctx context.Context, c Caller, id identity.Identity) (context.Context, error) {
	token, err := a.Signer.SignUser(id) // without the request's id, so that one signature serves many
	if err != nil {
		return nil, err
	}
	id.RequestID = rpc.RequestID(ctx)
	return identity.WithIdentity(identity.WithUserToken(With(ctx, c), token), id), nil
}

// Still says whether a caller that was let in before would still be: nil, UNAUTHENTICATED or
// WORKSPACE_NOT_FOUND, or trouble with the store. Streams ask now and then.
func (a *Authenticator) Still(ctx context.Context, c Caller, workspace string) error {
	ended := tenant.SessionEnded()
	switch c.Kind {
	case identity.SubjectSession:
		err := a.Sessions.Alive(ctx, c.Session)
		if errors.Is(err, session.ErrDead) {
			return ended
		}
		if err != nil {
			return err
		}
	case identity.SubjectAPIKey:
		works, err := a.Tenants.KeyWorks(ctx, c.KeyID)
		if err != nil {
			return err
		}
		if !works {
			return ended
		}
		return nil
	case identity.SubjectOIDCToken:
		if !a.Now().Before(c.Expire) {
			return ended
		}
	case identity.SubjectAdminToken, identity.SubjectLocal:
	}
	is, err := a.standing(ctx, c, workspace)
	if err != nil {
		return err
	}
	if is.Role == identity.RoleNone {
		return apierr.Newf(apierr.ReasonWorkspaceNotFound, "You are not a member of workspace %q any more.", workspace)
	}
	return is.Closed.Err(workspace)
}
