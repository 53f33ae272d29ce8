package deployer_test

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/services/deployer"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// TestUpdateApp_neverWipesByOmission: a mask that is absent or names nothing stands for what the
// request names; nothing else changes.
func TestUpdateApp_neverWipesByOmission(t *testing.T) {
	b := newBench(t, func(c *deployer.Config) { c.Worker = false })
	full := web(true)
	full.Retention, full.CancelRunning, full.ConfigAsCode = 7, true, true
	full.Hooks = []*deployerv1.DeploymentHook{{Name: "build", Stage: deployerv1.Deployment_POST_SETUP, Command: "make"}}
	full.Variables = []*deployerv1.Variable{{Name: "A", Value: "1"}, {Name: "S", Value: "a secret", Secret: true}}
	full.SharedPaths = []string{"uploads/"}
	full.Rules = &deployerv1.AppRules{Paths: []string{"site/**"}, Skip: &deployerv1.SkipPhrases{Phrases: []string{"[no deploy]"}}}
	full.Source = &deployerv1.SourceOptions{FullHistory: true}
	full.Serve = &deployerv1.ServeOptions{Directory: "dist", Fallback: "index.html"}
	want := b.create("web", full)
	for _, tc := range []struct {
		name string
		mask *fieldmaskpb.FieldMask
		in   *deployerv1.App
		does func(a *deployerv1.App)
	}{
		{"no mask, nothing", nil, &deployerv1.App{}, func(*deployerv1.App) {}},
		{"empty mask, nothing", &fieldmaskpb.FieldMask{}, &deployerv1.App{}, func(*deployerv1.App) {}},
		{"no mask", nil, &deployerv1.App{Retention: 9}, func(a *deployerv1.App) { a.Retention = 9 }},
		{"empty mask", &fieldmaskpb.FieldMask{}, &deployerv1.App{Retention: 8}, func(a *deployerv1.App) { a.Retention = 8 }},
		{"a part of the rules", nil, &deployerv1.App{Rules: &deployerv1.AppRules{PathsIgnore: []string{"docs/**"}}}, func(a *deployerv1.App) { a.Rules.PathsIgnore = []string{"docs/**"} }},
		{"empty messages", nil, &deployerv1.App{Rules: &deployerv1.AppRules{Skip: &deployerv1.SkipPhrases{}}, Serve: &deployerv1.ServeOptions{}, Source: &deployerv1.SourceOptions{}}, func(*deployerv1.App) {}},
		{"what a client may send back", nil, &deployerv1.App{Id: "web", LiveUrl: "x", Live: &deployerv1.DeploymentSummary{Number: 1}}, func(*deployerv1.App) {}},
		{"named and not there", &fieldmaskpb.FieldMask{Paths: []string{"retention"}}, &deployerv1.App{}, func(a *deployerv1.App) { a.Retention = 5 }},
	} {
		resp, err := b.client.UpdateApp(b.admin, &deployerv1.UpdateAppRequest{Workspace: workspace, AppId: "web", App: tc.in, UpdateMask: tc.mask})
		if err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		tc.does(want)
		got := proto.CloneOf(resp.GetApp())
		got.Etag, got.UpdateTime = want.GetEtag(), want.GetUpdateTime()
		if !proto.Equal(got, want) {
			t.Errorf("%s:\n%v\nnot\n%v", tc.name, got, want)
		}
	}
	before := b.get("web")
	if _, err := b.client.UpdateApp(b.admin, &deployerv1.UpdateAppRequest{Workspace: workspace, AppId: "web", App: &deployerv1.App{}}); err != nil || b.get("web").GetEtag() != before.GetEtag() {
		t.Errorf("an update of nothing wrote the app: %v", err)
	}
	if _, err := b.client.UpdateApp(b.admin, &deployerv1.UpdateAppRequest{Workspace: workspace, AppId: "web", App: &deployerv1.App{}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{""}}}); !apierr.Has(err, apierr.ReasonInvalidArgument) {
		t.Errorf("a mask of an empty name: %v", err)
	}
}

// TestApps_allFaultsAtOnce: each is a path into the request, and checking it changes nothing.
func TestApps_allFaultsAtOnce(t *testing.T) {
	b := newBench(t, func(c *deployer.Config) { c.Worker = false })
	bad := func() *deployerv1.App {
		return &deployerv1.App{
			Repository: "web", Branch: "a..b", Retention: 99, Server: "Not A Server",
			Hooks: []*deployerv1.DeploymentHook{
				{Name: "x", Stage: deployerv1.Deployment_RELEASE, Command: " ", TimeoutSeconds: 4000},
				{Name: "x", Stage: deployerv1.Deployment_POST_SETUP, Command: "true", Priority: 5000},
			},
			Variables:   []*deployerv1.Variable{{Name: "1"}, {Name: "A"}, {Name: "A", Value: "\x00"}, {Name: "S", Secret: true}},
			SharedPaths: []string{"ok", "../up", "ok/inner"},
			Rules:       &deployerv1.AppRules{Tags: []string{"v*", "refs/tags/v"}, Paths: []string{"!no"}, PathsIgnore: []string{"a", "a"}, Skip: &deployerv1.SkipPhrases{Phrases: []string{"x"}}},
			Source:      &deployerv1.SourceOptions{Directory: "/abs"},
			Serve:       &deployerv1.ServeOptions{Directory: "../x", Fallback: "y/"},
		}
	}
	inApp := []string{
		"app.branch", "app.hooks[0].command", "app.hooks[0].stage", "app.hooks[0].timeoutSeconds", "app.hooks[1].name", "app.hooks[1].priority",
		"app.retention", "app.rules.paths[0]", "app.rules.pathsIgnore[1]", "app.rules.skip.phrases[0]", "app.rules.tags[1]", "app.serve.directory",
		"app.serve.fallback", "app.server", "app.sharedPaths[1]", "app.sharedPaths[2]", "app.source.directory",
		"app.variables[0].name", "app.variables[2].name", "app.variables[2].value", "app.variables[3].value",
	}
	names := func(err error) []string {
		t.Helper()
		if !apierr.Has(err, apierr.ReasonInvalidArgument) {
			t.Fatalf("not refused: %v", err)
		}
		var out []string
		for _, f := range apierr.From(err).Fields() {
			out = append(out, f.Name)
		}
		slices.Sort(out)
		return out
	}
	_, err := b.client.CreateApp(b.admin, &deployerv1.CreateAppRequest{Workspace: workspace, AppId: "Web!", App: bad(), DeployNow: true, RequestId: strings.Repeat("x", apierr.MaxRequestID+1)})
	want := append([]string{"appId", "app.repository", "requestId"}, inApp...)
	slices.Sort(want)
	if got := names(err); !slices.Equal(got, want) {
		t.Errorf("create: %q\nnot %q", got, want)
	}
	b.create("web", web(false))
	before := b.get("web")
	_, err = b.tryUpdate("web", bad())
	want = append([]string{"app.repository"}, inApp...)
	slices.Sort(want)
	if got := names(err); !slices.Equal(got, want) {
		t.Errorf("update: %q\nnot %q", got, want)
	}
	_, err = b.client.CheckPush(b.admin, &deployerv1.CheckPushRequest{
		Workspace: workspace, App: "web", Branch: "main", Tag: "v1", OldCommit: "abc", WatchedBranch: "a..b", Rules: &deployerv1.AppRules{Paths: []string{"/x"}},
	})
	if got := names(err); !slices.Equal(got, []string{"branch", "newCommit", "oldCommit", "rules.paths[0]", "watchedBranch"}) {
		t.Errorf("check: %q", got)
	}
	// Who only asks hears all of it, also what is missing, and changes nothing.
	_, err = b.client.CreateApp(b.admin, &deployerv1.CreateAppRequest{Workspace: workspace, App: &deployerv1.App{Retention: 99}, ValidateOnly: true})
	if got := names(err); !slices.Equal(got, []string{"app.branch", "app.repository", "app.retention", "appId"}) {
		t.Errorf("asked: %q", got)
	}
	previewed, err := b.client.CreateApp(b.admin, &deployerv1.CreateAppRequest{Workspace: workspace, AppId: "other", App: web(false), ValidateOnly: true})
	if need := previewed.GetApp().GetNeed(); err != nil || need != deployerv1.App_NOT_KNOWN {
		t.Errorf("asked about a good one: it needs %v, %v", need, err)
	}
	if _, err := b.client.GetApp(b.admin, &deployerv1.GetAppRequest{Workspace: workspace, App: "other"}); !apierr.Has(err, apierr.ReasonAppNotFound) {
		t.Errorf("a question made the app: %v", err)
	}
	if _, err := b.client.UpdateApp(b.admin, &deployerv1.UpdateAppRequest{Workspace: workspace, AppId: "web", App: &deployerv1.App{Retention: 9}, ValidateOnly: true}); err != nil || !proto.Equal(b.get("web"), before) {
		t.Errorf("a question changed the app: %v, %v", err, b.get("web"))
	}
}
