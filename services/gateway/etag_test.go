package gateway_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/apierr"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

const appPath = "/v1/workspaces/default/apps/web"

// revision makes the deployer's app one whose etag is "r2", and every change one of that revision.
func revision(g *gate) *deployerv1.App {
	a := &deployerv1.App{Id: "web", Branch: "main", Etag: "r2"}
	g.deployer.on("GetApp", func(context.Context, proto.Message) (proto.Message, error) {
		return &deployerv1.GetAppResponse{App: a}, nil
	})
	check := func(etag string) error {
		if etag != "" && etag != "r2" {
			return apierr.New(apierr.ReasonEtagMismatch, "Somebody else changed the app meanwhile. Load it again and repeat your change.")
		}
		return nil
	}
	g.deployer.on("DeleteApp", func(_ context.Context, in proto.Message) (proto.Message, error) {
		return &deployerv1.DeleteAppResponse{}, check(in.(*deployerv1.DeleteAppRequest).GetEtag())
	})
	g.deployer.on("UpdateApp", func(_ context.Context, in proto.Message) (proto.Message, error) {
		return &deployerv1.UpdateAppResponse{App: a}, check(in.(*deployerv1.UpdateAppRequest).GetApp().GetEtag())
	})
	return a
}

// TestIfMatch holds the header against RFC 9110 sections 8.8.3 and 13.1.1: strong comparison, lists,
// *, and nothing that cannot be read switches the guard off.
func TestIfMatch(t *testing.T) {
	g := start(t)
	revision(g)
	c := g.signedIn()
	for _, tc := range []struct {
		value  string
		status int
	}{
		{`"r2"`, http.StatusOK},
		{` "r2" `, http.StatusOK},
		{`*`, http.StatusOK},
		{`"r1", "r2"`, http.StatusOK},
		{`"r1",,"r2",`, http.StatusOK},
		{`W/"r1", "r2"`, http.StatusOK},
		{`"r2.the-rest-of-an-answers-tag"`, http.StatusOK},
		{`"r1"`, http.StatusPreconditionFailed},
		{`"r1", "r3"`, http.StatusPreconditionFailed},
		{`"R2"`, http.StatusPreconditionFailed},
		{`W/"r2"`, http.StatusPreconditionFailed}, // a weak one is no strong one
		{`"a,b"`, http.StatusPreconditionFailed},  // one tag with a comma in it
		{`""`, http.StatusBadRequest},
		{`W/""`, http.StatusBadRequest},
		{`"r2", ""`, http.StatusBadRequest},
		{` `, http.StatusBadRequest},
		{`,`, http.StatusBadRequest},
		{`r2`, http.StatusBadRequest},
		{`"r2`, http.StatusBadRequest},
		{`r2"`, http.StatusBadRequest},
		{`'r2'`, http.StatusBadRequest},
		{`w/"r2"`, http.StatusBadRequest},
		{`"r2" "r1"`, http.StatusBadRequest},
		{`"r 2"`, http.StatusBadRequest},
		{`*, "r2"`, http.StatusBadRequest},
		{`"r2", *`, http.StatusBadRequest},
		{"\"r2\xff\"", http.StatusBadRequest},
		{strings.Repeat(`"r1",`, 50), http.StatusBadRequest},
	} {
		for _, do := range []func(...change) *answer{
			func(cs ...change) *answer { return c.do(http.MethodDelete, appPath, nil, cs...) },
			func(cs ...change) *answer { return c.send(http.MethodPatch, appPath, `{"branch":"dev"}`, cs...) },
		} {
			a := do(with("If-Match", tc.value))
			switch tc.status {
			case http.StatusOK:
				if a.status != tc.status {
					t.Errorf("%s with %s: %d %s", a.what, tc.value, a.status, a.body)
				}
			case http.StatusPreconditionFailed:
				a.problem(tc.status, "ETAG_MISMATCH")
			default:
				if p := a.problem(tc.status, "INVALID_ARGUMENT"); len(p.Fields) != 1 || p.Fields[0].Name != "If-Match" {
					t.Errorf("%s with %s: fields %v", a.what, tc.value, p.Fields)
				}
			}
		}
	}
	unguarded := 0
	for _, call := range g.deployer.asked("DeleteApp") {
		if call.req.(*deployerv1.DeleteAppRequest).GetEtag() == "" {
			unguarded++
		}
	}
	if unguarded != 1 { // that of *
		t.Errorf("%d deletions went through without an etag", unguarded)
	}
}

// TestIfMatch_neverIgnored: where a guard cannot be obeyed, or is empty, the request is refused.
func TestIfMatch_neverIgnored(t *testing.T) {
	g := start(t)
	revision(g)
	c := g.signedIn()
	for _, tc := range []struct {
		method, path, body, field string
		header                    change
	}{
		{"POST", appPath + "/deployments", `{}`, "If-Match", with("If-Match", `"r2"`)},
		{"POST", appPath + "/deployments", `{}`, "If-Match", with("If-Match", `*`)},
		{"POST", appPath + ":rollback", `{}`, "If-Match", with("If-Match", `"r2"`)},
		{"POST", "/v1/workspaces/default/apps", `{"appId":"web","app":{"repository":"r","branch":"main"}}`, "If-Match", with("If-Match", `"r2"`)},
		{"PATCH", appPath, `{"branch":"dev"}`, "If-None-Match", with("If-None-Match", `"r2"`)},
		{"PATCH", appPath, `{"branch":"dev","etag":""}`, "etag", with("Accept", "*/*")},
		{"DELETE", appPath + "?etag=", ``, "etag", with("Accept", "*/*")},
		{"PATCH", appPath, `{"branch":"dev","etag":"r1"}`, "etag", with("If-Match", `"r2"`)},
	} {
		p := c.send(tc.method, tc.path, tc.body, tc.header).problem(http.StatusBadRequest, "INVALID_ARGUMENT")
		if len(p.Fields) == 0 || p.Fields[0].Name != tc.field {
			t.Errorf("%s %s %s: fields %v, not %s", tc.method, tc.path, tc.body, p.Fields, tc.field)
		}
	}
	for _, method := range []string{"DeleteApp", "CreateDeployment", "RollBackApp"} {
		if n := len(g.deployer.asked(method)); n != 0 {
			t.Errorf("%d calls of %s went through", n, method)
		}
	}
	for _, call := range g.deployer.asked("UpdateApp") {
		if !call.req.(*deployerv1.UpdateAppRequest).GetValidateOnly() {
			t.Errorf("a change went through: %v", call.req)
		}
	}
	c.send(http.MethodPatch, appPath, `{"branch":"dev","etag":"r2"}`, with("If-Match", `"r1", "r2"`)).want(http.StatusOK)
	c.do(http.MethodDelete, appPath+"?etag=r2", nil).want(http.StatusOK)
}

// TestETag_resource: the tag of an answer changes with all of it, also with what others decide, while
// the revision stays; it makes 304, and can be sent as If-Match.
func TestETag_resource(t *testing.T) {
	g := start(t)
	a := revision(g)
	c := g.signedIn()
	first := c.get(appPath).want(http.StatusOK)
	tag := first.header.Get("ETag")
	if strings.HasPrefix(tag, "W/") || !strings.HasPrefix(tag, `"r2.`) {
		t.Errorf("tag %s is not a strong one that begins with the revision", tag)
	}
	if again := c.get(appPath).want(http.StatusOK); again.header.Get("ETag") != tag {
		t.Errorf("the same answer has the tags %s and %s", tag, again.header.Get("ETag"))
	}
	for _, match := range []string{tag, "W/" + tag, `"other", ` + tag, "*"} {
		if n := c.get(appPath, with("If-None-Match", match)).want(http.StatusNotModified); len(n.body) != 0 || n.header.Get("ETag") != tag {
			t.Errorf("304 for %s: %q %v", match, n.body, n.header)
		}
	}
	a.Latest = &deployerv1.DeploymentSummary{Number: 7, State: deployerv1.Deployment_PROCESSING}
	second := c.get(appPath, with("If-None-Match", tag)).want(http.StatusOK)
	if second.header.Get("ETag") == tag || !strings.HasPrefix(second.header.Get("ETag"), `"r2.`) {
		t.Errorf("another answer has the tag %s", second.header.Get("ETag"))
	}
	// Whoever read the app before its deployment began changes it all the same: the revision is the same.
	c.send(http.MethodPatch, appPath, `{"branch":"dev"}`, with("If-Match", tag)).want(http.StatusOK)
	if etag := g.deployer.asked("UpdateApp")[0].req.(*deployerv1.UpdateAppRequest).GetApp().GetEtag(); etag != "r2" {
		t.Errorf("the service was told the etag %q", etag)
	}
	c.get(appPath, with("If-None-Match", `not a tag`)).want(http.StatusOK)
}
