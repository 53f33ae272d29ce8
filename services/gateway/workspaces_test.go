package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/testkit"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
	"devpilot.io/bitbucket/services/gateway"
)

type workspaceView struct{ ID, DisplayName, Role, ETag, CreateTime string }

// The name for people changes and nothing else does; who read an older one is told.
func TestWorkspaces_rename(t *testing.T) {
	g := start(t)
	g.workspace("acme")
	c := g.signedIn()
	const path = "/v1/workspaces/acme"
	var before, after workspaceView
	c.get(path).want(http.StatusOK).into(&before)
	c.send(http.MethodPatch, path, `{"displayName":"  Acme, Inc. "}`, with("If-Match", `"`+before.ETag+`"`)).want(http.StatusOK).into(&after)
	if after.DisplayName != "Acme, Inc." || after.ETag == before.ETag || after.ID != "acme" || after.Role != "OWNER" || after.CreateTime != before.CreateTime {
		t.Errorf("renamed %+v to %+v", before, after)
	}
	c.send(http.MethodPatch, path, `{"displayName":"late"}`, with("If-Match", `"`+before.ETag+`"`)).problem(http.StatusPreconditionFailed, "ETAG_MISMATCH")
	c.send(http.MethodPatch, path, `{"displayName":"late","etag":"`+before.ETag+`"}`).problem(http.StatusPreconditionFailed, "ETAG_MISMATCH")
	for body, field := range map[string]string{
		`{"displayName":"a\u0007b"}`: "displayName", `{"displayName":"` + strings.Repeat("x", 201) + `"}`: "displayName", `{"name":"x"}`: "name",
	} {
		if p := c.send(http.MethodPatch, path, body).problem(http.StatusBadRequest, "INVALID_ARGUMENT"); len(p.Fields) != 1 || p.Fields[0].Name != field {
			t.Errorf("%s: fields %v", body, p.Fields)
		}
	}
	c.send(http.MethodPatch, path, `{}`).want(http.StatusOK)
	c.send(http.MethodPatch, path+"?validateOnly=true", `{"displayName":"only asked"}`).want(http.StatusOK)
	var now workspaceView
	c.get(path).want(http.StatusOK).into(&now)
	if now != after {
		t.Errorf("refused and empty changes left %+v, not %+v", now, after)
	}
	r := waitActivity(t, c, "acme", func(r record) bool { return r.Action == "workspace.update" && r.Succeeded })
	if r.Target != `workspace "acme"` {
		t.Errorf("recorded %+v", r)
	}
	c.send(http.MethodPatch, path+"?updateMask=displayName", `{}`).want(http.StatusOK).into(&now)
	if now.DisplayName != "acme" {
		t.Errorf("without a name it is called %q", now.DisplayName)
	}
	g.key("acme", "ADMIN").send(http.MethodPatch, path, `{"displayName":"mine"}`).problem(http.StatusForbidden, "PERMISSION_DENIED")
}

// settled has deletions end as soon as nothing is left.
func settled(c *gateway.Config) { c.DeletionSettle = time.Nanosecond }

// removing has the other services answer the deletion of a workspace: done once ready is closed.
func removing(g *gate, ready <-chan struct{}) {
	g.deployer.on("RemoveWorkspace", func(context.Context, proto.Message) (proto.Message, error) {
		select {
		case <-ready:
			return &deployerv1.RemoveWorkspaceResponse{}, nil
		default:
			return &deployerv1.RemoveWorkspaceResponse{Left: 2}, nil
		}
	})
	g.webhook.on("RemoveWorkspace", func(_ context.Context, in proto.Message) (proto.Message, error) {
		if in.(*webhookv1.RemoveWorkspaceRequest).GetErase() {
			return &webhookv1.RemoveWorkspaceResponse{}, nil
		}
		return &webhookv1.RemoveWorkspaceResponse{Left: []*webhookv1.Webhook{{RepositoryFullName: "acme/docs", SettingsUrl: "https://bitbucket.org/acme/docs/admin/webhooks", Message: "Not an admin."}}}, nil
	})
}

type deletionView struct {
	ID, State, Role, ETag string
	Deletion              struct {
		DeletedBy, Progress string
		WebhooksLeft        []struct{ RepositoryFullName, SettingsURL, Message string }
	}
}

// While a workspace is being deleted it says so to everybody whatever they ask; afterwards it is gone for all but those
// who owned it, who may read that it was, and nobody can make it again.
func TestWorkspaces_delete(t *testing.T) {
	p := provider(t)
	g := start(t, withProviders(t, roleRules, p), settled)
	ready := make(chan struct{})
	removing(g, ready)
	owner, member, rival := g.signInAs(p, "olga", "owners"), g.signInAs(p, "mia", "members"), g.signInAs(p, "rita", "rivals")
	key, _ := g.program("acme", map[string]any{"role": "OWNER"})
	for _, who := range []*client{member, g.signInAs(p, "adam", "admins")} {
		who.send(http.MethodDelete, "/v1/workspaces/acme", "").problem(http.StatusForbidden, "PERMISSION_DENIED")
	}
	var before deletionView
	owner.get("/v1/workspaces/acme").want(http.StatusOK).into(&before)
	owner.send(http.MethodDelete, "/v1/workspaces/acme?etag=older", "").problem(http.StatusPreconditionFailed, "ETAG_MISMATCH")
	events := member.stream("/v1/workspaces/acme/events")
	if before.State != "ACTIVE" {
		t.Errorf("before it is %s", before.State)
	}
	var w deletionView
	owner.send(http.MethodDelete, "/v1/workspaces/acme?etag="+before.ETag, "").want(http.StatusOK).into(&w)
	if w.State != "DELETING" || w.Deletion.DeletedBy == "" {
		t.Errorf("asked for, it is %+v", w)
	}
	for _, who := range []*client{owner, member, key, g.withToken(adminToken)} {
		for _, path := range []string{"/apps", "/members", "/integrations/bitbucket", "/deletion"} {
			who.get("/v1/workspaces/acme"+path).problem(http.StatusConflict, "WORKSPACE_BEING_DELETED")
		}
		who.send(http.MethodPatch, "/v1/workspaces/acme", `{"displayName":"x"}`).problem(http.StatusConflict, "WORKSPACE_BEING_DELETED")
		who.get("/v1/workspaces/acme").want(http.StatusOK).into(&w)
		if w.State != "DELETING" {
			t.Errorf("meanwhile it is %+v", w)
		}
	}
	rival.get("/v1/workspaces/acme").problem(http.StatusNotFound, "WORKSPACE_NOT_FOUND")
	owner.send(http.MethodDelete, "/v1/workspaces/acme", "").want(http.StatusOK)
	for e, ok := events.next(); e.name != "end" || !strings.Contains(e.data, "WORKSPACE_BEING_DELETED"); e, ok = events.next() {
		if !ok {
			t.Fatalf("the stream ended without saying why, last %+v", e)
		}
	}
	testkit.Eventually(t, 10*time.Second, func() error {
		owner.get("/v1/workspaces/acme").want(http.StatusOK).into(&w)
		if w.Deletion.Progress != "Apps are being removed, with their releases and histories: 2 left." {
			return errors.New(w.Deletion.Progress)
		}
		return nil
	})

	close(ready)
	testkit.Eventually(t, time.Minute, func() error {
		w = deletionView{}
		owner.get("/v1/workspaces/acme").want(http.StatusOK).into(&w)
		if w.State != "DELETED" {
			return errors.New(w.State)
		}
		return nil
	})
	if l := w.Deletion.WebhooksLeft; len(l) != 1 || l[0].RepositoryFullName != "acme/docs" || l[0].SettingsURL == "" || l[0].Message == "" || w.Deletion.Progress != "" {
		t.Errorf("deleted, it is %+v", w)
	}
	key.get("/v1/workspaces/acme").problem(http.StatusUnauthorized, "UNAUTHENTICATED")
	for _, path := range []string{"", "/apps"} {
		member.get("/v1/workspaces/acme"+path).problem(http.StatusNotFound, "WORKSPACE_NOT_FOUND")
	}
	owner.get("/v1/workspaces/acme/apps").problem(http.StatusNotFound, "WORKSPACE_NOT_FOUND")
	owner.send(http.MethodDelete, "/v1/workspaces/acme", "").problem(http.StatusNotFound, "WORKSPACE_NOT_FOUND")
	if r := waitActivity(t, owner, "acme", func(r record) bool { return r.Action == "workspace.delete" && r.Succeeded }); r.ActorLabel == "" || r.Target != `workspace "acme"` {
		t.Errorf("recorded %+v", r)
	}
	listed := func(c *client, query string) string {
		return string(c.get("/v1/workspaces" + query).want(http.StatusOK).body)
	}
	if l := listed(owner, ""); strings.Contains(l, `"acme"`) {
		t.Errorf("listed: %s", l)
	}
	if l := listed(owner, "?showDeleted=true"); !strings.Contains(l, `"DELETED"`) {
		t.Errorf("with the deleted ones: %s", l)
	}
	if l := listed(member, "?showDeleted=true"); strings.Contains(l, `"acme"`) {
		t.Errorf("a member sees %s", l)
	}
	// The sessions whose only workspace it was live on, and make another; the id is not given out again.
	for i, c := range []*client{owner, member} {
		c.get("/v1/me").want(http.StatusOK)
		c.post("/v1/workspaces", map[string]any{"workspaceId": "acme"}).problem(http.StatusConflict, "WORKSPACE_EXISTS")
		c.post("/v1/workspaces", map[string]any{"workspaceId": fmt.Sprintf("next-%d", i)}).want(http.StatusOK)
	}
	rival.get("/v1/workspaces/rival").want(http.StatusOK)
	// Signing in again: rules that name it give nothing, and whoever owned it gets in all the same.
	g.signInAs(p, "olga", "owners").get("/v1/workspaces/acme").want(http.StatusOK)
	g.signInAs(p, "mia", "members").get("/v1/workspaces/acme").problem(http.StatusNotFound, "WORKSPACE_NOT_FOUND")
}

// The last workspace goes like any other; the local owner's session works on, and a start does not make it again.
func TestWorkspaces_deleteTheLastOne(t *testing.T) {
	g := start(t, settled)
	ready := make(chan struct{})
	close(ready)
	removing(g, ready)
	c := g.signedIn()
	c.send(http.MethodDelete, "/v1/workspaces/default", "").want(http.StatusOK)
	gone := func(c *client) {
		t.Helper()
		testkit.Eventually(t, time.Minute, func() error {
			var w deletionView
			c.get("/v1/workspaces/default").want(http.StatusOK).into(&w)
			if w.State != "DELETED" {
				return errors.New(w.State)
			}
			return nil
		})
		if me := string(c.get("/v1/me").want(http.StatusOK).body); strings.Contains(me, "default") {
			t.Errorf("me: %s", me)
		}
	}
	gone(c)
	_, address := g.replica(settled)
	c.base = address
	gone(g.withToken(adminToken))
	g.withToken(adminToken).post("/v1/workspaces", map[string]any{"workspaceId": "first"}).want(http.StatusOK)
}

// What goes is listed before: from the services, as they know it.
func TestWorkspaces_previewOfADeletion(t *testing.T) {
	g := start(t)
	g.workspace("acme")
	g.key("acme", "ADMIN")
	g.deployer.on("ListApps", func(context.Context, proto.Message) (proto.Message, error) {
		return &deployerv1.ListAppsResponse{Apps: []*deployerv1.App{
			{Id: "web", RepositoryFullName: "acme/web", LiveUrl: "https://web.test", Live: &deployerv1.DeploymentSummary{Number: 3}}, {Id: "idle", RepositoryFullName: "acme/idle", LiveUrl: "https://idle.test"},
		}, Total: 240}, nil
	})
	g.deployer.on("ListWorkspaceDeployments", func(_ context.Context, in proto.Message) (proto.Message, error) {
		if got := in.(*deployerv1.ListWorkspaceDeploymentsRequest).GetStates(); len(got) != 2 {
			t.Errorf("asked for %v", got)
		}
		return &deployerv1.ListWorkspaceDeploymentsResponse{Deployments: []*deployerv1.Deployment{{Number: 4}}}, nil
	})
	g.webhook.on("ListWebhooks", func(context.Context, proto.Message) (proto.Message, error) {
		return &webhookv1.ListWebhooksResponse{Webhooks: []*webhookv1.Webhook{
			{RepositoryFullName: "acme/web", State: webhookv1.Webhook_ACTIVE}, {RepositoryFullName: "acme/lost", State: webhookv1.Webhook_ACTIVE, Health: webhookv1.Webhook_NOT_ADMIN},
			{RepositoryFullName: "acme/never", State: webhookv1.Webhook_NOT_REGISTERED},
		}}, nil
	})
	state := authv1.Integration_CONNECTED
	g.auth.on("GetIntegration", func(context.Context, proto.Message) (proto.Message, error) {
		return &authv1.GetIntegrationResponse{Integration: &authv1.Integration{State: state, Account: &authv1.Account{Label: "jane"}}}, nil
	})
	var p struct {
		Apps                                            []struct{ ID, RepositoryFullName, URL string }
		AppsCount, DeploymentsRunning, APIKeys, Members int
		Webhooks                                        []struct{ RepositoryFullName, Stays string }
		Account, ETag                                   string
		Unknown                                         []string
	}
	c := g.withToken(adminToken)
	c.get("/v1/workspaces/acme/deletion").want(http.StatusOK).into(&p)
	if p.AppsCount != 240 || p.Apps[0].URL != "https://web.test" || p.Apps[1].URL != "" || p.DeploymentsRunning != 1 || p.APIKeys != 1 || p.Members != 1 || p.Account != "jane" || len(p.Unknown) != 0 {
		t.Errorf("what goes: %+v", p)
	}
	if len(p.Webhooks) != 2 || p.Webhooks[0].Stays != "" || !strings.Contains(p.Webhooks[1].Stays, "not an admin") {
		t.Errorf("webhooks: %+v", p.Webhooks)
	}
	state = authv1.Integration_NOT_CONNECTED
	g.deployer.on("ListApps", func(context.Context, proto.Message) (proto.Message, error) {
		return nil, apierr.New(apierr.ReasonStorageUnavailable, "The store is away.")
	})
	c.get("/v1/workspaces/acme/deletion").want(http.StatusOK).into(&p)
	if len(p.Unknown) != 1 || !strings.Contains(p.Unknown[0], "The apps could not be read") || !strings.Contains(p.Webhooks[0].Stays, "No Bitbucket account") {
		t.Errorf("without the deployer, disconnected: %+v", p)
	}
}
