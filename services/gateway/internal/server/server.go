// Package server implements devpilot.gateway.v1.GatewayService: what the gateway itself owns. The
// REST API calls it over gRPC like any other service, in memory, through the same interceptors.
//
// One file per group of RPCs: validate, call one use case, map.
//
// It depends on internal/tenant, internal/session, internal/activity, internal/notify and the clients of auth and
// webhook.
package server

import (
	"context"
	"log/slog"
	"time"

	"google.golang.org/grpc"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/rpc"
	"devpilot.io/bitbucket/pkg/seal/pagetoken"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	gatewaystorev1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/store/v1"
	gatewayv1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/v1"
	repov1 "devpilot.io/bitbucket/proto/gen/devpilot/repo/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
	"devpilot.io/bitbucket/services/gateway/internal/activity"
	"devpilot.io/bitbucket/services/gateway/internal/doctor"
	"devpilot.io/bitbucket/services/gateway/internal/notify"
	"devpilot.io/bitbucket/services/gateway/internal/routes"
	"devpilot.io/bitbucket/services/gateway/internal/session"
	"devpilot.io/bitbucket/services/gateway/internal/tenant"
)

// SignIn checks what a browser shows to sign in. Its methods may be called concurrently.
type SignIn interface {
	IsAdminToken(token string) bool
	// Credential is what vouches for the subject today; nil for nothing.
	Credential(subject string) []byte
	// IsOperator tells whether somebody is an operator of the installation today.
	IsOperator(ctx context.Context, kind identity.SubjectKind, subject string) (bool, error)
}

// Providers are who else signs people in. Its methods may be called concurrently.
type Providers interface {
	// SignOutURL is where the browser signs out at the session's provider too; empty for nowhere.
	SignOutURL(ctx context.Context, subject string, e *gatewaystorev1.ListedSession) string
	// Name is how people call a provider.
	Name(provider string) string
}

// Recorder takes what was done. It must return at once and may be called concurrently.
type Recorder interface {
	Record(ctx context.Context, e activity.Entry)
}

// Config is what New needs.
type Config struct {
	Tenants  *tenant.Store
	Short    *session.ShortLived
	Sessions *session.Manager
	Limiter  *session.Limiter
	Activity *activity.Store
	// Notifications are where they go, Sender sends tests, and Checks say what a target may be.
	Notifications *notify.Store
	Sender        *notify.Sender
	Checks        notify.Checks
	Recorder      Recorder
	Pages         *pagetoken.Codec
	SignIn        SignIn
	Providers     Providers
	Auth          authv1.AuthServiceClient
	Webhook       webhookv1.WebhookServiceClient
	Repo          repov1.RepoServiceClient
	Deployer      deployerv1.DeployerServiceClient
	Doctor        *doctor.Doctor
	// LastEvent is the id of the newest event; empty while it is not known.
	LastEvent func() string
	// Info is what never changes while the process runs; the time is filled in.
	Info *gatewayv1.Info
	// PublicURL without a final slash.
	PublicURL string
	Logger    *slog.Logger
	Now       func() time.Time
}

// Server implements the service. It is safe for concurrent use.
type Server struct {
	gatewayv1.UnimplementedGatewayServiceServer
	cfg    Config
	proofs proofLimit
	logins logins
}

// New makes the server.
func New(cfg Config) *Server { return &Server{cfg: cfg, logins: newLogins(cfg.Now)} }

// Register puts it on a gRPC server.
func (s *Server) Register(r grpc.ServiceRegistrar) { gatewayv1.RegisterGatewayServiceServer(r, s) }

// user is on whose behalf a call is made. The HTTP side lets nobody without one in, except where
// the route is open.
func user(ctx context.Context) (identity.Identity, error) {
	id, ok := identity.FromContext(ctx)
	if !ok {
		return identity.Identity{}, apierr.New(apierr.ReasonUnauthenticated, "You are not signed in.")
	}
	return id, nil
}

func pageSize(asked int32) (int, error) { return pagetoken.Size(asked, pagetoken.MaxPage) }

var rolesByWord = map[identity.Role]gatewayv1.Role_Name{
	identity.RoleMember: gatewayv1.Role_MEMBER,
	identity.RoleAdmin:  gatewayv1.Role_ADMIN,
	identity.RoleOwner:  gatewayv1.Role_OWNER,
}

func roleOf(name gatewayv1.Role_Name) identity.Role {
	for role, n := range rolesByWord {
		if n == name {
			return role
		}
	}
	return identity.RoleNone
}

// Policy says who may call what: the gateway alone, for users of the role and the scope that the tables name.
func Policy(roles map[string]identity.Role, scopes map[string]identity.Scope, ofApps map[string]bool) rpc.Policy {
	p := rpc.Policy{}
	for _, m := range gatewayv1.GatewayService_ServiceDesc.Methods {
		full := "/" + gatewayv1.GatewayService_ServiceDesc.ServiceName + "/" + m.MethodName
		rule := rpc.Rule{Callers: []string{identity.Gateway}, MinRole: roles[full], Scope: scopes[full], OfApps: ofApps[full], Operator: routes.NeedsOperator(full)}
		switch full {
		case gatewayv1.GatewayService_GetLoginRequest_FullMethodName, gatewayv1.GatewayService_ApproveLoginRequest_FullMethodName, gatewayv1.GatewayService_DenyLoginRequest_FullMethodName:
			rule.Browser = loginTakesBrowser
		}
		p[full] = rule
	}
	return p
}
