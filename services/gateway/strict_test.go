package gateway_test

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/apierr"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	repov1 "devpilot.io/bitbucket/proto/gen/devpilot/repo/v1"
)

// TestPatch_namesWhatTheBodyNames: whatever the mask is, a field that is named nowhere is not in what
// the service is told to change.
func TestPatch_namesWhatTheBodyNames(t *testing.T) {
	g := start(t)
	c := g.signedIn()
	for _, tc := range []struct {
		query, body string
		want        []string
	}{
		{"", `{"branch":"main"}`, []string{"branch"}},
		{"?updateMask=", `{"branch":"main"}`, []string{"branch"}},
		{"?updateMask=%20", `{"branch":"main"}`, []string{"branch"}},
		{"?updateMask=,", `{"branch":"main"}`, []string{"branch"}},
		{"?updateMask=branch", `{"branch":"main","hooks":[]}`, []string{"branch"}},
		{"?updateMask=autoDeploy,rules.pathsIgnore", `{"autoDeploy":false}`, []string{"auto_deploy", "rules.paths_ignore"}},
		{"?updateMask=auto_deploy,", `{"autoDeploy":false}`, []string{"auto_deploy"}},
		{"", `{}`, nil},
		{"", ``, nil},
		{"?updateMask=", `{}`, nil},
		{"", `{"hooks":[]}`, []string{"hooks"}},
		{"", `{"autoDeploy":false,"branch":""}`, []string{"auto_deploy", "branch"}},
		{"", `{"rules":{"paths":["a"],"skip":{"phrases":[]}},"serve":{"directory":""}}`, []string{"rules.paths", "rules.skip.phrases", "serve.directory"}},
		{"", `{"rules":{}}`, nil},
		{"", `{"rules":{"skip":{}},"source":{}}`, nil},
		{"", `{"variables":[{"name":"A","value":"1"}],"etag":"r2","id":"web"}`, []string{"etag", "id", "variables"}},
	} {
		before := len(g.deployer.asked("UpdateApp"))
		c.send(http.MethodPatch, appPath+tc.query, tc.body).want(http.StatusOK)
		in := g.deployer.asked("UpdateApp")[before].req.(*deployerv1.UpdateAppRequest)
		if got := in.GetUpdateMask().GetPaths(); !slices.Equal(got, tc.want) || in.GetValidateOnly() {
			t.Errorf("%s %s: mask %q, not %q", tc.query, tc.body, got, tc.want)
		}
	}
}

// TestFaults_allAtOnce: what the gateway finds and what the service finds come in one answer, each as
// a path into the body that was sent.
func TestFaults_allAtOnce(t *testing.T) {
	g := start(t)
	says := func(names ...string) error {
		opts := make([]apierr.Option, 0, len(names))
		for _, n := range names {
			opts = append(opts, apierr.WithField(n, "says the service"))
		}
		return apierr.New(apierr.ReasonInvalidArgument, "Not right.", opts...)
	}
	g.deployer.on("UpdateApp", func(_ context.Context, in proto.Message) (proto.Message, error) {
		if !in.(*deployerv1.UpdateAppRequest).GetValidateOnly() {
			return &deployerv1.UpdateAppResponse{}, says("app.branch", "app.hooks[1].name", "updateMask", "appId")
		}
		return nil, says("app.branch", "app.hooks[0].stage", "app.variables[0].name", "app.retention", "app.serve.directory")
	})
	g.deployer.on("CreateApp", func(_ context.Context, in proto.Message) (proto.Message, error) {
		return nil, says("appId", "app.branch", "app.retention", "app.hooks[0].command")
	})
	g.deployer.on("CheckPush", func(context.Context, proto.Message) (proto.Message, error) {
		return nil, says("newCommit", "rules.paths[0]")
	})
	c := g.signedIn()
	for _, tc := range []struct {
		name, method, path, body string
		want                     []string
	}{
		{
			"the service's alone", "PATCH", appPath, `{"branch":"a..b","hooks":[{"name":"a","stage":"POST_SETUP","command":"x"},{"name":"a","stage":"POST_SETUP","command":"x"}]}`,
			[]string{"branch", "hooks[1].name", "updateMask", "app"},
		},
		{
			"both", "PATCH", appPath, `{"branch":"a..b","retention":"many","colour":1,"hooks":[{"name":"x","stage":"NOPE","command":"true"}],"serve":7,"variables":[{"name":"1"}]}`,
			[]string{"colour", "hooks[0].stage", "retention", "serve", "branch", "variables[0].name"},
		},
		{
			"missing and wrong", "POST", "/v1/workspaces/default/apps?nope=1", `{"app":{"branch":"a..b","retention":{},"hooks":[{"name":"x","stage":"POST_SETUP"}]},"deployNow":"yes"}`,
			[]string{"nope", "app.retention", "deployNow", "appId", "app.repository", "app.hooks[0].command", "app.branch"},
		},
		{
			"a question", "POST", appPath + ":checkPush", `{"changedPaths":[1],"rules":{"paths":["!x"]},"newCommit":"abc"}`,
			[]string{"changedPaths[0]", "newCommit", "rules.paths[0]"},
		},
		{
			"no service to ask", "POST", "/v1/workspaces/default/webhooks/wh1:repair?a=1", `{"etag":1,"x":2}`,
			[]string{"a", "etag", "x"},
		},
	} {
		p := c.send(tc.method, tc.path, tc.body).problem(http.StatusBadRequest, "INVALID_ARGUMENT")
		var got []string
		for _, f := range p.Fields {
			got = append(got, f.Name)
			if f.Message == "" || !strings.Contains(p.Detail, `"`+f.Name+`"`) && f.Message != "says the service" {
				t.Errorf("%s: %q is not told in %q", tc.name, f.Name, p.Detail)
			}
		}
		slices.Sort(got)
		slices.Sort(tc.want)
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s: fields %q, not %q", tc.name, got, tc.want)
		}
	}
	// Who may not, and who means what is not there, is told that.
	g.deployer.on("UpdateApp", func(context.Context, proto.Message) (proto.Message, error) {
		return nil, apierr.New(apierr.ReasonAppNotFound, "There is no app web.")
	})
	c.send(http.MethodPatch, appPath, `{"colour":1}`).problem(http.StatusNotFound, "APP_NOT_FOUND")
	g.key("default", "MEMBER").send(http.MethodPatch, appPath, `{"colour":1}`).problem(http.StatusForbidden, "PERMISSION_DENIED")
	// What was only asked is not told as done.
	var list struct{ Activity []struct{ Action string } }
	c.get("/v1/workspaces/default/activity").want(http.StatusOK).into(&list)
	for _, r := range list.Activity {
		if r.Action == "app.create" {
			t.Errorf("a question is in the list of what was done: %+v", list.Activity)
		}
	}
}

// TestHeaders_notUnicode: no byte of a header that means something goes on.
func TestHeaders_notUnicode(t *testing.T) {
	g := start(t)
	c := g.signedIn()
	for _, name := range []string{"If-Match", "If-None-Match", "Last-Event-ID", "Accept", "Content-Type"} {
		for _, path := range []string{appPath, "/v1/workspaces/default/events", logPath} {
			p := c.get(path, with(name, "x\xff")).problem(http.StatusBadRequest, "INVALID_ARGUMENT")
			if len(p.Fields) != 1 || p.Fields[0].Name != name {
				t.Errorf("%s of %s: fields %v", name, path, p.Fields)
			}
		}
	}
	c.get(appPath, with("User-Agent", "caf\xe9"), with("X-Request-Id", "\xff"), with("Baggage", "a=\xff"), with("Tracestate", "a=\xff")).want(http.StatusOK)
	if p := c.get("/v1/workspaces/default/events", with("Last-Event-ID", "x")).problem(http.StatusBadRequest, "INVALID_ARGUMENT"); p.Fields[0].Name != "Last-Event-ID" {
		t.Errorf("fields %v", p.Fields)
	}
	c.get(appPath, with("Authorization", "Bearer \xff")).problem(http.StatusUnauthorized, "UNAUTHENTICATED")
}

// TestAnswers_absentMeansAbsent: no words for "not set", no numbers and texts that stand for nothing.
func TestAnswers_absentMeansAbsent(t *testing.T) {
	g := start(t)
	g.deployer.on("GetDeployment", func(context.Context, proto.Message) (proto.Message, error) {
		return &deployerv1.GetDeploymentResponse{Deployment: &deployerv1.Deployment{
			Number: 3, State: deployerv1.Deployment_PENDING, Trigger: deployerv1.Deployment_PUSH, Commit: &deployerv1.DeploymentCommit{Hash: "ab"}, Actor: &deployerv1.DeploymentActor{Label: "x"},
			Stages: []*deployerv1.StageRecord{{Stage: deployerv1.Deployment_POST_SETUP, Hooks: []*deployerv1.HookRecord{{Name: "h", State: deployerv1.HookRecord_PENDING}}}},
		}}, nil
	})
	g.repo.on("GetRepository", func(context.Context, proto.Message) (proto.Message, error) {
		return &repov1.GetRepositoryResponse{Repository: &repov1.Repository{Id: "r"}}, nil
	})
	c := g.signedIn()
	for path, want := range map[string]string{
		appPath + "/deployments/3": `{"number":3,"workspace":"","app":"","state":"PENDING","progressPercent":0,"live":false,"trigger":"PUSH",` +
			`"commit":{"hash":"ab"},"actor":{"label":"x"},"attempt":0,"stages":[{"stage":"POST_SETUP","hooks":[{"name":"h","state":"PENDING"}]}],` +
			`"server":"","releaseKept":false,"etag":"","notes":[],"chosen":false}`,
		"/v1/workspaces/default/repositories/r": `{"id":"r","fullName":"","name":"","bitbucketWorkspace":"","private":false,"htmlUrl":""}`,
	} {
		if a := c.get(path).want(http.StatusOK); string(a.body) != want {
			t.Errorf("%s:\n%s\nnot\n%s", path, a.body, want)
		}
	}
}

// TestLog_resumedPastItsEnd: a browser comes back after the end of a stream; 204 makes it stop.
func TestLog_resumedPastItsEnd(t *testing.T) {
	g := start(t)
	g.deployer.onStream("ReadLog", threeLines)
	c := g.signedIn()
	s := c.stream(logPath+"?follow=true", with("Accept", "text/event-stream"))
	for range 3 {
		s.want("record")
	}
	last := s.want("end")
	if last.id != "3" {
		t.Errorf("the end has the id %q", last.id)
	}
	for _, id := range []string{last.id, "99", "2147483647"} {
		for _, query := range []string{"?follow=true", "?follow=true&after=0", ""} {
			if a := c.get(logPath+query, with("Accept", "text/event-stream"), with("Last-Event-ID", id)).want(http.StatusNoContent); len(a.body) != 0 || a.header.Get("Content-Type") != "" {
				t.Errorf("%q as %q", a.body, a.header.Get("Content-Type"))
			}
		}
	}
	// A page that reads on by itself is told the end, and so is whoever resumes before it.
	for _, id := range []string{"0", "2"} {
		c.stream(logPath+"?format=sse", with("Last-Event-ID", id)).want("record")
	}
	c.stream(logPath + "?format=sse&after=3").want("end")
	c.get(logPath, with("Last-Event-ID", "3")).want(http.StatusOK) // NDJSON resumes by after
	// A deployment that still runs has no end yet.
	g.deployer.onStream("ReadLog", running)
	c.stream(logPath, with("Accept", "text/event-stream"), with("Last-Event-ID", "3")).want("end")
	// One without lines ends too.
	g.deployer.onStream("ReadLog", endedLog)
	if e := c.stream(logPath + "?format=sse").want("end"); e.id != "0" {
		t.Errorf("the end of an empty log has the id %q", e.id)
	}
	c.get(logPath+"?format=sse", with("Last-Event-ID", "0")).want(http.StatusNoContent)
}

// A list that says what is allowed is emptied by saying so, and not by leaving it out.
func TestRequired_anEmptyListHasToBeSaid(t *testing.T) {
	g := start(t)
	c := g.signedIn()
	const path = "/v1/workspaces/default/integrations/bitbucket:narrow"
	for _, body := range []string{``, `{}`, `{"bitbucketWorkspaces":null}`, `{"etag":"x"}`} {
		a := c.post(path, body)
		a.problem(http.StatusBadRequest, "INVALID_ARGUMENT")
		if !strings.Contains(string(a.body), `{"name":"bitbucketWorkspaces","message":"is required; give [] where you mean an empty list"}`) {
			t.Errorf("%q: %s", body, a.body)
		}
	}
	if n := len(g.auth.asked("NarrowIntegration")); n != 0 {
		t.Errorf("it was done %d times", n)
	}
	c.post(path, `{"bitbucketWorkspaces":[]}`).want(http.StatusOK)
	if n := len(g.auth.asked("NarrowIntegration")); n != 1 {
		t.Errorf("it was done %d times", n)
	}
}
