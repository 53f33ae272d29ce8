package gateway_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/kv"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	gatewaystorev1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/store/v1"
)

type madeKey struct {
	Secret string
	APIKey struct {
		ID, Label, Role, Scope, Prefix, ExpireTime, LastUsedTime string
		Apps                                                     []string
	}
}

// program is a client with a new API key.
func (g *gate) program(workspace string, body map[string]any) (*client, madeKey) {
	g.t.Helper()
	var out madeKey
	with := map[string]any{"label": fmt.Sprint(body)}
	for k, v := range body {
		with[k] = v
	}
	g.withToken(adminToken).post("/v1/workspaces/"+workspace+"/apiKeys", with).want(http.StatusOK).into(&out)
	return g.withToken(out.Secret), out
}

// TestAPIKeys_scopeAndRole: what is left out follows from the other one; what contradicts is refused.
func TestAPIKeys_scopeAndRole(t *testing.T) {
	g := start(t)
	const keys = "/v1/workspaces/default/apiKeys"
	owner := g.withToken(adminToken)
	for _, row := range []struct{ role, scope, wantRole, wantScope string }{
		{"", "", "MEMBER", "DEPLOY"},
		{"MEMBER", "", "MEMBER", "DEPLOY"},
		{"ADMIN", "", "ADMIN", "ADMIN"},
		{"OWNER", "", "OWNER", "ADMIN"},
		{"", "READ", "MEMBER", "READ"},
		{"", "DEPLOY", "MEMBER", "DEPLOY"},
		{"", "ADMIN", "ADMIN", "ADMIN"},
		{"MEMBER", "READ", "MEMBER", "READ"},
		{"OWNER", "ADMIN", "OWNER", "ADMIN"},
		{"ADMIN", "READ", "", ""},
		{"OWNER", "DEPLOY", "", ""},
		{"MEMBER", "ADMIN", "", ""},
	} {
		body := map[string]any{"label": "x"}
		if row.role != "" {
			body["role"] = row.role
		}
		if row.scope != "" {
			body["scope"] = row.scope
		}
		for _, dry := range []bool{true, false} {
			body["validateOnly"] = dry
			a := owner.post(keys, body)
			if row.wantScope == "" {
				if p := a.problem(http.StatusBadRequest, "INVALID_ARGUMENT"); p.Fields[0].Name != "scope" {
					t.Errorf("%+v: %+v", row, p.Fields)
				}
				continue
			}
			var made madeKey
			a.want(http.StatusOK).into(&made)
			if made.APIKey.Role != row.wantRole || made.APIKey.Scope != row.wantScope || (made.Secret == "") != dry {
				t.Errorf("%+v, dry %v: %+v", row, dry, made.APIKey)
			}
		}
	}
}

// TestAPIKeys_apps: ids are those of apps that are there, each once, and not too many; the key and /v1/me tell them.
func TestAPIKeys_apps(t *testing.T) {
	g := start(t)
	g.deployer.on("GetApp", func(_ context.Context, in proto.Message) (proto.Message, error) {
		id := in.(*deployerv1.GetAppRequest).GetApp()
		if id == "wbe" {
			return nil, apierr.Newf(apierr.ReasonAppNotFound, "There is no app %q.", id)
		}
		return &deployerv1.GetAppResponse{App: &deployerv1.App{Id: id}}, nil
	})
	const keys = "/v1/workspaces/default/apiKeys"
	owner := g.withToken(adminToken)
	many := make([]string, identity.MaxApps+1)
	for i := range many {
		many[i] = fmt.Sprint("app-", i)
	}
	for field, apps := range map[string][]string{"apps[1]": {"web", "wbe"}, "apps[2]": {"web", "api", "web"}, "apps[0]": {"Web!"}, "apps": many} {
		p := owner.post(keys, map[string]any{"label": "x", "apps": apps}).problem(http.StatusBadRequest, "INVALID_ARGUMENT")
		if len(p.Fields) != 1 || p.Fields[0].Name != field {
			t.Errorf("%v: %+v", apps, p.Fields)
		}
	}
	ci, made := g.program("default", map[string]any{"scope": "DEPLOY", "apps": []string{"web", "api"}, "expireTime": time.Now().Add(time.Hour).UTC().Format(time.RFC3339)})
	if !slices.Equal(made.APIKey.Apps, []string{"api", "web"}) {
		t.Errorf("made %+v", made.APIKey)
	}
	var me struct {
		Kind   string
		APIKey struct {
			ID, Scope, ExpireTime string
			Apps                  []string
		}
	}
	ci.get("/v1/me").want(http.StatusOK).into(&me)
	if me.Kind != "API_KEY" || me.APIKey.ID != made.APIKey.ID || me.APIKey.Scope != "DEPLOY" || !slices.Equal(me.APIKey.Apps, []string{"api", "web"}) || me.APIKey.ExpireTime == "" {
		t.Errorf("me %+v", me)
	}
	p := ci.post("/v1/workspaces/default/apps/shop/deployments", `{}`).problem(http.StatusForbidden, "PERMISSION_DENIED")
	if !strings.Contains(p.Detail, "only for the apps api, web") {
		t.Errorf("%s", p.Detail)
	}
	ci.post("/v1/workspaces/default/apps/web/deployments", `{}`).want(http.StatusOK)
	if user := g.deployer.asked("CreateDeployment")[0].user; user.Scope != identity.ScopeDeploy || user.Apps != identity.LimitedTo("web", "api") {
		t.Errorf("the deployer hears of %+v", user)
	}
	// A key of everything has no list, and is no other than before.
	if a := owner.get("/v1/me").want(http.StatusOK); strings.Contains(string(a.body), "apiKey") {
		t.Errorf("the admin token is a key: %s", a.body)
	}
	if all, _ := g.program("default", map[string]any{"scope": "READ"}); strings.Contains(string(all.get("/v1/me").want(http.StatusOK).body), "apps") {
		t.Error("no limit is shown as one")
	}
}

// TestAPIKeys_ofBeforeScopes: they work on, with the scope of their role.
func TestAPIKeys_ofBeforeScopes(t *testing.T) {
	g := start(t)
	bucket, err := kv.Open[gatewaystorev1.ApiKey](t.Context(), g.js, kv.Config{Name: "gateway_api_keys", Version: 1, Inventory: "gateway", Logger: g.logs.Logger})
	if err != nil {
		t.Fatal(err)
	}
	for role, row := range map[string]struct {
		scope  string
		update int
	}{"MEMBER": {"DEPLOY", http.StatusForbidden}, "ADMIN": {"ADMIN", http.StatusOK}, "OWNER": {"ADMIN", http.StatusOK}} {
		old, made := g.program("default", map[string]any{"role": role})
		if _, _, err := bucket.Update(t.Context(), made.APIKey.ID, func(k *gatewaystorev1.ApiKey) (*gatewaystorev1.ApiKey, error) {
			k.Scope = ""
			return k, nil
		}); err != nil {
			t.Fatal(err)
		}
		old.post("/v1/workspaces/default/apps/web/deployments", `{}`).want(http.StatusOK)
		old.send(http.MethodPatch, "/v1/workspaces/default/apps/web", `{"branch":"main"}`).want(row.update)
		var me struct{ APIKey struct{ Scope string } }
		old.get("/v1/me").want(http.StatusOK).into(&me)
		if me.APIKey.Scope != row.scope {
			t.Errorf("a key with the role %s has the scope %q", role, me.APIKey.Scope)
		}
	}
}

// TestAPIKeys_requestIDKnowsScopeAndApps: a repeat answers the same key, and another question under its id is refused.
func TestAPIKeys_requestIDKnowsScopeAndApps(t *testing.T) {
	g := start(t)
	const keys = "/v1/workspaces/default/apiKeys"
	owner := g.withToken(adminToken)
	body := map[string]any{"label": "x", "scope": "READ", "apps": []string{"web"}, "requestId": "once"}
	var first, second madeKey
	owner.post(keys, body).want(http.StatusOK).into(&first)
	owner.post(keys, body).want(http.StatusOK).into(&second)
	if first.Secret == "" || first.Secret != second.Secret || second.APIKey.Scope != "READ" {
		t.Errorf("%+v and %+v", first, second)
	}
	body["scope"] = "DEPLOY"
	owner.post(keys, body).problem(http.StatusConflict, "REQUEST_ID_REUSED")
	body["scope"], body["apps"] = "READ", []string{"api"}
	owner.post(keys, body).problem(http.StatusConflict, "REQUEST_ID_REUSED")
}

// TestAPIKeys_eventsOfTheirApps: a key that is limited hears of its apps and their deployments, also of what it missed.
func TestAPIKeys_eventsOfTheirApps(t *testing.T) {
	g := start(t)
	c, _ := g.program("default", map[string]any{"scope": "READ", "apps": []string{"web"}})
	s := c.stream("/v1/workspaces/default/events")
	ready := s.want("ready")
	publish := func() {
		g.happen("deployer", "default", "app", "shop")
		g.happen("deployer", "default", "deployment", "shop/3")
		g.happen("webhook", "default", "webhook", "web")
		g.happen("deployer", "default", "app", "webshop")
		g.happen("deployer", "default", "app", "web")
		g.happen("deployer", "default", "deployment", "web/7")
	}
	publish()
	for _, want := range []string{`"id":"web"`, `"id":"web/7"`} {
		if e := s.want("change"); !strings.Contains(e.data, want) {
			t.Errorf("heard of %s, not of %s", e.data, want)
		}
	}
	s.close()
	again := c.stream("/v1/workspaces/default/events", with("Last-Event-ID", ready.id))
	for _, want := range []string{`"id":"web"`, `"id":"web/7"`} {
		if e := again.want("change"); !strings.Contains(e.data, want) {
			t.Errorf("missed %s, not %s", e.data, want)
		}
	}
	again.want("ready")
}

// TestAPIKeys_membersSeeAndEndTheirOwn, and nobody else's; a key ends itself whatever it may, and no other one with the
// scope READ.
func TestAPIKeys_membersSeeAndEndTheirOwn(t *testing.T) {
	p := provider(t)
	g := start(t, withProviders(t, roleRules, p))
	mia, max, owner := g.signInAs(p, "mia", "members"), g.signInAs(p, "max", "members"), g.signInAs(p, "olga", "owners")
	login := func(person *client, scope string) (key told) {
		cli := g.anybody()
		a := cli.login("laptop")
		person.post(a.approve("acme"), map[string]any{"scope": scope}).want(http.StatusOK)
		cli.redeem(a).want(http.StatusOK).into(&key)
		return key
	}
	const keys = "/v1/workspaces/acme/apiKeys"
	listed := func(c *client) (ids []string) {
		var list struct {
			APIKeys []struct{ ID string }
		}
		c.get(keys).want(http.StatusOK).into(&list)
		for _, k := range list.APIKeys {
			ids = append(ids, k.ID)
		}
		return ids
	}
	end := func(c *client, key told) *answer { return c.send(http.MethodDelete, keys+"/"+key.APIKey.ID, "") }
	reads, deploys, his := login(mia, "READ"), login(mia, "DEPLOY"), login(max, "DEPLOY")
	own := []string{reads.APIKey.ID, deploys.APIKey.ID}
	for name, c := range map[string]*client{"mia": mia, "her key": g.withToken(deploys.Secret), "her key that reads": g.withToken(reads.Secret)} {
		if got := listed(c); !slices.Equal(got, own) {
			t.Errorf("%s sees %q, not %q", name, got, own)
		}
		end(c, his).problem(http.StatusNotFound, "API_KEY_NOT_FOUND")
	}
	if got := listed(owner); len(got) != 3 {
		t.Errorf("the owner sees %q", got)
	}
	end(g.withToken(reads.Secret), deploys).problem(http.StatusNotFound, "API_KEY_NOT_FOUND")
	g.withToken(deploys.Secret).get("/v1/me").want(http.StatusOK)
	mia.post(keys, map[string]any{"label": "mine"}).problem(http.StatusForbidden, "PERMISSION_DENIED")

	end(g.withToken(reads.Secret), reads).want(http.StatusOK)
	g.withToken(reads.Secret).get("/v1/me").problem(http.StatusUnauthorized, "UNAUTHENTICATED")
	end(mia, deploys).want(http.StatusOK)
	g.withToken(deploys.Secret).get("/v1/me").problem(http.StatusUnauthorized, "UNAUTHENTICATED")
	if made := waitActivity(t, owner, "acme", func(r record) bool { return r.Action == "apiKey.delete" && r.Succeeded }); !strings.Contains(made.Message, "devpilot on laptop") {
		t.Errorf("activity: %+v", made)
	}
	// An admin's program may end another's key with the scope ADMIN alone.
	narrow, wide := login(owner, "DEPLOY"), login(owner, "ADMIN")
	end(g.withToken(narrow.Secret), his).problem(http.StatusNotFound, "API_KEY_NOT_FOUND")
	end(g.withToken(wide.Secret), his).want(http.StatusOK)
	g.withToken(his.Secret).get("/v1/me").problem(http.StatusUnauthorized, "UNAUTHENTICATED")
}
