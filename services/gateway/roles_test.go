package gateway_test

import (
	"net/http"
	"strings"
	"testing"

	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/services/gateway/internal/routes"
)

// pathOf fills the variables of a template.
func pathOf(r routes.Route, workspace string) string {
	query := ""
	if strings.HasSuffix(r.RPC, "/SuggestServe") {
		query = "?commit=" + strings.Repeat("a", 40)
	}
	return strings.NewReplacer(
		"{workspace}", workspace, "{app}", "web", "{app_id}", "web", "{number}", "1", "{repository}", "0a1b2c3d-0000-4000-8000-000000000001",
		"{webhook}", "wh1", "{delivery}", "1", "{api_key}", "0123456789abcdef", "{target}", "0123456789abcdef", "{target_id}", "0123456789abcdef",
		"{member}", "person-0123456789abcdef", "{invitation}", "0123456789abcdef", "{session}", "0123456789abcdef", "{user_code}", "BCDF-GHJK",
	).Replace(r.Template) + query
}

// bodyOf is the least body that the route's request message needs.
func bodyOf(r routes.Route) string {
	switch {
	case r.Body == "":
		return ""
	case strings.HasSuffix(r.RPC, "/CreateApp"):
		return `{"appId":"web","app":{"repository":"c7e5b1a8-3f0d-4b5e-9a43-5d2f7f9a1c10","branch":"main"}}`
	case strings.HasSuffix(r.RPC, "/CreateWorkspace"):
		return `{"workspaceId":"another"}`
	case strings.HasSuffix(r.RPC, "/SetMemberRole"):
		return `{"role":"MEMBER"}`
	case strings.HasSuffix(r.RPC, "/CreateInvitation"):
		return `{"email":"jane@example.com"}`
	case strings.HasSuffix(r.RPC, "/CreateApiKey"):
		return `{"label":"ci"}`
	case strings.HasSuffix(r.RPC, "/ReplayDeliveries"):
		return `{"first":1,"last":2}`
	case strings.HasSuffix(r.RPC, "/NarrowIntegration"):
		return `{"bitbucketWorkspaces":[]}`
	case strings.HasSuffix(r.RPC, "/CreateNotificationTarget"):
		return `{"target":{"kind":"SLACK","label":"team","url":"https://hooks.example.com/x","events":["CONNECTION"]}}`
	case strings.HasSuffix(r.RPC, "/RedeemLoginRequest"):
		return `{"deviceCode":"dpl_BCDFGHJK_x"}`
	case strings.HasSuffix(r.RPC, "/CreateSession"):
		return `{"token":"` + adminToken + `"}`
	}
	return `{}`
}

// TestRoutes_outsideWorkspaces asks what belongs to no workspace.
func TestRoutes_outsideWorkspaces(t *testing.T) {
	g := start(t)
	key := g.key("default", "OWNER")
	for _, r := range routes.All() {
		if strings.Contains(r.Template, "{workspace}") {
			continue
		}
		path := pathOf(r, "")
		a := g.anybody().send(r.Method, path, bodyOf(r))
		switch {
		case r.Access == routes.Authenticated:
			a.problem(http.StatusUnauthorized, "UNAUTHENTICATED")
		case strings.HasSuffix(r.RPC, "/RedeemLoginRequest"):
			a.problem(http.StatusNotFound, "LOGIN_REQUEST_NOT_FOUND")
		default:
			a.want(http.StatusOK)
		}
		switch {
		case r.Browser:
			key.send(r.Method, path, bodyOf(r)).problem(http.StatusForbidden, "BROWSER_REQUIRED")
		case strings.HasSuffix(r.RPC, "/RedeemLoginRequest"):
			key.send(r.Method, path, bodyOf(r)).problem(http.StatusNotFound, "LOGIN_REQUEST_NOT_FOUND")
		case r.Operator, strings.HasSuffix(r.RPC, "/CreateWorkspace"), strings.HasSuffix(r.RPC, "/CreateSignInCode"):
			key.send(r.Method, path, bodyOf(r)).problem(http.StatusForbidden, "PERMISSION_DENIED")
		case strings.HasSuffix(r.RPC, "/EndSession"):
			key.send(r.Method, path, bodyOf(r)).problem(http.StatusNotFound, "SESSION_NOT_FOUND")
		default:
			key.send(r.Method, path, bodyOf(r)).want(http.StatusOK)
		}
	}
}

// TestRoutes_tablesAreComplete holds the tables against the protos.
func TestRoutes_tablesAreComplete(t *testing.T) {
	all, roles := routes.Roles(), routes.Roles() // an RPC may have several routes
	for _, r := range routes.All() {
		if r.RPC == "" {
			continue
		}
		if _, ok := all[r.RPC]; !ok {
			t.Errorf("%s has no row in the role table", r.RPC)
		}
		delete(roles, r.RPC)
		action, ok := routes.ActionOf(r.RPC)
		if ok == r.ReadOnly {
			t.Errorf("%s: read-only %v, in the table of actions %v", r.RPC, r.ReadOnly, ok)
		}
		if ok && action.Name != "" && (action.Did == "" || action.Target == nil) {
			t.Errorf("%s: incomplete action", r.RPC)
		}
		if ok && action.Name == "" && strings.Contains(r.Template, "{workspace}") {
			t.Errorf("%s changes something in a workspace and is not recorded", r.RPC)
		}
		if r.Method == http.MethodGet && !r.ReadOnly {
			t.Errorf("GET %s changes something", r.Template)
		}
	}
	for full := range roles {
		t.Errorf("%s is in the role table and no route", full)
	}
}

// TestIdentity_isSignedForTheWorkspaceOfThePath checks what a service learns about the caller.
func TestIdentity_isSignedForTheWorkspaceOfThePath(t *testing.T) {
	g := start(t)
	g.workspace("acme")
	g.key("acme", "MEMBER").get("/v1/workspaces/acme/apps", with("X-Request-Id", "my-request-1")).want(http.StatusOK)
	g.signedIn().get("/v1/workspaces/acme/apps").want(http.StatusOK)
	calls := g.deployer.asked("ListApps")
	if len(calls) != 2 {
		t.Fatalf("%d calls", len(calls))
	}
	key, owner := calls[0].user, calls[1].user
	if key.SubjectKind != identity.SubjectAPIKey || key.Role != identity.RoleMember || key.Workspace != "acme" || key.RequestID != "my-request-1" || key.Label != "MEMBER" {
		t.Errorf("the key's identity: %+v", key)
	}
	if calls[0].rid != "my-request-1" {
		t.Errorf("request id %q", calls[0].rid)
	}
	if owner.SubjectKind != identity.SubjectSession || owner.Subject != "local" || owner.Role != identity.RoleOwner {
		t.Errorf("the session's identity: %+v", owner)
	}
}
