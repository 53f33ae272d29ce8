package gateway_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/testkit"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	"devpilot.io/bitbucket/services/gateway"
)

// With a new admin token everything that the old one made is dead: sessions, also those that were
// renewed, and one-time codes.
func TestAdminToken_changedEndsWhatTheOldOneMade(t *testing.T) {
	g := start(t)
	old := g.signedIn()
	code, err := g.svc.NewSignInCode(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const changed = "dpa_another_admin_token_of_enough_length"
	_, url := g.replica(func(c *gateway.Config) { c.AdminToken = seal.NewSecret(changed) })
	moved := func(c *client) *client { c.base = url; return c }
	cookie := with("Cookie", "devpilot_session="+old.cookies()[0].Value)

	moved(g.anybody()).get("/v1/me", cookie).problem(http.StatusUnauthorized, "UNAUTHENTICATED")
	moved(g.anybody()).post("/v1/session", map[string]any{"token": code}).problem(http.StatusUnauthorized, "UNAUTHENTICATED")
	moved(g.anybody()).post("/v1/session", map[string]any{"token": adminToken}).problem(http.StatusUnauthorized, "UNAUTHENTICATED")
	moved(g.withToken(adminToken)).get("/v1/me").problem(http.StatusUnauthorized, "UNAUTHENTICATED")

	fresh := moved(g.browser())
	fresh.post("/v1/session", map[string]any{"token": changed}).want(http.StatusOK)
	fresh.get("/v1/me").want(http.StatusOK)
	// Where the token is still the old one, so are its sessions.
	g.anybody().get("/v1/me", cookie).want(http.StatusOK)
}

// Whoever is refused for wrong attempts keeps nobody out who comes from the same address with the right
// token or code.
func TestSignIn_wrongAttemptsKeepNobodyElseOut(t *testing.T) {
	g := start(t)
	for range 30 {
		g.anybody().post("/v1/session", map[string]any{"token": "guess"})
	}
	g.anybody().post("/v1/session", map[string]any{"token": "guess"}).problem(http.StatusTooManyRequests, "RATE_LIMITED")
	g.anybody().post("/v1/session", map[string]any{"token": adminToken}).want(http.StatusOK)
	code, err := g.svc.NewSignInCode(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	g.anybody().post("/v1/session", map[string]any{"token": code}).want(http.StatusOK)
}

// A key lives no longer than the key that made it, at any distance.
func TestAPIKey_outlivesNotItsMaker(t *testing.T) {
	g := start(t)
	const keys = "/v1/workspaces/default/apiKeys"
	type made struct {
		Secret string
		APIKey struct{ ExpireTime time.Time }
	}
	soon := g.clock.now().Add(10 * time.Minute).UTC().Truncate(time.Second)
	create := func(by *client, expire any) made {
		t.Helper()
		body := map[string]any{"label": "x", "role": "ADMIN"}
		if expire != nil {
			body["expireTime"] = expire
		}
		var m made
		by.post(keys, body).want(http.StatusOK).into(&m)
		return m
	}
	maker := create(g.withToken(adminToken), soon)
	silent := create(g.withToken(maker.Secret), nil)
	if !silent.APIKey.ExpireTime.Equal(soon) {
		t.Errorf("a key made without a time expires at %v, its maker at %v", silent.APIKey.ExpireTime, soon)
	}
	third := create(g.withToken(silent.Secret), nil)
	if !third.APIKey.ExpireTime.Equal(soon) {
		t.Errorf("the third expires at %v", third.APIKey.ExpireTime)
	}
	create(g.withToken(maker.Secret), soon.Add(-time.Minute))
	p := g.withToken(maker.Secret).post(keys, map[string]any{"label": "x", "role": "ADMIN", "expireTime": soon.Add(time.Second)}).problem(http.StatusBadRequest, "INVALID_ARGUMENT")
	if len(p.Fields) != 1 || p.Fields[0].Name != "expireTime" {
		t.Errorf("fields %+v", p.Fields)
	}
	if forever := create(g.withToken(adminToken), nil); !forever.APIKey.ExpireTime.IsZero() {
		t.Errorf("a person's key expires at %v", forever.APIKey.ExpireTime)
	}
	g.clock.forward(11 * time.Minute)
	for _, secret := range []string{maker.Secret, silent.Secret, third.Secret} {
		g.withToken(secret).get("/v1/me").problem(http.StatusUnauthorized, "UNAUTHENTICATED")
	}
}

// The activity list has who signed in and out, from where, and what a change changed.
func TestActivity_signInsAddressesAndChanges(t *testing.T) {
	g := start(t, func(c *gateway.Config) { c.TrustedProxies = []string{"127.0.0.1"} })
	from := with("X-Forwarded-For", "198.51.100.7")
	stored := &deployerv1.App{Id: "web", Branch: "main", AutoDeploy: true, Retention: 5, Hooks: []*deployerv1.DeploymentHook{{Stage: deployerv1.Deployment_POST_SETUP, Command: "make"}}}
	g.deployer.on("GetApp", func(context.Context, proto.Message) (proto.Message, error) {
		return &deployerv1.GetAppResponse{App: proto.Clone(stored).(*deployerv1.App)}, nil
	})
	g.deployer.on("UpdateApp", func(_ context.Context, in proto.Message) (proto.Message, error) {
		stored.AutoDeploy, stored.Branch = in.(*deployerv1.UpdateAppRequest).GetApp().GetAutoDeploy(), in.(*deployerv1.UpdateAppRequest).GetApp().GetBranch()
		stored.Hooks = in.(*deployerv1.UpdateAppRequest).GetApp().GetHooks()
		return &deployerv1.UpdateAppResponse{App: proto.Clone(stored).(*deployerv1.App)}, nil
	})
	const hooks = `[{"name":"","stage":"POST_SETUP","command":"make","priority":0,"timeoutSeconds":0}]`
	c := g.browser()
	c.post("/v1/session", map[string]any{"token": adminToken}, from).want(http.StatusOK)
	c.send(http.MethodPatch, "/v1/workspaces/default/apps/web", `{"autoDeploy":false,"branch":"main","hooks":[]}`, from).want(http.StatusOK)
	c.send(http.MethodDelete, "/v1/session", "", from).want(http.StatusOK)

	type change struct{ Field, Before, After string }
	type entry struct {
		Action, Address, ActorLabel string
		Changes                     []change
	}
	reader := g.withToken(adminToken)
	waitActivity(t, reader, "default", func(r record) bool { return r.Action == "session.delete" })
	var page struct{ Activity []entry }
	reader.get("/v1/workspaces/default/activity").want(http.StatusOK).into(&page)
	want := []entry{
		{"session.delete", "198.51.100.7", "Local owner", nil},
		{"app.update", "198.51.100.7", "Local owner", []change{{"autoDeploy", "true", "false"}, {"hooks", hooks, ""}}},
		{"session.create", "198.51.100.7", "Local owner", nil},
	}
	got := page.Activity
	for i := range got {
		if len(got[i].Changes) == 0 {
			got[i].Changes = nil
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("activity\n%+v, want\n%+v", got, want)
	}
}

// A list or a map that was empty, or becomes so, is a change like any other.
func TestActivity_emptyBeforeAndAfter(t *testing.T) {
	g := start(t)
	stored := &deployerv1.App{Id: "web", Branch: "main"}
	g.deployer.on("GetApp", func(context.Context, proto.Message) (proto.Message, error) {
		return &deployerv1.GetAppResponse{App: proto.Clone(stored).(*deployerv1.App)}, nil
	})
	g.deployer.on("UpdateApp", func(_ context.Context, in proto.Message) (proto.Message, error) {
		stored = proto.Clone(in.(*deployerv1.UpdateAppRequest).GetApp()).(*deployerv1.App)
		return &deployerv1.UpdateAppResponse{App: proto.Clone(stored).(*deployerv1.App)}, nil
	})
	c := g.withToken(adminToken)
	const app = "/v1/workspaces/default/apps/web"
	c.send(http.MethodPatch, app, `{"sharedPaths":["uploads/"],"rules":{"paths":["site/**"]},"source":{"directory":"dist"}}`).want(http.StatusOK)
	c.send(http.MethodPatch, app, `{"sharedPaths":[],"rules":{"paths":[]},"source":{"directory":""}}`).want(http.StatusOK)

	type change struct{ Field, Before, After string }
	type list struct{ Activity []struct{ Changes []change } }
	var page list
	testkit.Eventually(t, 10*time.Second, func() error {
		page = list{}
		if c.get("/v1/workspaces/default/activity").want(http.StatusOK).into(&page); len(page.Activity) < 2 {
			return fmt.Errorf("%d records", len(page.Activity))
		}
		return nil
	})
	want := [][]change{
		{{"rules.paths", `["site/**"]`, ``}, {"sharedPaths", `["uploads/"]`, ``}, {"source.directory", `"dist"`, `""`}},
		{{"rules.paths", ``, `["site/**"]`}, {"sharedPaths", ``, `["uploads/"]`}, {"source.directory", ``, `"dist"`}},
	}
	for i := range want {
		if fmt.Sprint(page.Activity[i].Changes) != fmt.Sprint(want[i]) {
			t.Errorf("changes %d\n%q, want\n%q", i, page.Activity[i].Changes, want[i])
		}
	}
}

// The activity list says of a refused change what its answer said, with the names of the body.
func TestActivity_namesFieldsAsTheAnswer(t *testing.T) {
	g := start(t)
	g.deployer.on("UpdateApp", func(context.Context, proto.Message) (proto.Message, error) {
		return nil, apierr.New(apierr.ReasonInvalidArgument, `The field "app.hooks[1].name" is not right: h is there twice.`,
			apierr.WithField("app.hooks[1].name", "h is there twice"))
	})
	c := g.withToken(adminToken)
	c.send(http.MethodPatch, "/v1/workspaces/default/apps/web", `{"hooks":[]}`).problem(http.StatusBadRequest, "INVALID_ARGUMENT")
	got := waitActivity(t, c, "default", func(r record) bool { return r.Action == "app.update" })
	if want := `The field "hooks[1].name" is not right: h is there twice.`; got.Message != want {
		t.Errorf("%q, want %q", got.Message, want)
	}
}

// Browsers that reached us over https are told to do so always; on http nothing is promised.
func TestEdge_strictTransportSecurity(t *testing.T) {
	g := start(t)
	secured, url := g.replica(func(c *gateway.Config) { c.PublicURL = "https://devpilot.example.com" })
	_ = secured
	for _, path := range []string{"/", "/v1/me", "/v1/nowhere", "/sign-in", "/openapi.json"} {
		if h := g.anybody().get(path).header.Get("Strict-Transport-Security"); h != "" {
			t.Errorf("%s on http: %q", path, h)
		}
		c := g.anybody()
		c.base = url
		for _, host := range []string{"devpilot.example.com", "stranger.example"} {
			if h := c.get(path, withHost(host)).header.Get("Strict-Transport-Security"); h != "max-age=31536000" {
				t.Errorf("%s of %s on https: %q", path, host, h)
			}
		}
	}
}
