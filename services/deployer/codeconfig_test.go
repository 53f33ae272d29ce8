package deployer_test

import (
	"slices"
	"strings"
	"testing"

	"devpilot.io/bitbucket/services/deployer"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/gittest"

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

// TestCodeConfig_otherNamesAreNotIgnoredInSilence: a file that was meant and does not count is told of,
// where the app lets the file count at all.
func TestCodeConfig_otherNamesAreNotIgnoredInSilence(t *testing.T) {
	b := newBench(t)
	const sentence = "site/.devpilot.yml does not count: the file has to be called .devpilot.yaml"
	b.repo.Commit("main", "one", map[string]string{"site/index.html": "one", "site/.devpilot.yml": "version: 1\n"})
	a := web(false)
	a.Source = &deployerv1.SourceOptions{Directory: "site"}
	b.create("web", a)
	b.deployed("web", deployerv1.Deployment_COMPLETED)
	log, _ := b.log("web", 1, &deployerv1.ReadLogRequest{})
	if app := b.get("web"); strings.Contains(log, "does not count") || hasWarning(app, "CODE_CONFIG_IGNORED") {
		t.Errorf("no file counts, and one is complained of: %q, %v", log, app.GetWarnings())
	}
	b.update("web", &deployerv1.App{ConfigAsCode: true}, "config_as_code")
	b.deployed("web", deployerv1.Deployment_COMPLETED)
	log, _ = b.log("web", 2, &deployerv1.ReadLogRequest{})
	app := b.get("web")
	if !strings.Contains(log, sentence) || !hasWarning(app, "CODE_CONFIG_IGNORED") || app.GetCodeConfig().GetIgnoredPath() != "site/.devpilot.yml" {
		t.Errorf("log %q, warnings %v", log, app.GetWarnings())
	}
	// Beside one that counts, too.
	b.repo.Commit("main", "two", map[string]string{"site/index.html": "two", "site/.devpilot.yml": "version: 1\n", "site/.devpilot.yaml": "version: 1\nsharedPaths: [uploads/]\n"})
	b.deployed("web", deployerv1.Deployment_COMPLETED)
	log, _ = b.log("web", 3, &deployerv1.ReadLogRequest{})
	if !strings.Contains(log, sentence) || !strings.Contains(log, "site/.devpilot.yaml sets sharedPaths") {
		t.Errorf("log %q", log)
	}
	b.repo.Commit("main", "three", map[string]string{"site/index.html": "three", "site/.devpilot.yaml": "version: 1\n", ".devpilot.yml": "another app's"})
	b.deployed("web", deployerv1.Deployment_COMPLETED)
	log, _ = b.log("web", 4, &deployerv1.ReadLogRequest{})
	if app := b.get("web"); strings.Contains(log, "does not count") || hasWarning(app, "CODE_CONFIG_IGNORED") {
		t.Errorf("it was renamed: %q, %v", log, app.GetWarnings())
	}
}

// TestSourceDirectory_linksBesideIt: a link that leads out of the repository fails a commit only where
// the app deploys from.
func TestSourceDirectory_linksBesideIt(t *testing.T) {
	b := newBench(t)
	a := web(false)
	a.Source = &deployerv1.SourceOptions{Directory: "site"}
	site := b.repo.Tree(gittest.E("100644", "index.html", "one"))
	tools := b.repo.Tree(gittest.E("120000", "python", "/usr/bin/python3"))
	b.repo.CommitTree("main", b.repo.Tree(gittest.E("040000", "site", site), gittest.E("040000", "tools", tools)), "one")
	b.create("web", a)
	b.deployed("web", deployerv1.Deployment_COMPLETED)
	if got := b.file("web", "site/index.html"); got != "one" {
		t.Errorf("live: %q", got)
	}
	through := b.repo.Tree(gittest.E("100644", "index.html", "two"), gittest.E("120000", "python", "../tools/python"))
	b.repo.CommitTree("main", b.repo.Tree(gittest.E("040000", "site", through), gittest.E("040000", "tools", tools)), "two")
	d := b.deployed("web", deployerv1.Deployment_FAILED)
	if e := d.GetError(); e.GetReason() != "TREE_REFUSED" || !strings.Contains(e.GetMessage(), "site/python") {
		t.Errorf("a link in the directory, through one beside it: %v", e)
	}
	b.update("web", &deployerv1.App{Source: &deployerv1.SourceOptions{}}, "source")
	b.repo.CommitTree("main", b.repo.Tree(gittest.E("040000", "site", site), gittest.E("040000", "tools", tools)), "three")
	d = b.deployed("web", deployerv1.Deployment_FAILED)
	if e := d.GetError(); e.GetReason() != "TREE_REFUSED" || !strings.Contains(e.GetMessage(), "tools/python") {
		t.Errorf("all of it is deployed: %v", e)
	}
}
