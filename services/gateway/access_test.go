package gateway_test

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/services/gateway/internal/routes"
)

// somebody is one kind of caller of the workspace acme, and what it has there.
type somebody struct {
	name  string
	c     *client
	role  identity.Role
	scope identity.Scope // ScopeNone for people
	apps  identity.Apps
	// operates says that it is an operator of the installation.
	operates bool
}

// may says whether the table of internal/routes lets somebody in: the least role; of programs also the scope,
// which follows from the role and from whether the proto says that nothing is changed; and of those that are
// limited to some apps also that the request names one of these, or the answer leaves the others out.
func (s somebody) may(r routes.Route, app string) bool {
	switch {
	case takesSession(r) && s.name == "the admin token":
		return false
	case r.Operator && !s.operates:
		return false
	case r.NoPrograms && s.scope != identity.ScopeNone:
		return false
	case r.NoTokens && strings.HasPrefix(s.name, "a token"), r.Browser && s.scope != identity.ScopeNone, s.role < r.Role:
		return false
	case s.scope == identity.ScopeNone:
		return true
	case s.scope < r.Scope():
		return false
	}
	return !s.apps.Limited() || r.Role == identity.RoleNone || r.OfApps || r.NamesApp() && s.apps.Has(app)
}

// takesSession tells what only a session may do, not even the admin token: to let a command line in.
func takesSession(r routes.Route) bool { return strings.Contains(r.Template, "{user_code}") }

const roleRules = `      - {workspace: acme, role: owner, group: owners}
      - {workspace: acme, role: admin, group: admins}
      - {workspace: acme, role: member, group: members}
      - {workspace: rival, role: owner, group: rivals}
      - {role: operator, group: operators}
`

// everybody lists all kinds of callers that are of the workspace.
func everybody(g *gate, p, ci *idp) []somebody {
	all := []somebody{
		{name: "a session of an owner", c: g.signInAs(p, "olga", "owners"), role: identity.RoleOwner},
		{name: "a session of an admin", c: g.signInAs(p, "adam", "admins"), role: identity.RoleAdmin},
		{name: "a session of a member", c: g.signInAs(p, "mia", "members"), role: identity.RoleMember},
		{name: "the admin token", c: g.withToken(adminToken), role: identity.RoleOwner, operates: true},
		{name: "a session of the local owner", c: g.signedIn(), role: identity.RoleOwner, operates: true},
		{name: "a session of a member who is an operator", c: g.signInAs(p, "opal", "members", "operators"), role: identity.RoleMember, operates: true},
	}
	for _, k := range []struct{ role, scope string }{{"MEMBER", "READ"}, {"MEMBER", "DEPLOY"}, {"ADMIN", "ADMIN"}, {"OWNER", "ADMIN"}} {
		for _, apps := range [][]string{nil, {"web"}, {"api", "shop"}} {
			body := map[string]any{"role": k.role, "scope": k.scope, "apps": apps}
			c, made := g.program("acme", body)
			role, err := identity.ParseRole(k.role)
			if err != nil {
				g.t.Fatal(err)
			}
			scope, err := identity.ParseScope(k.scope)
			if err != nil {
				g.t.Fatal(err)
			}
			all = append(all, somebody{name: "a key " + made.APIKey.Label, c: c, role: role, scope: scope, apps: identity.LimitedTo(apps...)})
		}
	}
	for i, scope := range []identity.Scope{identity.ScopeRead, identity.ScopeDeploy, identity.ScopeAdmin} {
		for branch, apps := range map[string][]string{"all": nil, "some": {"web"}, "others": {"api", "shop"}} {
			token := ci.pipelineToken(map[string]any{"branchName": branch, "stepUuid": fmt.Sprint(i)})
			all = append(all, somebody{name: "a token " + branch + " " + scope.String(), c: g.withToken(token), role: scope.Role(), scope: scope, apps: identity.LimitedTo(apps...)})
		}
	}
	return all
}

// tokenRules give tokens each scope, for all apps and for some.
func tokenRules() string {
	var b strings.Builder
	for i, scope := range []string{"read", "deploy", "admin"} {
		for branch, apps := range map[string]string{"all": "", "some": "web", "others": "api, shop"} {
			fmt.Fprintf(&b, "      - {scope: %s, apps: [%s], claims: {branchName: %s, stepUuid: %q}}\n", scope, apps, branch, fmt.Sprint(i))
		}
	}
	return b.String()
}

// nobodies lists the callers that are not: 404 where they are of another workspace, else 401.
func nobodies(g *gate, p, ci *idp) (strangers, dead []somebody) {
	rivalKey, _ := g.program("rival", map[string]any{"role": "OWNER"})
	strangers = []somebody{
		{name: "a session of another workspace's owner", c: g.signInAs(p, "rita", "rivals")},
		{name: "a key of another workspace", c: rivalKey},
	}
	revoked, gone := g.program("acme", map[string]any{"role": "OWNER"})
	g.withToken(adminToken).send(http.MethodDelete, "/v1/workspaces/acme/apiKeys/"+gone.APIKey.ID, "").want(http.StatusOK)
	expired, _ := g.program("acme", map[string]any{"role": "OWNER", "expireTime": g.clock.now().Add(time.Minute).UTC().Format(time.RFC3339Nano)})
	living, _ := g.program("acme", map[string]any{"role": "OWNER"})
	last := living.bearer[len(living.bearer)-1]
	other := map[bool]string{true: "B", false: "A"}[last == 'A']
	g.clock.forward(2 * time.Minute)

	signedOut := g.signInAs(p, "olga", "owners")
	cookie := signedOut.cookies()[0]
	signedOut.send(http.MethodDelete, "/v1/session", "").want(http.StatusOK)
	withCookie := func(value string) *client {
		c := g.anybody()
		c.cookie = cookie.Name + "=" + value
		return c
	}
	dead = []somebody{
		{name: "nobody", c: g.anybody()},
		{name: "a key that was revoked", c: revoked},
		{name: "a key that has expired", c: expired},
		{name: "a key with another secret", c: g.withToken(living.bearer[:len(living.bearer)-1] + other)},
		{name: "a key's id alone", c: g.withToken("dpk_" + strings.Split(living.bearer, "_")[1] + "_")},
		{name: "a session that was signed out, replayed", c: withCookie(cookie.Value)},
		{name: "a forged session", c: withCookie(cookie.Value[:len(cookie.Value)-8] + "AAAAAAAA")},
		{name: "another admin token", c: g.withToken(adminToken + "x")},
		{name: "a token that has expired", c: g.withToken(ci.pipelineToken(map[string]any{"branchName": "all", "stepUuid": "2", "exp": time.Now().Add(time.Minute).Unix()}))},
		{name: "a token for another audience", c: g.withToken(ci.pipelineToken(map[string]any{"branchName": "all", "stepUuid": "2", "aud": "another"}))},
		{name: "a token of another issuer", c: g.withToken(p.pipelineToken(map[string]any{"branchName": "all", "stepUuid": "2"}))},
		{name: "a forged token", c: g.withToken(p.pipelineToken(map[string]any{"branchName": "all", "stepUuid": "2", "iss": ci.url}))},
	}
	return strangers, dead
}

// TestAccess_table asks every route in a workspace as every kind of caller, and holds the answers against the
// table of internal/routes, which REFERENCE.md and the OpenAPI document publish.
func TestAccess_table(t *testing.T) {
	p, ci := provider(t), provider(t)
	g := start(t, withProviders(t, roleRules, p), withTokens(t, tokenRules(), ci))
	g.deployer.onStream("ReadLog", endedLog)
	strangers, dead := nobodies(g, p, ci)
	all := everybody(g, p, ci)
	asked := 0
	for _, r := range routes.All() {
		if r.Access != routes.Authenticated || !strings.Contains(r.Template, "{workspace}") {
			continue
		}
		if r.Role == identity.RoleNone {
			t.Fatalf("%s is in a workspace and needs no role", r.RPC)
		}
		path, body := pathOf(r, "acme"), bodyOf(r)
		if r.Template == routes.EventsTemplate {
			path += "?lastEventId=none" // a mistake, so that it ends: who may not is told so before
		}
		if strings.HasSuffix(r.RPC, "/DeleteWorkspace") {
			path += "?etag=another" // else nobody would be let in any more
		}
		for _, who := range all {
			asked++
			a := who.c.send(r.Method, path, body)
			refused := a.status == http.StatusForbidden || a.status == http.StatusUnauthorized || strings.Contains(string(a.body), "WORKSPACE_NOT_FOUND")
			if may := who.may(r, "web"); may == refused {
				t.Errorf("%s %s: %s may: %v, and was answered %d %s", r.Method, r.Template, who.name, may, a.status, a.body)
			}
			if a.status >= http.StatusInternalServerError {
				t.Errorf("%s %s as %s: %d %s", r.Method, r.Template, who.name, a.status, a.body)
			}
			if refused && r.Browser && (who.scope != identity.ScopeNone || takesSession(r)) {
				a.problem(http.StatusForbidden, "BROWSER_REQUIRED")
			} else if refused {
				a.problem(http.StatusForbidden, "PERMISSION_DENIED")
			}
		}
		for _, who := range strangers {
			who.c.send(r.Method, path, body).problem(http.StatusNotFound, "WORKSPACE_NOT_FOUND")
		}
		for _, who := range dead {
			who.c.send(r.Method, path, body).problem(http.StatusUnauthorized, "UNAUTHENTICATED")
		}
		all[0].c.send(r.Method, pathOf(r, "nowhere"), body).problem(http.StatusNotFound, "WORKSPACE_NOT_FOUND")
	}
	if asked < 50*len(all) {
		t.Errorf("only %d questions", asked)
	}
}

// TestAccess_outsideWorkspaces does the same with what belongs to no workspace. The one who signs out comes last.
func TestAccess_outsideWorkspaces(t *testing.T) {
	p, ci := provider(t), provider(t)
	g := start(t, withProviders(t, roleRules, p), withTokens(t, tokenRules(), ci))
	_, dead := nobodies(g, p, ci)
	all := everybody(g, p, ci)
	list := slices.DeleteFunc(routes.All(), func(r routes.Route) bool {
		return strings.Contains(r.Template, "{workspace}") || r.Access == routes.Public
	})
	slices.SortStableFunc(list, func(a, b routes.Route) int {
		return cmp.Compare(strings.Count(a.RPC, "DeleteSession"), strings.Count(b.RPC, "DeleteSession"))
	})
	for _, r := range list {
		path, body := pathOf(r, ""), bodyOf(r)
		for _, who := range all {
			a := who.c.send(r.Method, path, body)
			may := who.may(r, "")
			if strings.HasSuffix(r.RPC, "/CreateSignInCode") {
				may = who.name == "the admin token"
			}
			if refused := a.status == http.StatusForbidden || a.status == http.StatusUnauthorized; may == refused || a.status >= http.StatusInternalServerError {
				t.Errorf("%s %s: %s may: %v, and was answered %d %s", r.Method, r.Template, who.name, may, a.status, a.body)
			}
		}
		for _, who := range dead {
			if a := who.c.send(r.Method, path, body); r.Access == routes.Authenticated {
				a.problem(http.StatusUnauthorized, "UNAUTHENTICATED")
			} else {
				a.want(http.StatusOK)
			}
		}
	}
}

// TestAccess_scopesMeanWhatTheySay pins what the rule makes of some calls: a mistake in a proto would move them.
func TestAccess_scopesMeanWhatTheySay(t *testing.T) {
	want := map[string]identity.Scope{
		"ListApps": identity.ScopeRead, "GetDeployment": identity.ScopeRead, "ReadLog": identity.ScopeRead, "CheckPush": identity.ScopeRead, "Explain": identity.ScopeRead,
		"CreateDeployment": identity.ScopeDeploy, "CancelDeployment": identity.ScopeDeploy, "RedeployDeployment": identity.ScopeDeploy, "RollBackApp": identity.ScopeDeploy,
		"CreateApp": identity.ScopeAdmin, "UpdateApp": identity.ScopeAdmin, "DeleteApp": identity.ScopeAdmin, "ListApiKeys": identity.ScopeRead, "DeleteApiKey": identity.ScopeRead, "CreateApiKey": identity.ScopeAdmin,
		"RevealWebhookSecret": identity.ScopeAdmin, "ConnectIntegration": identity.ScopeAdmin, "ReplayDelivery": identity.ScopeAdmin, "RefreshIntegration": identity.ScopeAdmin,
	}
	for _, r := range routes.All() {
		method := r.RPC[strings.LastIndex(r.RPC, "/")+1:]
		if scope, ok := want[method]; ok && r.Scope() != scope {
			t.Errorf("%s takes the scope %s, not %s", method, r.Scope(), scope)
		}
		delete(want, method)
	}
	if len(want) != 0 {
		t.Errorf("no route of %v", want)
	}
}
