package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// key makes an API key of a role, plants its secret, and returns its caller.
func (n *tenant) key(role string) *api {
	n.t.Helper()
	made := n.api.must("POST", n.path("/apiKeys"), object{"label": "e2e " + role, "role": role})
	secret, _ := made["secret"].(string)
	if secret == "" {
		n.t.Fatalf("an API key without a secret: %v", made["apiKey"])
	}
	n.plant("API key", secret)
	caller := newBrowser(n.t, n.url())
	caller.http.Jar, caller.bearer = nil, secret
	return caller
}

// tenancy holds three roles and two workspaces against what they may do and see.
func tenancy(t *testing.T, s *shared) {
	site := s.site()
	repo := site.repository(t, "tenancy", "site")
	n, strangers := s.tenant(t, "tenancy"), s.unconnected(t, "strangers")
	app := n.app("web", repo, "main")
	webhook := fmt.Sprint(dig(app, "webhook", "id"))
	member, admin, stranger := n.key("MEMBER"), n.key("ADMIN"), strangers.key("OWNER")
	silent := strangers.follow(stranger, strangers.path("/events"), "")
	silent.until(t, func(e sse) bool { return e.name == "ready" })
	loud := n.follow(member, n.path("/events"), "")
	loud.until(t, func(e sse) bool { return e.name == "ready" })

	for _, one := range []struct {
		method, path string
		body         object
	}{
		{"POST", "/integrations/bitbucket:connect", object{}},
		{"POST", "/integrations/bitbucket:refresh", object{}},
		{"DELETE", "/integrations/bitbucket", nil},
		{"POST", "/webhooks/" + webhook + ":revealSecret", object{}},
		{"POST", "/webhooks/" + webhook + ":rotateSecret", object{}},
		{"POST", "/webhooks/" + webhook + ":register", object{}},
		{"POST", "/apps", object{"appId": "mine", "app": object{"repository": repo.id, "branch": "main"}}},
		{"PATCH", "/apps/web", object{"autoDeploy": false}},
		{"DELETE", "/apps/web", nil},
		{"POST", "/apiKeys", object{"label": "more", "role": "OWNER"}},
	} {
		var body any
		if one.body != nil {
			body = one.body
		}
		reason := "PERMISSION_DENIED"
		if one.path == "/integrations/bitbucket:connect" {
			reason = "BROWSER_REQUIRED" // of any key, whatever its role
		}
		if p := member.refused(one.method, n.path("%s", one.path), body, reason); p.Status != http.StatusForbidden {
			t.Errorf("a member's %s %s: %d", one.method, one.path, p.Status)
		}
		if p := stranger.refused(one.method, n.path("%s", one.path), body, "WORKSPACE_NOT_FOUND"); p.Status != http.StatusNotFound {
			t.Errorf("a stranger's %s %s: %d", one.method, one.path, p.Status)
		}
	}
	if state := n.api.get(n.path("/integrations/bitbucket"))["state"]; state != "CONNECTED" {
		t.Errorf("after all that was refused the integration is %v", state)
	}

	// A member reads and deploys; an admin does more.
	number := member.must("POST", n.path("/apps/web/deployments"), object{})["number"]
	n.live("web", site.head(t, repo, "main"))
	loud.until(t, func(e sse) bool { return strings.Contains(e.data, `"deployment"`) && strings.Contains(e.data, "web/") })
	reads := []string{
		"/apps", "/apps/web", "/apps/web/deployments", "/apps/web/deliveries", fmt.Sprintf("/apps/web/deployments/%v", number),
		"/webhooks", "/webhooks/" + webhook, "/webhooks/" + webhook + "/deliveries", "/integrations", "/integrations/bitbucket",
		"/repositories", "/repositories/" + repo.id, "/repositories/" + repo.id + "/branches", "/activity",
		"/apiKeys", // the own ones
	}
	for _, path := range reads {
		member.get(n.path("%s", path))
		stranger.refused("GET", n.path("%s", path), nil, "WORKSPACE_NOT_FOUND")
	}
	stranger.refused("GET", n.path("/events"), nil, "WORKSPACE_NOT_FOUND")
	stranger.refused("GET", n.path("/apps/web/deployments/%v/log", number), nil, "WORKSPACE_NOT_FOUND")
	admin.must("POST", n.path("/apps"), object{"appId": "second", "app": object{"repository": repo.id, "branch": "develop"}})
	if shown := admin.must("POST", n.path("/webhooks/%s:revealSecret", webhook), object{}); shown["secret"] == nil {
		t.Error("an admin is shown no secret")
	}

	foreignNames(t, strangers, stranger, repo, webhook)
	if heard := silent.heard(); strings.Contains(heard, "change") {
		t.Errorf("the other workspace's stream of events said %q", heard)
	}
	problems(t, s)
}

// foreignNames asks for one workspace's things by their names in another workspace.
func foreignNames(t *testing.T, strangers *tenant, stranger *api, repo repository, webhook string) {
	t.Helper()
	for path, reason := range map[string]string{
		"/apps/web":                            "APP_NOT_FOUND",
		"/apps/web/deployments":                "APP_NOT_FOUND",
		"/apps/web/deployments/1":              "",
		"/apps/web/deployments/1/log":          "",
		"/apps/web/deliveries":                 "APP_NOT_FOUND",
		"/webhooks/" + webhook:                 "WEBHOOK_NOT_FOUND",
		"/webhooks/" + webhook + "/deliveries": "WEBHOOK_NOT_FOUND",
		"/repositories/" + repo.id:             "NOT_CONNECTED",
		"/repositories":                        "NOT_CONNECTED",
	} {
		p := stranger.do("GET", strangers.path("%s", path), nil, nil)
		if p == nil || reason != "" && p.Reason != reason || reason == "" && p.Status != http.StatusNotFound {
			t.Errorf("in another workspace %s answers %+v, want %s", path, p, reason)
		}
	}
	stranger.refused("POST", strangers.path("/webhooks/%s:revealSecret", webhook), object{}, "WEBHOOK_NOT_FOUND")
	for path, list := range map[string]string{"/apps": "apps", "/webhooks": "webhooks"} {
		if got := asList(stranger.get(strangers.path("%s", path))[list]); len(got) != 0 {
			t.Errorf("the other workspace's %s: %v", path, got)
		}
	}
	for _, w := range objects(stranger.get("/v1/workspaces")["workspaces"]) {
		if w["id"] != strangers.workspace {
			t.Errorf("a key of %s sees workspace %v", strangers.workspace, w["id"])
		}
	}
}

// problems asks for nothing sensible: every answer is a problem document.
func problems(t *testing.T, s *shared) {
	t.Helper()
	nobody := newBrowser(t, s.url())
	nobody.refused("GET", "/v1/me", nil, "UNAUTHENTICATED")
	nobody.refused("GET", "/v1/workspaces/tenancy/apps", nil, "UNAUTHENTICATED")
	nobody.refused("POST", "/v1/session", object{"token": "dpa_wrong"}, "UNAUTHENTICATED")
	o := s.owner.with(t)
	o.refused("GET", "/v1/nothing", nil, "NOT_FOUND")
	o.refused("PUT", "/v1/me", nil, "METHOD_NOT_ALLOWED")
	o.refused("GET", "/v1/workspaces/tenancy/apps?pageToken=forged", nil, "PAGE_TOKEN_INVALID")
	o.refused("POST", "/v1/workspaces", object{"workspaceId": "Not A Slug"}, "INVALID_ARGUMENT")
}
