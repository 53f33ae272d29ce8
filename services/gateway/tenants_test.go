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
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

type record struct {
	Number                                                 int
	ActorLabel, ActorKind, Action, Target, Reason, Message string
	RequestID                                              string
	Succeeded                                              bool
}

// activity lists the records, newest first, over all pages.
func activity(t *testing.T, c *client, workspace string) []record {
	t.Helper()
	var all []record
	token := ""
	for {
		var page struct {
			Activity      []record
			NextPageToken string
		}
		c.get("/v1/workspaces/" + workspace + "/activity?pageSize=3&pageToken=" + token).want(http.StatusOK).into(&page)
		all = append(all, page.Activity...)
		if page.NextPageToken == "" {
			return all
		}
		token = page.NextPageToken
	}
}

func waitActivity(t *testing.T, c *client, workspace string, match func(record) bool) record {
	t.Helper()
	var found record
	testkit.Eventually(t, 10*time.Second, func() error {
		list := activity(t, c, workspace)
		for _, r := range list {
			if match(r) {
				found = r
				return nil
			}
		}
		return fmt.Errorf("no such record in %+v", list)
	})
	return found
}

func TestActivity_recordsWhatChanges(t *testing.T) {
	g := start(t)
	c := g.signedIn()
	c.post("/v1/workspaces", map[string]any{"workspaceId": "acme"}).want(http.StatusOK)
	admin, member := g.key("acme", "ADMIN"), g.key("acme", "MEMBER")
	admin.post("/v1/workspaces/acme/apps", `{"appId":"web","app":{"repository":"r","branch":"main"}}`, with("X-Request-Id", "the-request")).want(http.StatusOK)
	member.post("/v1/workspaces/acme/apps", `{"appId":"api","app":{"repository":"r","branch":"main"}}`).want(http.StatusForbidden)
	member.post("/v1/workspaces/acme/apps/web/deployments", `{}`).want(http.StatusOK)
	c.get("/v1/workspaces/acme/apps").want(http.StatusOK)
	c.post("/v1/workspaces/acme/webhooks/wh1:revealSecret", `{}`).want(http.StatusOK)
	last := waitActivity(t, c, "acme", func(r record) bool { return r.Action == "webhook.revealSecret" })
	list := activity(t, c, "acme")
	var actions []string
	for i, r := range list {
		actions = append(actions, r.Action)
		if r.Number != len(list)-i {
			t.Errorf("record %d has number %d", len(list)-i, r.Number)
		}
	}
	if got := strings.Join(actions, " "); got != "webhook.revealSecret deployment.create app.create app.create apiKey.create apiKey.create workspace.create" {
		t.Errorf("actions %s", got)
	}
	if last.ActorLabel != "Local owner" || last.ActorKind != "SESSION" {
		t.Errorf("actor %+v", last)
	}
	refused, made := list[2], list[3]
	if refused.Succeeded || refused.Reason != "PERMISSION_DENIED" || refused.Target != `app "api"` || refused.ActorLabel != "MEMBER" || refused.ActorKind != "API_KEY" {
		t.Errorf("refused %+v", refused)
	}
	if !made.Succeeded || made.Message != `Created app "web".` || made.RequestID != "the-request" {
		t.Errorf("made %+v", made)
	}
	if list[1].Target != `app "web" as #7` {
		t.Errorf("deployed %+v", list[1])
	}
}

func TestActivity_neverFailsTheCall(t *testing.T) {
	g := start(t)
	c := g.withToken(adminToken)
	c.get("/v1/me").want(http.StatusOK)
	c.post("/v1/workspaces/default/apps/web/deployments", `{}`).want(http.StatusOK)
	waitActivity(t, c, "default", func(r record) bool { return r.Action == "deployment.create" })
	// Its stream is gone: calls go on.
	if err := g.js.DeleteStream(t.Context(), "KV_gateway_activity"); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	c.post("/v1/workspaces/default/apps/web/deployments", `{}`).want(http.StatusOK)
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("the call took %v", took)
	}
}

func TestWorkspaces_createAndList(t *testing.T) {
	g := start(t)
	c := g.signedIn()
	for _, bad := range []string{"-a", "A", "a_b", strings.Repeat("a", 64), "ä"} {
		c.post("/v1/workspaces", map[string]any{"workspaceId": bad}).problem(http.StatusBadRequest, "INVALID_ARGUMENT")
	}
	var w struct{ ID, DisplayName, Role, ETag, CreateTime string }
	c.post("/v1/workspaces", map[string]any{"workspaceId": "acme-inc", "displayName": "Acme"}).want(http.StatusOK).into(&w)
	if w.ID != "acme-inc" || w.DisplayName != "Acme" || w.Role != "OWNER" || w.ETag == "" || w.CreateTime == "" {
		t.Errorf("made %+v", w)
	}
	c.post("/v1/workspaces", map[string]any{"workspaceId": "acme-inc"}).problem(http.StatusConflict, "WORKSPACE_EXISTS")
	// A request id makes a repeat harmless, and only a repeat.
	again := map[string]any{"workspaceId": "b1", "requestId": "once"}
	first := c.post("/v1/workspaces", again).want(http.StatusOK)
	if second := c.post("/v1/workspaces", again).want(http.StatusOK); string(second.body) != string(first.body) {
		t.Errorf("the repeat answered %s after %s", second.body, first.body)
	}
	c.post("/v1/workspaces", map[string]any{"workspaceId": "b2", "requestId": "once"}).problem(http.StatusConflict, "REQUEST_ID_REUSED")
	c.get("/v1/workspaces/b2").problem(http.StatusNotFound, "WORKSPACE_NOT_FOUND")

	g.workspace("c1")
	var ids []string
	token := ""
	for {
		var page struct {
			Workspaces    []struct{ ID string }
			NextPageToken string
		}
		c.get("/v1/workspaces?pageSize=2&pageToken=" + token).want(http.StatusOK).into(&page)
		for _, w := range page.Workspaces {
			ids = append(ids, w.ID)
		}
		if token = page.NextPageToken; token == "" {
			break
		}
		if len(ids) == 2 {
			g.workspace("aaa") // before the cursor: the list goes on where it was
			g.key("c1", "OWNER").get("/v1/workspaces?pageToken="+token).problem(http.StatusBadRequest, "PAGE_TOKEN_INVALID")
		}
	}
	if got := strings.Join(ids, " "); got != "acme-inc b1 c1 default" {
		t.Errorf("listed %s", got)
	}
	key := g.key("acme-inc", "MEMBER").get("/v1/workspaces").want(http.StatusOK)
	if !strings.Contains(string(key.body), `"acme-inc"`) || strings.Contains(string(key.body), "default") || !strings.Contains(string(key.body), `"MEMBER"`) {
		t.Errorf("a key sees %s", key.body)
	}
}

func TestAPIKeys(t *testing.T) {
	g := start(t)
	c := g.signedIn()
	const keys = "/v1/workspaces/default/apiKeys"
	var made struct {
		Secret string
		APIKey struct{ ID, Label, Role, Prefix, CreatedBy string }
	}
	a := c.post(keys, map[string]any{"label": "CI", "role": "ADMIN"}).want(http.StatusOK)
	a.into(&made)
	if made.APIKey.Role != "ADMIN" || made.APIKey.CreatedBy != "Local owner" || !strings.HasPrefix(made.Secret, made.APIKey.Prefix) || len(made.Secret) < 50 {
		t.Errorf("made %+v", made)
	}
	ci := g.withToken(made.Secret)
	var me struct{ Kind, Label, Subject string }
	ci.get("/v1/me").want(http.StatusOK).into(&me)
	if me.Kind != "API_KEY" || me.Label != "CI" {
		t.Errorf("me %+v", me)
	}
	// At most the creator's role; a key of an admin makes no owner.
	ci.post(keys, map[string]any{"label": "x", "role": "OWNER"}).problem(http.StatusForbidden, "PERMISSION_DENIED")
	ci.post(keys, map[string]any{"label": "child"}).want(http.StatusOK)
	c.post(keys, map[string]any{"label": "  "}).problem(http.StatusBadRequest, "INVALID_ARGUMENT")
	c.post(keys, map[string]any{"label": "x", "expireTime": "2020-01-01T00:00:00Z"}).problem(http.StatusBadRequest, "INVALID_ARGUMENT")

	testkit.Eventually(t, 10*time.Second, func() error {
		list := string(c.get(keys).want(http.StatusOK).body)
		if !strings.Contains(list, "lastUsedTime") {
			return errors.New("the use is not noted: " + list)
		}
		if strings.Contains(list, made.Secret) || strings.Contains(list, `"child"`) == false || !strings.Contains(list, `"MEMBER"`) {
			return errors.New(list)
		}
		return nil
	})
	var expiring struct{ Secret string }
	c.post(keys, map[string]any{"label": "short", "expireTime": time.Now().Add(time.Hour).UTC().Format(time.RFC3339)}).want(http.StatusOK).into(&expiring)
	g.withToken(expiring.Secret).get("/v1/me").want(http.StatusOK)
	g.clock.forward(2 * time.Hour)
	g.withToken(expiring.Secret).get("/v1/me").problem(http.StatusUnauthorized, "UNAUTHENTICATED")

	// Three keys over pages of two, while one of the first page goes.
	var page struct {
		APIKeys       []struct{ ID, Label string }
		NextPageToken string
	}
	c.get(keys + "?pageSize=2").want(http.StatusOK).into(&page)
	if len(page.APIKeys) != 2 || page.NextPageToken == "" {
		t.Fatalf("page %+v", page)
	}
	c.send(http.MethodDelete, keys+"/"+page.APIKeys[1].ID, "").want(http.StatusOK)
	c.get(keys + "?pageSize=2&pageToken=" + page.NextPageToken).want(http.StatusOK).into(&page)
	if len(page.APIKeys) != 1 || page.APIKeys[0].Label != "short" {
		t.Errorf("second page %+v", page)
	}
	c.send(http.MethodDelete, keys+"/"+made.APIKey.ID, "").want(http.StatusOK)
	ci.get("/v1/me").problem(http.StatusUnauthorized, "UNAUTHENTICATED")
	c.send(http.MethodDelete, keys+"/"+made.APIKey.ID, "").problem(http.StatusNotFound, "API_KEY_NOT_FOUND")
	g.workspace("acme")
	other := g.key("acme", "MEMBER")
	var id struct{ APIKeys []struct{ ID string } }
	c.get("/v1/workspaces/acme/apiKeys").want(http.StatusOK).into(&id)
	c.send(http.MethodDelete, keys+"/"+id.APIKeys[0].ID, "").problem(http.StatusNotFound, "API_KEY_NOT_FOUND")
	other.get("/v1/me").want(http.StatusOK)
	g.logs.MustNotContain(t, made.Secret, expiring.Secret)
}

func TestDisconnect(t *testing.T) {
	g := start(t)
	c := g.signedIn()
	const path = "/v1/workspaces/default/integrations/bitbucket"
	g.auth.on("RemoveIntegration", func(_ context.Context, req proto.Message) (proto.Message, error) {
		if etag := req.(*authv1.RemoveIntegrationRequest).GetEtag(); etag == "old" {
			return nil, apierr.New(apierr.ReasonEtagMismatch, "It changed.")
		}
		return &authv1.RemoveIntegrationResponse{Removed: true, Integration: &authv1.Integration{Workspace: "default", State: authv1.Integration_NOT_CONNECTED}}, nil
	})
	type result struct {
		Integration  struct{ State string }
		WebhooksLeft []struct{ ID string }
		Warning      *struct{ Reason, Message string }
	}
	var out result
	c.send(http.MethodDelete, path, "").want(http.StatusOK).into(&out)
	if out.Integration.State != "NOT_CONNECTED" || len(out.WebhooksLeft) != 1 || out.Warning != nil {
		t.Errorf("%+v", out)
	}
	if left := g.webhook.asked("LeaveWebhooks")[0]; left.user.Subject != "local" || left.req.(*webhookv1.LeaveWebhooksRequest).GetTime() == nil {
		t.Errorf("left as %+v: %v", left.user, left.req)
	}
	// Webhook is down: the tokens are gone all the same, and the answer says what it lacks.
	g.webhook.on("LeaveWebhooks", func(context.Context, proto.Message) (proto.Message, error) {
		return nil, apierr.New(apierr.ReasonStorageUnavailable, "down")
	})
	out = result{}
	c.send(http.MethodDelete, path, "").want(http.StatusOK).into(&out)
	if out.Warning == nil || out.Warning.Reason != "STORAGE_UNAVAILABLE" || out.WebhooksLeft == nil {
		t.Errorf("%+v", out)
	}
	c.send(http.MethodDelete, path, "", with("If-Match", `"old"`)).problem(http.StatusPreconditionFailed, "ETAG_MISMATCH")
	waitActivity(t, c, "default", func(r record) bool { return r.Action == "integration.remove" && r.Reason == "ETAG_MISMATCH" })
}

func TestInfo(t *testing.T) {
	g := start(t)
	var info struct {
		Version, PublicURL, BitbucketSiteURL string
		Emulator, WebhooksReachable          bool
		Time                                 time.Time
	}
	g.anybody().get("/v1/info").want(http.StatusOK).into(&info)
	if info.Version != "test" || info.PublicURL != g.url || info.BitbucketSiteURL != "https://bitbucket.org" || info.WebhooksReachable || info.Time.IsZero() {
		t.Errorf("%+v", info)
	}
}
