package deployer_test

import (
	"slices"
	"strings"
	"testing"

	"devpilot.io/bitbucket/services/deployer"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	eventsv1 "devpilot.io/bitbucket/proto/gen/devpilot/events/v1"
)

const codeFile = `version: 1
hooks:
  - name: from the file
    stage: POST_SETUP
    command: echo "by the file"; echo built > built
sharedPaths: [uploads/]
serve:
  directory: .
`

func TestCodeConfig_countsOnlyWhereItIsAllowed(t *testing.T) {
	b := newBench(t, func(c *deployer.Config) { c.LiveURL = "http://localhost:8083" })
	files := map[string]string{"index.html": "one", ".devpilot.yaml": codeFile}
	hash := b.repo.Commit("main", "one", files)
	b.create("web", withHooks(hookAt(preExecution, "before", "echo before"), hookAt(postSetup, "own", "echo by the app")))
	b.deployed("web", deployerv1.Deployment_COMPLETED)
	if got := b.printed("web", 1, ""); !slices.Equal(got, []string{"before", "by the app"}) {
		t.Errorf("without permission these hooks ran: %q", got)
	}
	if app := b.get("web"); app.GetCodeConfig() != nil || app.GetLiveUrl() != "" {
		t.Errorf("without permission the file is shown: %v, %q", app.GetCodeConfig(), app.GetLiveUrl())
	}

	b.update("web", &deployerv1.App{ConfigAsCode: true}, "config_as_code")
	d := b.deployed("web", deployerv1.Deployment_COMPLETED)
	// What runs before the source is there stays the app's.
	if got := b.printed("web", 2, ""); !slices.Equal(got, []string{"before", "by the file"}) {
		t.Errorf("with permission these hooks ran: %q", got)
	}
	if hookOf(d, "from the file").GetState() != deployerv1.HookRecord_COMPLETED || hookOf(d, "own") != nil || b.file("web", "built") != "built\n" {
		t.Errorf("the hooks of the file: %v", d.GetStages())
	}
	app := b.get("web")
	c := app.GetCodeConfig()
	if c.GetPath() != ".devpilot.yaml" || c.GetCommit() != hash || len(c.GetProblems()) != 0 || !slices.Equal(c.GetFields(), []string{"hooks", "sharedPaths", "serve"}) ||
		len(c.GetHooks()) != 1 || c.GetHooks()[0].GetName() != "from the file" || c.GetServe().GetDirectory() != "." || !slices.Equal(c.GetSharedPaths(), []string{"uploads/"}) {
		t.Errorf("the form shows of the file %v", c)
	}
	// What an admin saved is still there, for the day the file goes.
	if len(app.GetHooks()) != 2 || len(app.GetSharedPaths()) != 0 || app.GetServe().GetDirectory() != "" {
		t.Errorf("the file changed what was saved: %v", app)
	}
	if want := "http://web.acme-inc.localhost:8083"; strings.TrimSuffix(app.GetLiveUrl(), "/") != want || !strings.Contains(d.GetReleaseUrl(), "2--web.acme-inc.localhost") {
		t.Errorf("what the file serves is at %q and %q", app.GetLiveUrl(), d.GetReleaseUrl())
	}

	delete(files, ".devpilot.yaml")
	b.repo.Commit("main", "two", files)
	b.deployed("web", deployerv1.Deployment_COMPLETED)
	if got := b.printed("web", 3, ""); !slices.Equal(got, []string{"before", "by the app"}) {
		t.Errorf("after the file is gone these hooks ran: %q", got)
	}
	if c := b.get("web").GetCodeConfig(); len(c.GetFields()) != 0 || len(c.GetProblems()) != 0 {
		t.Errorf("after the file is gone the form shows %v", c)
	}
}

func TestCodeConfig_mistakesFailTheDeploymentWithTheirPlace(t *testing.T) {
	b := newBench(t)
	b.repo.Commit("main", "one", map[string]string{"site/index.html": "one"})
	a := withHooks(hookAt(postSetup, "own", "echo never"))
	a.ConfigAsCode, a.Source = true, &deployerv1.SourceOptions{Directory: "site"}
	b.create("web", a)
	b.deployed("web", deployerv1.Deployment_COMPLETED)
	hash := b.repo.Commit("main", "two", map[string]string{"site/index.html": "two", "site/.devpilot.yaml": "version: 1\nhooks:\n  - name: build\n    stage: POST_BUILD\n    command: make\n    colour: red\n"})
	d := b.deployed("web", deployerv1.Deployment_FAILED)
	if e := d.GetError(); e.GetReason() != "CODE_CONFIG_INVALID" || !strings.Contains(e.GetMessage(), "site/.devpilot.yaml:4:12") || !strings.Contains(e.GetMessage(), "POST_BUILD") {
		t.Errorf("the failure is %v", e)
	}
	if d.GetLive() || b.file("web", "site/index.html") != "one" || hookOf(d, "own").GetState() == deployerv1.HookRecord_COMPLETED {
		t.Errorf("a file with mistakes went on: %v", d)
	}
	app := b.get("web")
	c := app.GetCodeConfig()
	if c.GetCommit() != hash || c.GetPath() != "site/.devpilot.yaml" || len(c.GetFields()) != 0 || len(c.GetProblems()) != 2 {
		t.Fatalf("the form shows %v", c)
	}
	for i, want := range []struct{ line, column int32 }{{4, 12}, {6, 5}} {
		if p := c.GetProblems()[i]; p.GetLine() != want.line || p.GetColumn() != want.column || p.GetMessage() == "" {
			t.Errorf("problem %d is %v, want %v", i, p, want)
		}
	}
	if !hasWarning(app, "CODE_CONFIG_INVALID") {
		t.Errorf("warnings: %v", app.GetWarnings())
	}
	log, _ := b.log("web", 2, &deployerv1.ReadLogRequest{})
	for _, place := range []string{":4:12", ":6:5"} {
		if !strings.Contains(log, "site/.devpilot.yaml"+place) {
			t.Errorf("the log does not name %s: %q", place, log)
		}
	}
}

func TestCodeConfig_rulesOfThePushedCommitHold(t *testing.T) {
	b := newBench(t)
	base := map[string]string{"index.html": "one", "docs/a.md": "a"}
	b.repo.Commit("main", "one", base)
	a := web(true)
	a.ConfigAsCode = true
	b.create("web", a)
	old := b.repo.Head("main")
	base[".devpilot.yaml"] = "version: 1\nrules:\n  pathsIgnore: [\"docs/**\", .devpilot.yaml]\n"
	base["docs/a.md"] = "b"
	hash := b.repo.Commit("main", "two", base)
	delivery := b.deliver(func(e *eventsv1.PushEvent) { e.Old = &eventsv1.Commit{Hash: old} })
	b.awaitOutcome(delivery, "web", "PATHS_UNCHANGED")
	// A file with mistakes turns nothing away: the deployment says what is wrong.
	base[".devpilot.yaml"] = "version: 7\n"
	b.repo.Commit("main", "three", base)
	b.deliver(func(e *eventsv1.PushEvent) { e.Old = &eventsv1.Commit{Hash: hash} })
	d := b.await("web", 1, deployerv1.Deployment_FAILED)
	if d.GetError().GetReason() != "CODE_CONFIG_INVALID" || len(d.GetNotes()) != 1 || !strings.Contains(d.GetNotes()[0], "not valid") {
		t.Errorf("%v, notes %q", d.GetError(), d.GetNotes())
	}
}
