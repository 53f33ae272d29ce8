package gateway_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/apierr"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	"devpilot.io/bitbucket/services/gateway"
)

func TestProblem_routes(t *testing.T) {
	g := start(t)
	c := g.signedIn()
	for _, path := range []string{"/v1", "/v1/", "/v1/nope", "/nope", "/v1/workspaces/default/apps/", "/v1/workspaces//apps", "/v2/me", "/v1/workspaces/default/integrations/github"} {
		c.get(path).problem(http.StatusNotFound, "NOT_FOUND")
	}
	for _, tc := range []struct{ method, path, allow string }{
		{http.MethodPut, "/v1/workspaces", "GET, HEAD, POST"},
		{http.MethodPost, "/v1/workspaces/default/apps/web", "DELETE, GET, HEAD, PATCH"},
		{http.MethodGet, "/v1/workspaces/default/integrations/bitbucket:connect", "POST"},
		{http.MethodPost, "/v1/workspaces/default/events", "GET"},
		{http.MethodHead, "/v1/workspaces/default/events", "GET"},
		{http.MethodGet, "/v1/workspaces/default/apps/web:rollback", "POST"},
		{http.MethodPatch, "/v1/workspaces/default/apps/web:rollback", "POST"},
		{http.MethodDelete, "/v1/workspaces/default/apps/web%3Arollback", "POST"},
		{http.MethodHead, "/v1/workspaces/default/apps/web:checkPush", "POST"},
		{http.MethodGet, "/v1/workspaces/default/apps/web/deployments/3:cancel", "POST"},
		{http.MethodGet, "/v1/workspaces/default/apps/web/deployments/3:redeploy", "POST"},
		{http.MethodGet, "/v1/workspaces/default/webhooks/wh1:repair", "POST"},
		{http.MethodDelete, "/v1/workspaces/default/webhooks/wh1:revealSecret", "POST"},
		{http.MethodGet, "/v1/workspaces/default/webhooks/wh1/deliveries/3:replay", "POST"},
		{http.MethodDelete, "/v1/workspaces/default/integrations/bitbucket:refresh", "POST"},
		{http.MethodDelete, "/openapi.json", "GET, HEAD"},
		{http.MethodPost, "/sign-in", "GET, HEAD"},
		{http.MethodPost, "/oauth/bitbucket/callback", "GET, HEAD"},
	} {
		a := c.do(tc.method, tc.path, nil)
		if tc.method == http.MethodHead {
			a.want(http.StatusMethodNotAllowed)
		} else {
			a.problem(http.StatusMethodNotAllowed, "METHOD_NOT_ALLOWED")
		}
		if got := a.header.Get("Allow"); got != tc.allow {
			t.Errorf("%s %s: Allow %q, not %q", tc.method, tc.path, got, tc.allow)
		}
	}
}

func TestProblem_bodies(t *testing.T) {
	g := start(t)
	c := g.signedIn()
	const apps = "/v1/workspaces/default/apps"
	for _, tc := range []struct {
		name, method, path, body string
		field, says              string
	}{
		{"broken JSON", "POST", apps, "{\n  \"appId\": web\n}", "body", "line 2, column 12"},
		{"cut JSON", "POST", apps, `{"appId":"web"`, "body", "ends too early"},
		{"two values", "POST", apps, `{} {}`, "body", "more than one"},
		{"a list", "POST", apps, `[]`, "body", "must be a JSON object"},
		{"unknown field", "POST", apps, `{"appId":"web","nope":1}`, "nope", "appId"},
		{"unknown field below", "POST", apps, `{"appId":"web","app":{"brnach":"main"}}`, "app.brnach", "branch"},
		{"text for a flag", "POST", apps, `{"appId":"web","app":{"autoDeploy":"yes"}}`, "app.autoDeploy", "true or false"},
		{"number for text", "POST", apps, `{"appId":1}`, "appId", "text"},
		{"text for a number", "POST", apps, `{"appId":"web","app":{"retention":"many"}}`, "app.retention", "whole number"},
		{"fraction", "POST", apps, `{"appId":"web","app":{"retention":1.5}}`, "app.retention", "whole number"},
		{"too large a number", "POST", apps, `{"appId":"web","app":{"retention":99999999999}}`, "app.retention", "whole number"},
		{"missing field", "POST", apps, `{"app":{"branch":"main"}}`, "appId", "required"},
		{"empty body", "POST", apps, ``, "appId", "required"},
		{"unknown word", "POST", "/v1/workspaces/default/apiKeys", `{"label":"x","role":"KING"}`, "role", "MEMBER, ADMIN, OWNER"},
		{"not a time", "POST", "/v1/workspaces/default/apiKeys", `{"label":"x","expireTime":"tomorrow"}`, "expireTime", "like 2026"},
		{"patch, unknown field", "PATCH", apps + "/web", `{"colour":"red"}`, "colour", "unknown"},
		{"patch, wrong type", "PATCH", apps + "/web", `{"branch":false}`, "branch", "text"},
		{"body where there is none", "DELETE", apps + "/web", `{"etag":"1"}`, "body", "takes no body"},
		{"unknown parameter", "GET", apps + "?pagesize=3", "", "pagesize", "pageSize"},
		{"parameter twice", "GET", apps + "?pageSize=3&pageSize=4", "", "pageSize", "once"},
		{"parameter no number", "GET", apps + "?pageSize=lots", "", "pageSize", "whole number"},
		{"word for not set", "GET", apps + "/web/deployments?state=STATE_UNSPECIFIED", "", "state", "COMPLETED"},
		{"word for not set in a body", "POST", "/v1/workspaces/default/apiKeys", `{"label":"x","role":"NAME_UNSPECIFIED"}`, "role", "MEMBER"},
		{"number of a word", "GET", apps + "/web/deployments?state=0", "", "state", "COMPLETED"},
		{"field twice", "POST", apps, `{"appId":"web","app":{"branch":"main","repository":"r","branch":"dev"}}`, "app.branch", "twice"},
		{"field twice, two spellings", "PATCH", apps + "/web", `{"autoDeploy":true,"auto_deploy":false}`, "auto_deploy", "twice"},
		{"half a character", "PATCH", apps + "/web", `{"branch":"ma\ud800in"}`, "branch", "Unicode"},
		{"the other half", "PATCH", apps + "/web", `{"hooks":[{"name":"x","stage":"POST_SETUP","command":"\udc00"}]}`, "hooks[0].command", "Unicode"},
		{"halves the wrong way round", "PATCH", apps + "/web", `{"branch":"\udc00\ud800"}`, "branch", "Unicode"},
		{"bytes that are not UTF-8", "PATCH", apps + "/web", "{\"branch\":\"ma\xffin\"}", "branch", "UTF-8"},
		{"bytes in a name", "PATCH", apps + "/web", "{\"bra\xffnch\":1}", "bra\ufffdnch", "Unicode"},
		{"something after it", "PATCH", apps + "/web", `{"branch":"main"} x`, "body", "nothing else"},
		{"closed twice", "PATCH", apps + "/web", `{"branch":"main"}}`, "body", "nothing else"},
		{"a comma too many", "PATCH", apps + "/web", `{"branch":"main",}`, "body", "line 1"},
		{"a deep list", "PATCH", apps + "/web", `{"hooks":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + `}`, "hooks", "deep"},
		{"a deep object", "POST", apps, strings.Repeat(`{"app":`, 100_000) + "1" + strings.Repeat("}", 100_000), "app", "deep"},
		{"null in a change", "PATCH", apps + "/web", `{"hooks":null}`, "hooks", "null"},
		{"null in a list", "PATCH", apps + "/web", `{"sharedPaths":[null]}`, "sharedPaths[0]", "text"},
		{"time out of range", "POST", "/v1/workspaces/default/apiKeys", `{"label":"x","expireTime":"0000-01-01T00:00:00Z"}`, "expireTime", "like 2026"},
		{"number with a sign", "POST", apps, `{"appId":"web","app":{"retention":"+5"}}`, "app.retention", "whole number"},
		{"path that is not UTF-8", "GET", apps + "/w%ffb", "", "app", "UTF-8"},
		{"another path that is not UTF-8", "DELETE", "/v1/workspaces/default/apiKeys/%c0%80", "", "apiKey", "UTF-8"},
		{"workspace that is not UTF-8", "GET", "/v1/workspaces/%80/apps", "", "workspace", "UTF-8"},
		{"change of a path that is not UTF-8", "PATCH", apps + "/w%ffb", `{}`, "app", "UTF-8"},
		{"query that is not UTF-8", "GET", apps + "?pageToken=%ff", "", "pageToken", "UTF-8"},
		{"name in a query that is not UTF-8", "GET", apps + "?%ff=1", "", "\ufffd", "Unicode"},
		{"stream's query that is not UTF-8", "GET", "/v1/workspaces/default/events?lastEventId=%ff", "", "lastEventId", "UTF-8"},
		{"log's query that is not UTF-8", "GET", apps + "/web/deployments/3/log?after=%ff", "", "after", "UTF-8"},
		{"log's broken query", "GET", apps + "/web/deployments/3/log?after=%zz", "", "query", "query"},
		{"mask of no field", "PATCH", apps + "/web?updateMask=colour", `{"branch":"main"}`, "updateMask", "colour"},
		{"mask of a part of a list", "PATCH", apps + "/web?updateMask=hooks.name", `{"branch":"main"}`, "updateMask", "hooks.name"},
		{"mask of everything", "PATCH", apps + "/web?updateMask=*", `{"branch":"main"}`, "updateMask", "branch"},
		{"parameter unknown word", "GET", apps + "/web/deployments?state=DONE", "", "state", "COMPLETED"},
		{"parameter no time", "GET", apps + "/web/deployments?after=monday", "", "after", "time"},
		{"parameter no flag", "GET", "/v1/workspaces/default/repositories?refresh=maybe", "", "refresh", "true or false"},
		{"parameter of the path", "GET", apps + "?workspace=other", "", "workspace", "unknown"},
		{"parameter beside a body", "POST", apps + "?appId=web", `{}`, "appId", "takes none"},
		{"broken query", "GET", apps + "?pageToken=%zz", "", "query", "query"},
		{"parameter with an exponent", "GET", apps + "?pageSize=1e3", "", "pageSize", "whole number"},
		{"parameter with a point", "GET", apps + "?pageSize=3.0", "", "pageSize", "whole number"},
		{"path with an exponent", "GET", apps + "/web/deployments/1e1", "", "number", "whole number"},
		{"path in another base", "GET", apps + "/web/deployments/010", "", "number", "whole number"},
		{"stream's query with an exponent", "GET", apps + "/web/deployments/3/log?after=1e1", "", "after", "whole number"},
		{"path no number", "GET", apps + "/web/deployments/latest", "", "number", "whole number"},
		{"bad page token", "GET", "/v1/workspaces?pageToken=nonsense", "", "pageToken", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			reason := "INVALID_ARGUMENT"
			if tc.name == "bad page token" {
				reason = "PAGE_TOKEN_INVALID"
			}
			a := c.send(tc.method, tc.path, tc.body)
			p := a.problem(http.StatusBadRequest, reason)
			if tc.field != "" && (len(p.Fields) == 0 || p.Fields[0].Name != tc.field) {
				t.Errorf("fields %+v, not %s", p.Fields, tc.field)
			}
			if !strings.HasSuffix(p.Detail, ".") {
				t.Errorf("no sentence: %s", p.Detail)
			}
			if strings.Contains(string(a.body), "proto:") || strings.Contains(string(a.body), "syntax error") || strings.Contains(string(a.body), "strconv") {
				t.Errorf("speaks of our insides: %s", a.body)
			}
			if !strings.Contains(string(a.body), tc.says) {
				t.Errorf("does not say %q: %s", tc.says, a.body)
			}
		})
	}
	big := c.post(apps, `{"appId":"`+strings.Repeat("x", 2<<20)+`"}`)
	big.problem(http.StatusRequestEntityTooLarge, "PAYLOAD_TOO_LARGE")
	done := func() (out []*deployerv1.CreateAppRequest) {
		for _, call := range g.deployer.asked("CreateApp") {
			if in := call.req.(*deployerv1.CreateAppRequest); !in.GetValidateOnly() {
				out = append(out, in)
			}
		}
		return out
	}
	if n := len(done()); n != 0 {
		t.Errorf("%d bad requests were to be done by the service", n)
	}
	// What protojson tolerates, and curl sends, is fine.
	c.post(apps, `{"appId":"web","app":{"repository":"r","branch":"main","retention":"3"}}`, with("Content-Type", "application/x-www-form-urlencoded")).want(http.StatusOK)
	in := done()[0]
	if in.GetWorkspace() != "default" || in.GetApp().GetRetention() != 3 {
		t.Errorf("request %v", in)
	}
}

// TestProblem_pathDecidesTheWorkspace: what the body says about it does not count.
func TestProblem_pathDecidesTheWorkspace(t *testing.T) {
	g := start(t)
	g.workspace("acme")
	g.workspace("other")
	g.key("acme", "OWNER").post("/v1/workspaces/acme/apps", `{"workspace":"other","appId":"web","app":{"repository":"r","branch":"main"}}`).want(http.StatusOK)
	if ws := g.deployer.asked("CreateApp")[0].req.(*deployerv1.CreateAppRequest).GetWorkspace(); ws != "acme" {
		t.Errorf("created in %s", ws)
	}
}

func TestProblem_ofServices(t *testing.T) {
	g := start(t)
	c := g.signedIn()
	const path = "/v1/workspaces/default/apps/web"
	fail := func(err error) {
		g.deployer.on("GetApp", func(context.Context, proto.Message) (proto.Message, error) { return nil, err })
	}
	for _, row := range apierr.Table() {
		if row.Reason == apierr.ReasonUnauthenticated || row.Reason == apierr.ReasonInternal || row.Reason == apierr.ReasonCanceled {
			continue // see below; and nobody is told of what they themselves canceled
		}
		fail(apierr.New(row.Reason, "A sentence about "+string(row.Reason)+".", apierr.WithField("x.y", "wrong"), apierr.WithRetryAfter(1500*time.Millisecond)))
		a := c.get(path)
		p := a.problem(row.HTTPStatus, string(row.Reason))
		if row.HTTPStatus == http.StatusUnauthorized {
			t.Errorf("%s is a 401", row.Reason)
		}
		if p.RetryAfterSeconds != 2 || a.header.Get("Retry-After") != "2" || len(p.Fields) != 1 || p.Fields[0].Name != "x.y" {
			t.Errorf("%s: %s", row.Reason, a.body)
		}
	}
	// A service that does not accept our identity is our fault, not the caller's.
	fail(apierr.New(apierr.ReasonUnauthenticated, "who are you"))
	c.get(path).problem(http.StatusInternalServerError, "INTERNAL")
	fail(errors.New("planted: the database password is hunter2"))
	a := c.get(path)
	a.problem(http.StatusInternalServerError, "INTERNAL")
	if strings.Contains(string(a.body), "hunter2") {
		t.Error("the cause left the product")
	}
	fail(status.Error(codes.Internal, "planted hunter2"))
	if a := c.get(path); strings.Contains(string(a.body), "hunter2") {
		t.Error("a status's text left the product")
	}
}

func TestProblem_timeout(t *testing.T) {
	g := start(t, func(c *gateway.Config) { c.Timeout = 3 * time.Second })
	g.deployer.on("GetApp", func(ctx context.Context, _ proto.Message) (proto.Message, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	g.signedIn().get("/v1/workspaces/default/apps/web").problem(http.StatusGatewayTimeout, "TIMEOUT")
}

func TestProblem_panic(t *testing.T) {
	g := start(t)
	g.deployer.on("GetApp", func(context.Context, proto.Message) (proto.Message, error) { panic("planted panic") })
	a := g.signedIn().get("/v1/workspaces/default/apps/web")
	p := a.problem(http.StatusInternalServerError, "INTERNAL")
	if strings.Contains(p.Detail, "planted") || !g.logs.Contains("planted panic") {
		t.Errorf("panic told wrongly: %s", a.body)
	}
}

func TestETag_lists(t *testing.T) {
	g := start(t)
	c := g.signedIn()
	const path = "/v1/workspaces/default/apps"
	a := c.get(path).want(http.StatusOK)
	tag := a.header.Get("ETag")
	if tag == "" || a.header.Get("Cache-Control") != "no-store" {
		t.Fatalf("headers %v", a.header)
	}
	for _, match := range []string{tag, `"other", W/` + tag, "*"} {
		n := c.get(path, with("If-None-Match", match)).want(http.StatusNotModified)
		if len(n.body) != 0 || n.header.Get("ETag") != tag {
			t.Errorf("304 for %s: %q %v", match, n.body, n.header)
		}
	}
	c.get(path, with("If-None-Match", `"other"`)).want(http.StatusOK)
	g.deployer.on("ListApps", func(context.Context, proto.Message) (proto.Message, error) {
		return &deployerv1.ListAppsResponse{}, nil
	})
	b := c.get(path, with("If-None-Match", tag)).want(http.StatusOK)
	if b.header.Get("ETag") == tag || string(b.body) != `{"apps":[],"nextPageToken":"","total":0,"needs":[],"troubles":[]}` {
		t.Errorf("changed list: %s %s", b.header.Get("ETag"), b.body)
	}
	head := c.do(http.MethodHead, path, nil).want(http.StatusOK)
	if len(head.body) != 0 || head.header.Get("ETag") != b.header.Get("ETag") {
		t.Errorf("HEAD: %q %v", head.body, head.header)
	}
}
