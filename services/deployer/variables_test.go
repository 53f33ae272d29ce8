package deployer_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/services/deployer"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// The secret is planted in parts: nothing but the store's sealed value ever holds it whole.
const plantedSecret = "planted-variable/with+signs=8a61f0c2d4"

func secretVariable(value string) *deployerv1.Variable {
	return &deployerv1.Variable{Name: "API_TOKEN", Value: value, Secret: true}
}

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

// spill is a hook that tries to get a secret into the log in the ways that programs have.
const spill = `echo "plain: $API_TOKEN"
echo "base64: $(printf %s "$API_TOKEN" | base64 -w0)"
echo "in base64: $(printf 'user:%s' "$API_TOKEN" | base64 -w0)"
half=${API_TOKEN%%8a61f0c2d4}
printf %s "in two: $half"
sleep 0.4
echo "8a61f0c2d4"
echo "on standard error: $API_TOKEN" >&2
echo "digest: $(printf %s "$API_TOKEN" | sha256sum | cut -d' ' -f1)"
echo "color: $COLOR"
`

func TestVariables_secretsAreSeenByHooksAndNobodyElse(t *testing.T) {
	b := newBench(t)
	b.repo.Commit("main", "one", map[string]string{"index.html": "one"})
	a := withHooks(hookAt(postSetup, "spill", spill))
	a.Variables = []*deployerv1.Variable{secretVariable(plantedSecret), {Name: "COLOR", Value: "blue"}}
	req := &deployerv1.CreateAppRequest{Workspace: workspace, AppId: "web", App: a, RequestId: "with a secret"}
	created, err := b.client.CreateApp(b.admin, req)
	if err != nil {
		t.Fatal(err)
	}
	d := b.deployed("web", deployerv1.Deployment_COMPLETED)
	lines := b.printed("web", 1, "spill")
	for _, want := range []string{"digest: " + digest(plantedSecret), "color: blue"} {
		if !slices.Contains(lines, want) {
			t.Errorf("the hook did not see its variables: no %q in %q", want, lines)
		}
	}
	for _, begin := range []string{"plain: ", "base64: ", "in base64: ", "in two: ", "on standard error: "} {
		if !slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, begin) && len(l) > len(begin) }) {
			t.Errorf("nothing in place of the secret in %q of %q", begin, lines)
		}
	}

	// No answer tells it, to an admin neither; nor does what is stored or logged.
	list, err := b.client.ListApps(b.admin, &deployerv1.ListAppsRequest{Workspace: workspace})
	if err != nil {
		t.Fatal(err)
	}
	records, _ := b.records("web", 1, &deployerv1.ReadLogRequest{})
	logs := &deployerv1.ReadLogResponse{Records: records}
	again, err := b.client.CreateApp(b.admin, req)
	if err != nil {
		t.Fatal(err)
	}
	_, refused := b.tryUpdate("web", &deployerv1.App{Variables: []*deployerv1.Variable{secretVariable(plantedSecret), {Name: "1"}}}, "variables")
	if !apierr.Has(refused, apierr.ReasonInvalidArgument) {
		t.Errorf("a bad name: %v", refused)
	}
	for what, m := range map[string]proto.Message{
		"create": created, "create again": again, "get": b.get("web"), "list": list, "the deployment": d, "the log": logs,
	} {
		noSecretIn(t, what, text(m))
	}
	noSecretIn(t, "the refusal", refused.Error())
	noSecretIn(t, "the deployer's log", b.logs.Text())
	for _, dir := range []string{b.cfg.DataDir, b.cfg.CacheDir, b.nats.StoreDir()} {
		noSecretBelow(t, dir)
	}
}

// noSecretIn looks for the planted secret as it is and in base64, alone and within something.
func noSecretIn(t *testing.T, place, content string) {
	t.Helper()
	needles := []string{plantedSecret, hex.EncodeToString([]byte(plantedSecret))}
	for shift := range 3 {
		cut := len(plantedSecret) - (len(plantedSecret)-shift)%3
		needles = append(needles, base64.RawStdEncoding.EncodeToString([]byte(plantedSecret[shift:cut])), base64.RawURLEncoding.EncodeToString([]byte(plantedSecret[shift:cut])))
	}
	for i, n := range needles {
		if strings.Contains(content, n) {
			t.Errorf("the secret stands in %s, in form %d", place, i)
		}
	}
}

func noSecretBelow(t *testing.T, dir string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil //nolint:nilerr // what vanished holds nothing
		}
		if c, err := os.ReadFile(p); err == nil {
			files++
			noSecretIn(t, p, string(c))
		}
		return nil
	})
	if err != nil || files == 0 {
		t.Errorf("%d files below %s: %v", files, dir, err)
	}
}

func TestVariables_keepReplaceRemove(t *testing.T) {
	b := newBench(t)
	b.repo.Commit("main", "one", map[string]string{"index.html": "one"})
	a := withHooks(hookAt(postSetup, "digest", `printf %s "$API_TOKEN" | sha256sum | cut -d' ' -f1`))
	a.Variables = []*deployerv1.Variable{secretVariable(plantedSecret), {Name: "COLOR", Value: "blue"}}
	app := b.create("web", a)
	seen := func(want string) {
		t.Helper()
		d := b.deployed("web", deployerv1.Deployment_COMPLETED)
		if got := b.printed("web", d.GetNumber(), "digest"); !slices.Equal(got, []string{digest(want)}) {
			t.Errorf("the hook saw another value: %q", got)
		}
	}
	set := app.GetVariables()[0].GetUpdateTime().AsTime()

	// A client sends back what it got: the secret has no value there and stays.
	app = b.update("web", &deployerv1.App{Variables: app.GetVariables()}, "variables")
	if v := app.GetVariables()[0]; !v.GetSecret() || v.GetValue() != "" || !v.GetUpdateTime().AsTime().Equal(set) {
		t.Errorf("a secret that was kept: %v", v)
	}
	seen(plantedSecret)
	// What is not in the mask does not touch it either.
	b.update("web", &deployerv1.App{Retention: 3}, "retention")
	seen(plantedSecret)
	app = b.update("web", &deployerv1.App{Variables: []*deployerv1.Variable{secretVariable("another secret value")}}, "variables")
	if len(app.GetVariables()) != 1 || !app.GetVariables()[0].GetUpdateTime().AsTime().After(set) {
		t.Errorf("replaced: %v", app.GetVariables())
	}
	seen("another secret value")
	// It cannot be had by calling it no secret any more,
	// and is not lost by leaving out that it is one.
	_, err := b.tryUpdate("web", &deployerv1.App{Variables: []*deployerv1.Variable{{Name: "API_TOKEN"}}}, "variables")
	if e := apierr.From(err); err == nil || len(e.Fields()) != 1 || e.Fields()[0].Name != "app.variables[0].value" {
		t.Errorf("a secret without its mark: %v", err)
	}
	seen("another secret value")
	// A plain one becomes a secret with the value that it has.
	b.update("web", &deployerv1.App{Variables: []*deployerv1.Variable{{Name: "API_TOKEN", Value: "now it is secret"}}}, "variables")
	app = b.update("web", &deployerv1.App{Variables: []*deployerv1.Variable{secretVariable("")}}, "variables")
	if v := app.GetVariables()[0]; !v.GetSecret() || v.GetValue() != "" {
		t.Errorf("became a secret: %v", v)
	}
	seen("now it is secret")
	if app = b.update("web", &deployerv1.App{}, "variables"); len(app.GetVariables()) != 0 {
		t.Errorf("removed: %v", app.GetVariables())
	}
	_, err = b.tryUpdate("web", &deployerv1.App{Variables: []*deployerv1.Variable{secretVariable("")}}, "variables")
	if !apierr.Has(err, apierr.ReasonInvalidArgument) {
		t.Errorf("a new secret without a value: %v", err)
	}
}

func TestVariables_refusals(t *testing.T) {
	b := newBench(t, func(c *deployer.Config) { c.Worker = false })
	b.create("web", web(false))
	for name, list := range map[string][]*deployerv1.Variable{
		"ours":       {{Name: "DEVPILOT_COMMIT", Value: "x"}},
		"digit":      {{Name: "1A", Value: "x"}},
		"hyphen":     {{Name: "A-B", Value: "x"}},
		"empty":      {{Value: "x"}},
		"twice":      {{Name: "A", Value: "x"}, {Name: "A", Value: "y"}},
		"zero byte":  {{Name: "A", Value: "x\x00"}},
		"long value": {{Name: "A", Value: strings.Repeat("x", 130<<10)}},
		"long name":  {{Name: strings.Repeat("A", 129), Value: "x"}},
	} {
		if _, err := b.tryUpdate("web", &deployerv1.App{Variables: list}, "variables"); !apierr.Has(err, apierr.ReasonInvalidArgument) || !strings.Contains(err.Error(), "variables[") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestUpdateApp_masksReachIntoRulesAndOptions(t *testing.T) {
	b := newBench(t, func(c *deployer.Config) { c.Worker = false })
	a := web(true)
	a.Rules = &deployerv1.AppRules{Tags: []string{"v*"}, Paths: []string{"site/**"}, Skip: &deployerv1.SkipPhrases{Phrases: []string{"[not now]"}}}
	a.Source = &deployerv1.SourceOptions{Directory: "site", Submodules: true}
	b.create("web", a)
	b.update("web", &deployerv1.App{Rules: &deployerv1.AppRules{Paths: []string{"docs/**"}}}, "rules.paths")
	app := b.update("web", &deployerv1.App{Source: &deployerv1.SourceOptions{Lfs: true}}, "source.lfs")
	if r := app.GetRules(); !slices.Equal(r.GetPaths(), []string{"docs/**"}) || !slices.Equal(r.GetTags(), []string{"v*"}) || len(r.GetSkip().GetPhrases()) != 1 {
		t.Errorf("rules.paths changed %v", r)
	}
	if s := app.GetSource(); s.GetDirectory() != "site" || !s.GetSubmodules() || !s.GetLfs() {
		t.Errorf("source.lfs changed %v", s)
	}
	app = b.update("web", &deployerv1.App{Rules: &deployerv1.AppRules{}}, "rules.skip")
	if app.GetRules().GetSkip() != nil || len(app.GetRules().GetPaths()) != 1 {
		t.Errorf("rules.skip was to be cleared: %v", app.GetRules())
	}
	app = b.update("web", &deployerv1.App{}, "rules", "source")
	if len(app.GetRules().GetPaths())+len(app.GetRules().GetTags()) != 0 || app.GetSource().GetDirectory() != "" {
		t.Errorf("cleared: %v, %v", app.GetRules(), app.GetSource())
	}
	if app = b.update("web", &deployerv1.App{CommitStatus: proto.Bool(false)}, "commit_status"); app.CommitStatus == nil || app.GetCommitStatus() {
		t.Errorf("commit_status is %v", app.CommitStatus)
	}
	if app = b.update("web", &deployerv1.App{}, "commit_status"); !app.GetCommitStatus() {
		t.Errorf("commit_status is on when absent, and is %v", app.CommitStatus)
	}
	for _, path := range []string{"rules.nonsense", "rules.paths.deeper", "hooks.name", "variables.value", "nonsense"} {
		if _, err := b.tryUpdate("web", &deployerv1.App{Rules: &deployerv1.AppRules{Paths: []string{"x"}}}, path); !apierr.Has(err, apierr.ReasonInvalidArgument) {
			t.Errorf("mask %q: %v", path, err)
		}
	}
	for name, wrong := range map[string]*deployerv1.App{
		"rules":        {Rules: &deployerv1.AppRules{Paths: []string{"[a"}}},
		"shared_paths": {SharedPaths: []string{"../etc"}},
		"serve":        {Serve: &deployerv1.ServeOptions{Directory: "../.."}},
		"branch":       {Branch: "[main"},
	} {
		if _, err := b.tryUpdate("web", wrong, name); !apierr.Has(err, apierr.ReasonInvalidArgument) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestUpdateApp_submodulesOfOtherWorkspaces: who may widen what a repository's submodules open, and
// by what words.
func TestUpdateApp_submodulesOfOtherWorkspaces(t *testing.T) {
	b := newBench(t, func(c *deployer.Config) { c.Worker = false })
	b.create("web", web(true))
	good := []string{"acme-libs", "acme-libs/theme", "*"}
	app := b.update("web", &deployerv1.App{Source: &deployerv1.SourceOptions{Submodules: true, SubmoduleWorkspaces: good}}, "source")
	if s := app.GetSource(); !slices.Equal(s.GetSubmoduleWorkspaces(), good) || !s.GetSubmodules() {
		t.Errorf("saved %v", s)
	}
	app = b.update("web", &deployerv1.App{Source: &deployerv1.SourceOptions{Lfs: true}}, "source.lfs")
	if !slices.Equal(app.GetSource().GetSubmoduleWorkspaces(), good) {
		t.Errorf("source.lfs changed %v", app.GetSource())
	}
	for _, bad := range []string{"", "acme/*", "https://bitbucket.org/acme", "a b", "../x"} {
		_, err := b.tryUpdate("web", &deployerv1.App{Source: &deployerv1.SourceOptions{SubmoduleWorkspaces: []string{bad}}}, "source")
		if !apierr.Has(err, apierr.ReasonInvalidArgument) || !strings.Contains(err.Error(), "submoduleWorkspaces") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	_, err := b.client.UpdateApp(b.member, &deployerv1.UpdateAppRequest{
		Workspace: workspace, AppId: "web", App: &deployerv1.App{Source: &deployerv1.SourceOptions{SubmoduleWorkspaces: good}}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"source"}},
	})
	if !apierr.Has(err, apierr.ReasonPermissionDenied) {
		t.Errorf("a member: %v", err)
	}
}
