package server

import (
	"context"
	"log/slog"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/redisx"
	"devpilot.io/bitbucket/pkg/rpc"
	authstorev1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/store/v1"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	"devpilot.io/bitbucket/services/auth/internal/connect"
	"devpilot.io/bitbucket/services/auth/internal/handshake"
	"devpilot.io/bitbucket/services/auth/internal/rotation"
	"devpilot.io/bitbucket/services/auth/internal/token"
)

// Policy says who may call what (DESIGN.md#who-calls). Tokens are for the services that
// talk to Bitbucket: never for the gateway, so that no way leads from a browser to a token.
var Policy = rpc.Policy{
	authv1.AuthService_ListIntegrations_FullMethodName:      {Callers: readers(), MinRole: identity.RoleMember},
	authv1.AuthService_GetIntegration_FullMethodName:        {Callers: readers(), MinRole: identity.RoleMember},
	authv1.AuthService_GetBudget_FullMethodName:             {Callers: []string{identity.Gateway}, MinRole: identity.RoleMember},
	authv1.AuthService_ConnectIntegration_FullMethodName:    {Callers: []string{identity.Gateway}, MinRole: identity.RoleAdmin, Browser: connectBrowser},
	authv1.AuthService_LookUpHandshake_FullMethodName:       {Callers: []string{identity.Gateway}, MinRole: identity.RoleNone},
	authv1.AuthService_BeginAuthorization_FullMethodName:    {Callers: []string{identity.Gateway}, MinRole: identity.RoleAdmin},
	authv1.AuthService_CompleteAuthorization_FullMethodName: {Callers: []string{identity.Gateway}, MinRole: identity.RoleAdmin},
	authv1.AuthService_RefreshIntegration_FullMethodName:    {Callers: []string{identity.Gateway}, MinRole: identity.RoleAdmin},
	authv1.AuthService_RemoveIntegration_FullMethodName:     {Callers: []string{identity.Gateway}, MinRole: identity.RoleAdmin},
	authv1.AuthService_NarrowIntegration_FullMethodName:     {Callers: []string{identity.Gateway}, MinRole: identity.RoleAdmin},
	authv1.AuthService_IssueToken_FullMethodName:            {Callers: []string{"repo", "webhook", "deployer"}},
}

// connectBrowser is what programs are told that would connect: nobody could open the address that they would get.
const connectBrowser = "An API key or token cannot connect an account: Bitbucket asks a person in a browser, and only who began may finish. Sign in to the console as an owner or admin and connect there."

func readers() []string { return []string{identity.Gateway, "repo", "webhook", "deployer"} }

// Integrations is the store; see package store.
type Integrations interface {
	Get(ctx context.Context, workspace string) (*authstorev1.Integration, uint64, error)
	Remove(ctx context.Context, workspace string, rev uint64) error
	Erase(ctx context.Context, workspace string) error
}

// Narrowings is the store of what workspaces were narrowed to; see package store.
type Narrowings interface {
	Get(ctx context.Context, workspace string) (*authstorev1.Narrowing, error)
	Update(ctx context.Context, workspace string, fn func(cur *authstorev1.Narrowing) (*authstorev1.Narrowing, error)) error
	Remove(ctx context.Context, workspace string) error
}

// Budget knows how many calls Bitbucket allows, and who made those of the last hour. Usage's error says that
// the services do not know of each other's calls now.
type Budget interface {
	Usage(ctx context.Context, workspace string) ([]redisx.Usage, error)
	Limit() int
}

// Config is what a Server needs; all of it is required.
type Config struct {
	Flow         *connect.Flow
	Handshakes   *handshake.Store
	Tokens       *token.Manager
	Integrations Integrations
	Narrowings   Narrowings
	Site         bitbucket.Site
	CallbackURL  string
	Budget       Budget
	Logger       *slog.Logger
	Now          func() time.Time
}

// Server implements devpilot.auth.v1.AuthService.
type Server struct {
	authv1.UnimplementedAuthServiceServer

	cfg Config
}

// New makes a Server.
func New(cfg Config) *Server { return &Server{cfg: cfg} }

// visitor is on whose behalf the gateway calls, in the workspace of the request. The interceptors
// have held the role against the policy.
func visitor(ctx context.Context, workspace string) (handshake.Visitor, identity.Identity, error) {
	id, ok := identity.FromContext(ctx)
	if !ok {
		return handshake.Visitor{}, id, apierr.New(apierr.ReasonUnauthenticated, "Sign in to connect an account.")
	}
	return handshake.Visitor{Subject: id.Subject, Workspace: workspace}, id, nil
}

func needWorkspace(workspace string) error {
	if workspace == "" {
		return apierr.InvalidArgument("workspace", "name the workspace")
	}
	return nil
}

func (s *Server) consumer() rotation.Consumer { return s.cfg.Tokens.Consumer() }
