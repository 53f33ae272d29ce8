package auth_test

import (
	"context"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/testkit"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
)

// calls are all RPCs, each with what it answers when the caller was let in.
func calls(ws string) map[string]func(context.Context, authv1.AuthServiceClient) error {
	return map[string]func(context.Context, authv1.AuthServiceClient) error{
		"ListIntegrations": func(ctx context.Context, c authv1.AuthServiceClient) error {
			_, err := c.ListIntegrations(ctx, &authv1.ListIntegrationsRequest{Workspace: ws})
			return err
		},
		"GetIntegration": func(ctx context.Context, c authv1.AuthServiceClient) error {
			_, err := c.GetIntegration(ctx, &authv1.GetIntegrationRequest{Workspace: ws})
			return err
		},
		"GetBudget": func(ctx context.Context, c authv1.AuthServiceClient) error {
			_, err := c.GetBudget(ctx, &authv1.GetBudgetRequest{Workspace: ws})
			return err
		},
		"ConnectIntegration": func(ctx context.Context, c authv1.AuthServiceClient) error {
			_, err := c.ConnectIntegration(ctx, &authv1.ConnectIntegrationRequest{Workspace: ws})
			return err
		},
		"LookUpHandshake": func(ctx context.Context, c authv1.AuthServiceClient) error {
			_, err := c.LookUpHandshake(ctx, &authv1.LookUpHandshakeRequest{Handshake: "unknown"})
			return err
		},
		"BeginAuthorization": func(ctx context.Context, c authv1.AuthServiceClient) error {
			_, err := c.BeginAuthorization(ctx, &authv1.BeginAuthorizationRequest{Workspace: ws, Handshake: "unknown"})
			return err
		},
		"CompleteAuthorization": func(ctx context.Context, c authv1.AuthServiceClient) error {
			_, err := c.CompleteAuthorization(ctx, &authv1.CompleteAuthorizationRequest{Workspace: ws, State: "unknown"})
			return err
		},
		"RefreshIntegration": func(ctx context.Context, c authv1.AuthServiceClient) error {
			_, err := c.RefreshIntegration(ctx, &authv1.RefreshIntegrationRequest{Workspace: ws})
			return err
		},
		"NarrowIntegration": func(ctx context.Context, c authv1.AuthServiceClient) error {
			_, err := c.NarrowIntegration(ctx, &authv1.NarrowIntegrationRequest{Workspace: ws})
			return err
		},
		"RemoveIntegration": func(ctx context.Context, c authv1.AuthServiceClient) error {
			_, err := c.RemoveIntegration(ctx, &authv1.RemoveIntegrationRequest{Workspace: ws})
			return err
		},
		"IssueToken": func(ctx context.Context, c authv1.AuthServiceClient) error {
			_, err := c.IssueToken(ctx, &authv1.IssueTokenRequest{Workspace: ws})
			return err
		},
	}
}

func TestPolicy(t *testing.T) {
	const (
		refused = apierr.ReasonPermissionDenied
		unknown = apierr.ReasonHandshakeExpired
		none    = apierr.ReasonNotConnected
		ok      = apierr.Reason("")
	)
	// By RPC: a member, an admin and an owner of the workspace, an owner of another one, the repo
	// service, an unknown service of ours (the gateway is the only one without a user).
	want := map[string][5]apierr.Reason{
		"ListIntegrations":      {ok, ok, ok, refused, ok},
		"GetIntegration":        {ok, ok, ok, refused, ok},
		"GetBudget":             {ok, ok, ok, refused, refused},
		"ConnectIntegration":    {refused, ok, ok, refused, refused},
		"LookUpHandshake":       {unknown, unknown, unknown, unknown, refused},
		"BeginAuthorization":    {refused, unknown, unknown, refused, refused},
		"CompleteAuthorization": {refused, unknown, unknown, refused, refused},
		"RefreshIntegration":    {refused, none, none, refused, refused},
		"NarrowIntegration":     {refused, ok, ok, refused, refused},
		"RemoveIntegration":     {refused, ok, ok, refused, refused},
		"IssueToken":            {refused, refused, refused, refused, none},
	}
	s := newStack(t, emulator.Options{})
	i := s.start("P1")
	columns := []struct {
		name   string
		ctx    context.Context
		client authv1.AuthServiceClient
	}{
		{"member", s.as("acme-inc", identity.RoleMember, "m"), i.gateway},
		{"admin", s.as("acme-inc", identity.RoleAdmin, "a"), i.gateway},
		{"owner", s.as("acme-inc", identity.RoleOwner, "o"), i.gateway},
		{"owner of another workspace", s.as("other", identity.RoleOwner, "x"), i.gateway},
		{"repo", t.Context(), i.repo},
	}
	for rpc, call := range calls("acme-inc") {
		for n, c := range columns {
			if got := apierr.ReasonOf(call(c.ctx, c.client)); got != want[rpc][n] {
				t.Errorf("%s by %s: %q, want %q", rpc, c.name, got, want[rpc][n])
			}
		}
	}
}

// No way leads from a browser to a token: not for an owner, nor for an identity passed on by a service.
func TestIssueToken_refusesTheGateway(t *testing.T) {
	s := newStack(t, emulator.Options{})
	i := s.start("P1")
	s.connect(i, "acme-inc", "jane-dev")
	for _, ctx := range []context.Context{t.Context(), s.as("acme-inc", identity.RoleOwner, "jane")} {
		r, err := i.gateway.IssueToken(ctx, &authv1.IssueTokenRequest{Workspace: "acme-inc"})
		wantReason(t, err, apierr.ReasonPermissionDenied)
		if r.GetAccessToken() != "" {
			t.Error("a token went to the gateway")
		}
	}
	for _, service := range []string{"repo", "webhook", "deployer"} {
		c := authv1.NewAuthServiceClient(i.grpc.Dial(service))
		if r, err := c.IssueToken(t.Context(), &authv1.IssueTokenRequest{Workspace: "acme-inc"}); err != nil || r.GetAccessToken() == "" {
			t.Errorf("%s: %v", service, err)
		}
	}
}

func TestRequests_areChecked(t *testing.T) {
	s := newStack(t, emulator.Options{})
	i := s.start("P1")
	bad := map[string]error{}
	issue := func(name string, r *authv1.IssueTokenRequest) {
		_, err := i.repo.IssueToken(t.Context(), r)
		bad[name] = err
	}
	issue("no workspace", &authv1.IssueTokenRequest{})
	issue("too long a life", &authv1.IssueTokenRequest{Workspace: "acme-inc", MinLife: durationpb.New(2 * time.Hour)})
	issue("a negative life", &authv1.IssueTokenRequest{Workspace: "acme-inc", MinLife: durationpb.New(-time.Second)})
	issue("half a hash", &authv1.IssueTokenRequest{Workspace: "acme-inc", RejectedTokenSha256: []byte("half")})
	_, bad["neither handshake nor state"] = i.gateway.LookUpHandshake(t.Context(), &authv1.LookUpHandshakeRequest{})
	_, bad["both"] = i.gateway.LookUpHandshake(t.Context(), &authv1.LookUpHandshakeRequest{Handshake: "a", State: "b"})
	_, bad["no handshake"] = i.gateway.BeginAuthorization(s.admin("acme-inc"), &authv1.BeginAuthorizationRequest{Workspace: "acme-inc"})
	_, bad["no state"] = i.gateway.CompleteAuthorization(s.admin("acme-inc"), &authv1.CompleteAuthorizationRequest{Workspace: "acme-inc"})
	for name, err := range bad {
		if !apierr.Has(err, apierr.ReasonInvalidArgument) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Redis holds only what may be lost: without it nobody connects, and everything else goes on.
func TestRedisAway(t *testing.T) {
	s := newStack(t, emulator.Options{})
	i := s.start("P1")
	s.connect(i, "acme-inc", "jane-dev")
	s.redis.Stop()
	_, err := i.gateway.ConnectIntegration(s.admin("acme-inc"), &authv1.ConnectIntegrationRequest{Workspace: "acme-inc"})
	wantReason(t, err, apierr.ReasonServiceUnavailable)
	if err := i.Ready(t.Context()); err != nil {
		t.Error(err)
	}
	if got := s.get(i, "acme-inc"); got.GetState() != authv1.Integration_CONNECTED {
		t.Errorf("%v", got)
	}
	s.expire()
	if _, err := i.repo.IssueToken(t.Context(), &authv1.IssueTokenRequest{Workspace: "acme-inc"}); err != nil {
		t.Error(err)
	}
	s.redis.Start()
	testkit.Eventually(t, timeout, func() error {
		_, err := i.gateway.ConnectIntegration(s.admin("acme-inc"), &authv1.ConnectIntegrationRequest{Workspace: "acme-inc"})
		return err
	})
}

func TestNATSAway(t *testing.T) {
	s := newStack(t, emulator.Options{})
	i := s.start("P1")
	s.connect(i, "acme-inc", "jane-dev")
	s.nats.Stop()
	ctx, cancel := context.WithTimeout(s.as("acme-inc", identity.RoleMember, "m"), timeout)
	defer cancel()
	_, err := i.gateway.GetIntegration(ctx, &authv1.GetIntegrationRequest{Workspace: "acme-inc"})
	wantReason(t, err, apierr.ReasonStorageUnavailable)
	// A process that starts meanwhile is not ready, and says so to callers.
	late := s.launchDisconnected("late")
	if late.Ready(t.Context()) == nil {
		t.Error("ready without its stores")
	}
	_, err = late.repo.IssueToken(t.Context(), &authv1.IssueTokenRequest{Workspace: "acme-inc"})
	wantReason(t, err, apierr.ReasonStorageUnavailable)
	s.nats.Start()
	for _, p := range []*instance{i, late} {
		testkit.Eventually(t, timeout, func() error {
			if err := p.Ready(t.Context()); err != nil {
				return err
			}
			_, err := p.repo.IssueToken(t.Context(), &authv1.IssueTokenRequest{Workspace: "acme-inc"})
			return err
		})
	}
}

// An API key cannot connect: nobody could open the page that it would get. It is told so, and no
// handshake is begun; who signed in with the admin token or a browser gets the page.
func TestConnect_ofAnAPIKeyIsRefused(t *testing.T) {
	s := newStack(t, emulator.Options{})
	i := s.start("P1")
	as := func(kind identity.SubjectKind) context.Context {
		return testkit.As(t.Context(), t, s.keys, identity.Identity{Subject: "x", SubjectKind: kind, Workspace: "acme-inc", Role: identity.RoleOwner})
	}
	for _, kind := range []identity.SubjectKind{identity.SubjectSession, identity.SubjectAdminToken, identity.SubjectLocal, identity.SubjectAPIKey, identity.SubjectOIDCToken} {
		resp, err := i.gateway.ConnectIntegration(as(kind), &authv1.ConnectIntegrationRequest{Workspace: "acme-inc"})
		if refused := apierr.Has(err, apierr.ReasonBrowserRequired); refused != kind.IsProgram() || !refused && (err != nil || resp.GetAuthorizeUrl() == "") {
			t.Errorf("%s: %v, %v", kind, resp, err)
		}
	}
}
