package rpc_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/rpc"
	"devpilot.io/bitbucket/pkg/testkit"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

func TestPolicy_roleByWorkspace(t *testing.T) {
	kinds(t, func(t *testing.T, call func(context.Context, *grpc.ClientConn, string) error) {
		for _, min := range []identity.Role{identity.RoleMember, identity.RoleAdmin, identity.RoleOwner} {
			rule := rpc.Rule{Callers: []string{"gateway"}, MinRole: min}
			n := newNode(t, rpc.Policy{issueToken: rule, connect: rule, readLog: rule})
			gateway := n.as("gateway")
			for _, role := range []identity.Role{identity.RoleNone, identity.RoleMember, identity.RoleAdmin, identity.RoleOwner} {
				for _, workspace := range []string{"acme-inc", "other"} {
					err := call(member(t.Context(), t, n, "acme-inc", role), gateway, workspace)
					allowed := workspace == "acme-inc" && role >= min
					if allowed != (err == nil) || (err != nil && !apierr.Has(err, apierr.ReasonPermissionDenied)) {
						t.Errorf("min %s, user %s of acme-inc asks for %s: %v", min, role, workspace, err)
					}
				}
			}
		}
	})
}

func TestPolicy_denialSaysWhoCanDoIt(t *testing.T) {
	for min, who := range map[identity.Role]string{identity.RoleAdmin: "Ask an owner or admin of workspace acme-inc.", identity.RoleOwner: "Ask an owner of workspace acme-inc."} {
		n := newNode(t, rpc.Policy{issueToken: {Callers: []string{"gateway"}, MinRole: min}})
		err := issue(member(t.Context(), t, n, "acme-inc", identity.RoleMember), n.as("gateway"), "acme-inc")
		if !strings.HasSuffix(apierr.From(err).Message(), who) {
			t.Errorf("%v", err)
		}
	}
}

func TestPolicy_gatewayNeedsAUser(t *testing.T) {
	kinds(t, func(t *testing.T, call func(context.Context, *grpc.ClientConn, string) error) {
		rule := rpc.Rule{Callers: []string{"gateway", "deployer"}, MinRole: identity.RoleMember}
		n := newNode(t, rpc.Policy{issueToken: rule, readLog: rule})
		if err := call(t.Context(), n.as("gateway"), "acme-inc"); err == nil {
			t.Error("the gateway called for nobody")
		}
		if err := call(t.Context(), n.as("deployer"), "acme-inc"); err != nil {
			t.Errorf("the deployer's own work: %v", err)
		}
	})
}

func TestPolicy_onlyListedCallers(t *testing.T) {
	kinds(t, func(t *testing.T, call func(context.Context, *grpc.ClientConn, string) error) {
		rule := rpc.Rule{Callers: []string{"repo", "webhook", "deployer"}}
		n := newNode(t, rpc.Policy{issueToken: rule, readLog: rule})
		for _, service := range testkit.Services {
			err := call(member(t.Context(), t, n, "acme-inc", identity.RoleOwner), n.as(service), "acme-inc")
			listed := service == "repo" || service == "webhook" || service == "deployer"
			if listed != (err == nil) || (err != nil && !apierr.Has(err, apierr.ReasonPermissionDenied)) {
				t.Errorf("%s: %v", service, err)
			}
		}
	})
}

func TestPolicy_methodWithoutARuleIsDenied(t *testing.T) {
	n := newNode(t, rpc.Policy{})
	if err := issue(t.Context(), n.as("repo"), "acme-inc"); !apierr.Has(err, apierr.ReasonPermissionDenied) {
		t.Errorf("%v", err)
	}
}

func TestServer_callersWithoutProofAreRefused(t *testing.T) {
	n := newNode(t, open())
	forOther, err := identity.NewSigner(n.keys, "repo")
	if err != nil {
		t.Fatal(err)
	}
	toDeployer, err := forOther.SignCaller("deployer")
	if err != nil {
		t.Fatal(err)
	}
	kinds(t, func(t *testing.T, call func(context.Context, *grpc.ClientConn, string) error) {
		for name, md := range map[string]metadata.MD{
			"no token":                     {},
			"nonsense":                     metadata.Pairs("devpilot-caller-token", "abc"),
			"a token for another service":  metadata.Pairs("devpilot-caller-token", toDeployer),
			"two tokens":                   metadata.Pairs("devpilot-caller-token", toDeployer, "devpilot-caller-token", toDeployer),
			"a user token in its place":    metadata.Pairs("devpilot-caller-token", identity.UserTokenFromContext(member(t.Context(), t, n, "acme-inc", identity.RoleOwner))),
			"a name in place of the token": metadata.Pairs("devpilot-caller", "gateway"),
		} {
			err := call(metadata.NewOutgoingContext(t.Context(), md), n.raw(), "acme-inc")
			if status.Code(err) != codes.Unauthenticated || !apierr.Has(err, apierr.ReasonUnauthenticated) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

func TestServer_userTokens(t *testing.T) {
	n := newNode(t, open())
	stranger := testkit.Keys(t)
	var seen *identity.Identity
	n.auth.issue = func(ctx context.Context, _ *authv1.IssueTokenRequest) (*authv1.IssueTokenResponse, error) {
		seen = nil
		if id, ok := identity.FromContext(ctx); ok {
			seen = &id
		}
		return &authv1.IssueTokenResponse{}, nil
	}
	good := member(t.Context(), t, n, "acme-inc", identity.RoleMember)
	if err := issue(good, n.as("deployer"), "acme-inc"); err != nil || seen == nil || seen.Subject != "user-1" || seen.Role != identity.RoleMember {
		t.Errorf("a good token: %v, %+v", err, seen)
	}
	forged := testkit.As(t.Context(), t, stranger, identity.Identity{Subject: "user-1", Workspace: "acme-inc", Role: identity.RoleOwner})
	for _, service := range []string{"gateway", "deployer"} {
		if err := issue(forged, n.as(service), "acme-inc"); err == nil {
			t.Errorf("%s brought a forged token", service)
		}
	}
}

func TestClient_metadataFromOutsideIsOverwritten(t *testing.T) {
	n := newNode(t, rpc.Policy{issueToken: {Callers: []string{"gateway"}, MinRole: identity.RoleOwner}})
	owner := identity.UserTokenFromContext(member(t.Context(), t, n, "acme-inc", identity.RoleOwner))
	// What grpc-gateway makes of HTTP headers such as Grpc-Metadata-Devpilot-User-Token.
	evil := metadata.Pairs("devpilot-user-token", owner, "devpilot-caller-token", "x", "devpilot-request-id", "evil-request-id")
	ctx := metadata.NewOutgoingContext(t.Context(), evil)
	if err := issue(ctx, n.as("gateway"), "acme-inc"); err == nil {
		t.Error("a user token from outside was sent on")
	}
	ctx = metadata.NewOutgoingContext(member(t.Context(), t, n, "acme-inc", identity.RoleMember), evil)
	if err := issue(ctx, n.as("gateway"), "acme-inc"); !apierr.Has(err, apierr.ReasonPermissionDenied) {
		t.Errorf("the outer token won: %v", err)
	}
	if n.logs.Contains("evil-request-id") {
		t.Error("the request id from outside was taken over")
	}
}

func TestServer_forwardsTheUserUnchangedToTheNextService(t *testing.T) {
	first := newNode(t, open())
	conn, err := rpc.Dial(rpc.ClientConfig{Service: "deployer", TargetService: "auth", Keys: first.keys, Dialer: first.dial})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var caller, subject, requestID string
	first.auth.connect = func(ctx context.Context, _ *authv1.ConnectIntegrationRequest) (*authv1.ConnectIntegrationResponse, error) {
		id, _ := identity.FromContext(ctx)
		caller, subject, requestID = identity.CallerFromContext(ctx), id.Subject, rpc.RequestID(ctx)
		return &authv1.ConnectIntegrationResponse{}, nil
	}
	// The handler calls on, as the deployer does: here to another method of the same server.
	first.auth.issue = func(ctx context.Context, r *authv1.IssueTokenRequest) (*authv1.IssueTokenResponse, error) {
		_, err := authv1.NewAuthServiceClient(conn).ConnectIntegration(ctx, &authv1.ConnectIntegrationRequest{Workspace: r.GetWorkspace()})
		return &authv1.IssueTokenResponse{}, err
	}
	ctx := rpc.WithRequestID(member(t.Context(), t, first, "acme-inc", identity.RoleAdmin), "req-from-the-top")
	if err := issue(ctx, first.as("gateway"), "acme-inc"); err != nil {
		t.Fatal(err)
	}
	if caller != "deployer" || subject != "user-1" || requestID != "req-from-the-top" {
		t.Errorf("caller %q, subject %q, request id %q", caller, subject, requestID)
	}
}

func TestServer_health(t *testing.T) {
	n := newNode(t, open())
	res, err := healthpb.NewHealthClient(n.raw()).Check(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil || res.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("a probe without identity: %v, %v", res, err)
	}
}

func TestValidation_requiredFieldsAndWorkspace(t *testing.T) {
	n := newNode(t, open())
	for _, bad := range []string{"", "Acme", "-acme", "a.b", "a*", ">", "a b", "a/b", strings.Repeat("a", 64), "ä"} {
		kinds(t, func(t *testing.T, call func(context.Context, *grpc.ClientConn, string) error) {
			err := call(t.Context(), n.as("repo"), bad)
			e := apierr.From(err)
			if e.Reason() != apierr.ReasonInvalidArgument || len(e.Fields()) != 1 || e.Fields()[0].Name != "workspace" {
				t.Errorf("workspace %q: %v", bad, err)
			}
		})
	}
	for _, good := range []string{"a", "0", "acme-inc", strings.Repeat("a", 63)} {
		if err := issue(t.Context(), n.as("repo"), good); err != nil {
			t.Errorf("workspace %q: %v", good, err)
		}
	}
	s, err := deployerv1.NewDeployerServiceClient(n.as("repo")).ReadLog(t.Context(), &deployerv1.ReadLogRequest{Workspace: "acme-inc"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Recv()
	if fields := fmt.Sprint(apierr.From(err).Fields()); fields != "[{app is required} {number is required}]" {
		t.Errorf("%v: %s", err, fields)
	}
}

func TestCheckPolicy(t *testing.T) {
	keys := testkit.Keys(t)
	full := rpc.Policy{}
	for _, m := range authv1.AuthService_ServiceDesc.Methods {
		full["/devpilot.auth.v1.AuthService/"+m.MethodName] = rpc.Rule{Callers: []string{"gateway"}}
	}
	without := func(change func(rpc.Policy)) rpc.Policy {
		p := rpc.Policy{}
		for k, v := range full {
			p[k] = v
		}
		change(p)
		return p
	}
	for name, tc := range map[string]struct {
		policy rpc.Policy
		want   string
	}{
		"complete":           {full, ""},
		"a method forgotten": {without(func(p rpc.Policy) { delete(p, issueToken) }), issueToken + " has no rule"},
		"a rule too many":    {without(func(p rpc.Policy) { p[issueToken+"s"] = rpc.Rule{Callers: []string{"repo"}} }), "not registered"},
		"nobody may call":    {without(func(p rpc.Policy) { p[issueToken] = rpc.Rule{} }), "nobody may call"},
		"a role without a workspace": {without(func(p rpc.Policy) {
			p[authv1.AuthService_LookUpHandshake_FullMethodName] = rpc.Rule{Callers: []string{"gateway"}, MinRole: identity.RoleMember}
		}), "no workspace"},
	} {
		server, err := rpc.NewServer(rpc.ServerConfig{Service: "auth", Keys: keys, Policy: tc.policy, Logger: testkit.Logger(t).Logger})
		if err != nil {
			t.Fatal(err)
		}
		authv1.RegisterAuthServiceServer(server, &fakeAuth{})
		err = rpc.CheckPolicy(server, tc.policy)
		if (tc.want == "") != (err == nil) || (err != nil && !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := rpc.NewServer(rpc.ServerConfig{Service: "auth", Keys: keys, Logger: testkit.Logger(t).Logger,
		Policy: rpc.Policy{issueToken: {Callers: []string{"depoyler"}}}})
	if err == nil || !strings.Contains(err.Error(), `"depoyler"`) {
		t.Errorf("a caller that does not exist: %v", err)
	}
}

// Where the clocks of caller and server differ, the call is refused by what is wrong, and may go to another replica.
func TestServer_saysThatClocksDiffer(t *testing.T) {
	n := newNode(t, open())
	kinds(t, func(t *testing.T, call func(context.Context, *grpc.ClientConn, string) error) {
		for _, off := range []time.Duration{-time.Hour, 10 * time.Second, time.Hour} {
			md := metadata.Pairs("devpilot-caller-token", signedAt(t, n.keys, time.Now().Add(off), "devpilot-caller+jwt", jwt.MapClaims{"aud": "auth"}))
			err := call(metadata.NewOutgoingContext(t.Context(), md), n.raw(), "acme-inc")
			if status.Code(err) != codes.Unavailable || !apierr.Has(err, apierr.ReasonServiceUnavailable) || !strings.Contains(err.Error(), "clocks of Devpilot's machines differ") {
				t.Errorf("signed %v ahead: %v", off, err)
			}
		}
	})
	// Another answer is final; with this one the client may go on.
	for what, c := range map[string]struct {
		token string
		final bool
	}{
		"an hour ahead": {signedAt(t, n.keys, time.Now().Add(time.Hour), "devpilot-caller+jwt", jwt.MapClaims{"aud": "auth"}), false},
		"no token":      {"", true},
	} {
		var trailer metadata.MD
		_, err := authv1.NewAuthServiceClient(n.raw()).IssueToken(metadata.NewOutgoingContext(t.Context(), metadata.Pairs("devpilot-caller-token", c.token)),
			&authv1.IssueTokenRequest{Workspace: "acme-inc"}, grpc.Trailer(&trailer))
		if final := slices.Equal(trailer.Get("grpc-retry-pushback-ms"), []string{"-1"}); err == nil || final != c.final {
			t.Errorf("%s: %v, %v", what, trailer, err)
		}
	}
}

// TestServer_expiredUserTokens: history may have expired on its way through the product, the
// gateway's own word may not.
func TestServer_expiredUserTokens(t *testing.T) {
	n := newNode(t, open())
	expired := identity.WithUserToken(t.Context(), expiredToken(t, n.keys))
	had := true
	n.auth.issue = func(ctx context.Context, _ *authv1.IssueTokenRequest) (*authv1.IssueTokenResponse, error) {
		_, had = identity.FromContext(ctx)
		return &authv1.IssueTokenResponse{}, nil
	}
	if err := issue(expired, n.as("deployer"), "acme-inc"); err != nil || had {
		t.Errorf("from the deployer: %v, identity %v", err, had)
	}
	if err := issue(expired, n.as("gateway"), "acme-inc"); err == nil {
		t.Error("accepted from the gateway")
	}
}

// expiredToken signs a token of an hour ago with the gateway's key, read from a keys file.
func expiredToken(t *testing.T, keys *identity.Keys) string {
	t.Helper()
	return signedAt(t, keys, time.Now().Add(-time.Hour), "devpilot-user+jwt", jwt.MapClaims{"aud": "devpilot", "sub": "user-1", "knd": "session"})
}

// signedAt signs a token of a time with the gateway's key.
func signedAt(t *testing.T, keys *identity.Keys, at time.Time, typ string, claims jwt.MapClaims) string {
	t.Helper()
	key, id := gatewayKey(t, keys)
	claims["iss"], claims["iat"], claims["exp"] = "gateway", at.Unix(), at.Add(time.Minute).Unix()
	tok := jwt.NewWithClaims(jwt.SigningMethodEdDSA, claims)
	tok.Header["typ"], tok.Header["kid"] = typ, id
	s, err := tok.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
