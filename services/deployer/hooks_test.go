package deployer_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/deployer"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

func TestHooks_runByStageThenPriorityThenPlace(t *testing.T) {
	b := newBench(t)
	b.repo.Commit("main", "one", map[string]string{"index.html": "one"})
	const tell = `echo "$DEVPILOT_HOOK at $DEVPILOT_STAGE"`
	late, early := hookAt(postSourceControl, "late", tell), hookAt(postSourceControl, "early", tell)
	late.Priority, early.Priority = 10, -10
	off := hookAt(postSetup, "off", tell)
	off.Active = proto.Bool(false)
	b.create("web", withHooks(
		hookAt(postRelease, "released", tell), late, hookAt(postSourceControl, "first of two", tell), hookAt(postSourceControl, "second of two", tell), early,
		off, hookAt(postSetup, "set up", tell), hookAt(preSourceControl, "before the source", tell), hookAt(preExecution, "at first", tell),
	))
	d := b.deployed("web", deployerv1.Deployment_COMPLETED)
	want := []string{
		"at first at PRE_EXECUTION", "before the source at PRE_SOURCE_CONTROL", "early at POST_SOURCE_CONTROL", "first of two at POST_SOURCE_CONTROL",
		"second of two at POST_SOURCE_CONTROL", "late at POST_SOURCE_CONTROL", "set up at POST_SETUP", "released at POST_RELEASE",
	}
	if got := b.printed("web", 1, ""); !slices.Equal(got, want) {
		t.Errorf("ran %q, want %q", got, want)
	}
	// The records stand in the same order, and so do their times.
	var names []string
	last := d.GetStartTime().AsTime()
	for _, s := range d.GetStages() {
		for _, h := range s.GetHooks() {
			if h.GetName() == "off" {
				if h.GetState() != deployerv1.HookRecord_SKIPPED || h.GetMessage() == "" || h.StartTime != nil || h.ExitCode != nil {
					t.Errorf("a hook that is switched off: %v", h)
				}
				continue
			}
			names = append(names, h.GetName()+" at "+s.GetStage().String())
			begin, end := h.GetStartTime().AsTime(), h.GetEndTime().AsTime()
			if h.GetState() != deployerv1.HookRecord_COMPLETED || h.ExitCode == nil || h.GetExitCode() != 0 || begin.Before(last) || end.Before(begin) {
				t.Errorf("%v begins after %v", h, last)
			}
			last = end
		}
	}
	if !slices.Equal(names, want) {
		t.Errorf("recorded %q, want %q", names, want)
	}
	records, _ := b.records("web", 1, &deployerv1.ReadLogRequest{})
	for _, r := range records {
		if r.GetStream() == deployerv1.LogRecord_STDOUT && r.GetText() != r.GetHook()+" at "+r.GetStage().String() {
			t.Errorf("the log says that %q was printed by %q at %v", r.GetText(), r.GetHook(), r.GetStage())
		}
	}
	if app := b.get("web"); app.GetHookRunner() == "" || len(app.GetHooks()) != 9 || hasWarning(app, "NO_HOOK_RUNNER") {
		t.Errorf("the app says of its hooks: %q, %v", app.GetHookRunner(), app.GetWarnings())
	}
}

func TestHooks_seeWhatIsDeployed(t *testing.T) {
	b := newBench(t)
	hash := b.repo.Commit("main", "one", map[string]string{"index.html": "one"})
	const show = `for v in WORKSPACE APP DEPLOYMENT ATTEMPT COMMIT BRANCH TAG TRIGGER RELEASE_DIR; do eval "echo $v=\$DEVPILOT_$v"; done; echo "at $(pwd) $COLOR/$EMPTY."; ls`
	a := withHooks(hookAt(preSourceControl, "before", show), hookAt(postSourceControl, "after", show))
	a.Variables = []*deployerv1.Variable{{Name: "COLOR", Value: `"blue" $HOME`}, {Name: "EMPTY"}}
	b.create("web", a)
	b.deployed("web", deployerv1.Deployment_COMPLETED)
	release := filepath.Join(b.appDir("web"), "releases", "1")
	head := []string{"WORKSPACE=acme-inc", "APP=web", "DEPLOYMENT=1", "ATTEMPT=1", "COMMIT=", "BRANCH=main", "TAG=", "TRIGGER=MANUAL", "RELEASE_DIR=" + release}
	before := b.printed("web", 1, "before")
	if len(before) != len(head)+1 || !slices.Equal(before[:len(head)], head) || strings.HasPrefix(before[len(head)], "at "+release) {
		t.Errorf("before the source a hook sees %q", before)
	}
	head[4] = "COMMIT=" + hash
	want := append(head, "at "+release+` "blue" $HOME/.`, "index.html")
	if got := b.printed("web", 1, "after"); !slices.Equal(got, want) {
		t.Errorf("a hook sees %q, want %q", got, want)
	}
}

func TestHooks_beforeTheSourceWorkInAnEmptyDirectory(t *testing.T) {
	b := newBench(t)
	b.repo.Commit("main", "one", map[string]string{"index.html": "one"})
	const look = `pwd; ls -A; touch left-behind`
	b.create("web", withHooks(hookAt(preExecution, "one", look), hookAt(preExecution, "two", look), hookAt(preSourceControl, "three", look)))
	for n := range int32(2) {
		b.deployed("web", deployerv1.Deployment_COMPLETED)
		for _, hook := range []string{"one", "two", "three"} {
			if got := b.printed("web", n+1, hook); len(got) != 1 || strings.Contains(got[0], "/releases/"+fmt.Sprint(n+1)+"/") {
				t.Errorf("deployment %d, hook %s sees %q, want an empty directory", n+1, hook, got)
			}
		}
	}
	if got := b.file("web", "left-behind"); !strings.Contains(got, "no such file") {
		t.Error("what a hook left in the scratch directory is in the release")
	}
	err := filepath.WalkDir(b.cfg.DataDir, func(p string, _ os.DirEntry, err error) error {
		if filepath.Base(p) == "left-behind" {
			t.Errorf("%s is still there", p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestHooks_failureEndsTheDeploymentAndLeavesWhatIsLive(t *testing.T) {
	b := newBench(t)
	b.repo.Commit("main", "one", map[string]string{"index.html": "one"})
	b.create("web", web(false))
	b.deployed("web", deployerv1.Deployment_COMPLETED)
	b.update("web", &deployerv1.App{Hooks: []*deployerv1.DeploymentHook{
		hookAt(postSourceControl, "good", "echo fine"), hookAt(postSourceControl, "bad", "echo oh >&2; exit 3"), hookAt(postSourceControl, "same stage", "echo never"),
		hookAt(postSetup, "next stage", "echo never"), hookAt(postRelease, "the end", "echo never"),
	}}, "hooks")
	b.repo.Commit("main", "two", map[string]string{"index.html": "two"})
	d := b.deployed("web", deployerv1.Deployment_FAILED)
	if d.GetError().GetReason() != "HOOK_FAILED" || !strings.Contains(d.GetError().GetMessage(), `"bad"`) || !strings.Contains(d.GetError().GetMessage(), "exit code 3") {
		t.Errorf("the failure is %v", d.GetError())
	}
	if d.GetLive() || d.GetReleaseKept() || d.GetStage() != postSourceControl && d.GetStage() != postRelease || d.GetProgressPercent() >= 90 || d.GetEndTime() == nil {
		t.Errorf("the failed deployment: %v", d)
	}
	for name, want := range map[string]deployerv1.HookRecord_State{
		"good": deployerv1.HookRecord_COMPLETED, "bad": deployerv1.HookRecord_FAILED, "same stage": deployerv1.HookRecord_SKIPPED,
		"next stage": deployerv1.HookRecord_SKIPPED, "the end": deployerv1.HookRecord_SKIPPED,
	} {
		if h := hookOf(d, name); h.GetState() != want || want == deployerv1.HookRecord_SKIPPED && (h.StartTime != nil || h.ExitCode != nil) {
			t.Errorf("hook %q: %v, want %v", name, h, want)
		}
	}
	if h := hookOf(d, "bad"); h.GetExitCode() != 3 || h.GetMessage() == "" {
		t.Errorf("the hook that failed: %v", h)
	}
	if got := b.printed("web", 2, ""); !slices.Equal(got, []string{"fine", "oh"}) {
		t.Errorf("hooks printed %q", got)
	}
	if app := b.get("web"); b.live("web") != "one" || app.GetLive().GetNumber() != 1 {
		t.Errorf("live is %q, deployment %d", b.live("web"), app.GetLive().GetNumber())
	}
}

func TestHooks_timeoutKillsAllTheyStarted(t *testing.T) {
	b := newBench(t)
	b.repo.Commit("main", "one", map[string]string{"index.html": "one"})
	slow := hookAt(postSetup, "slow", fmt.Sprintf("sleep %[1]s & sleep %[1]s", nap(3127)))
	slow.TimeoutSeconds = 1
	b.create("web", withHooks(slow, hookAt(postSetup, "after", "echo never")))
	began := time.Now()
	d := b.deployed("web", deployerv1.Deployment_FAILED)
	if d.GetError().GetReason() != "HOOK_TIMED_OUT" || hookOf(d, "slow").GetState() != deployerv1.HookRecord_TIMED_OUT || hookOf(d, "after").GetState() != deployerv1.HookRecord_SKIPPED {
		t.Errorf("%v", d)
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("a hook with a limit of 1 s took %v", took)
	}
	if left := running(t, "sleep\x00"+nap(3127)); len(left) != 0 {
		t.Errorf("processes %v outlived their hook", left)
	}
}

func TestHooks_failureAfterTheReleaseLeavesItLive(t *testing.T) {
	b := newBench(t)
	b.repo.Commit("main", "one", map[string]string{"index.html": "one"})
	b.create("web", withHooks(hookAt(postRelease, "check", `[ "$(cat index.html)" != two ]`), hookAt(postRelease, "tell", "echo told")))
	b.deployed("web", deployerv1.Deployment_COMPLETED)
	hash := b.repo.Commit("main", "two", map[string]string{"index.html": "two"})
	d := b.deployed("web", deployerv1.Deployment_FAILED)
	if !d.GetLive() || !d.GetReleaseKept() || d.GetStage() != postRelease || d.GetError().GetReason() != "HOOK_FAILED" || !strings.Contains(d.GetError().GetMessage(), "live") {
		t.Errorf("the deployment that failed after its release: %v", d)
	}
	if hookOf(d, "check").GetExitCode() != 1 || hookOf(d, "tell").GetState() != deployerv1.HookRecord_SKIPPED {
		t.Errorf("its hooks: %v", d.GetStages())
	}
	app := b.get("web")
	if b.live("web") != "two" || app.GetLive().GetNumber() != 2 || app.GetLive().GetState() != deployerv1.Deployment_FAILED || app.GetLive().GetCommit().GetHash() != hash {
		t.Errorf("live is %q, %v", b.live("web"), app.GetLive())
	}
	if first, err := b.deployment("web", 1); err != nil || first.GetLive() || !first.GetReleaseKept() {
		t.Errorf("the one before: %v, %v", first, err)
	}
	resp, err := b.client.RollBackApp(b.member, &deployerv1.RollBackAppRequest{Workspace: workspace, App: "web"})
	if err != nil {
		t.Fatal(err)
	}
	b.await("web", resp.GetDeployment().GetNumber(), deployerv1.Deployment_COMPLETED)
	if b.live("web") != "one" {
		t.Errorf("after the rollback %q is live", b.live("web"))
	}
}

func TestSharedPaths_outliveReleases(t *testing.T) {
	b := newBench(t)
	b.repo.Commit("main", "one", map[string]string{"index.html": "one", ".env": "MODE=fresh\n"})
	a := withHooks(hookAt(postSetup, "write", `echo "$DEVPILOT_DEPLOYMENT" >> uploads/list; echo "N=$DEVPILOT_DEPLOYMENT" >> .env`))
	a.SharedPaths, a.Retention = []string{"uploads/", ".env"}, 1
	b.create("web", a)
	for range 3 {
		b.deployed("web", deployerv1.Deployment_COMPLETED)
	}
	if got := b.file("web", "uploads/list"); got != "1\n2\n3\n" {
		t.Errorf("what hooks wrote into a shared directory is %q", got)
	}
	if got := b.file("web", ".env"); got != "MODE=fresh\nN=1\nN=2\nN=3\n" {
		t.Errorf("the shared file holds %q", got)
	}
}

func TestSourceDirectory_isWhereHooksWork(t *testing.T) {
	b := newBench(t)
	b.repo.Commit("main", "one", map[string]string{"index.html": "one", "apps/web/package.json": "{}"})
	a := withHooks(hookAt(postSourceControl, "where", "pwd; ls; ls ../.."))
	a.Source = &deployerv1.SourceOptions{Directory: "apps/web"}
	b.create("web", a)
	b.deployed("web", deployerv1.Deployment_COMPLETED)
	want := []string{filepath.Join(b.appDir("web"), "releases", "1", "apps/web"), "package.json", "apps", "index.html"}
	if got := b.printed("web", 1, "where"); !slices.Equal(got, want) {
		t.Errorf("the hook sees %q, want %q", got, want)
	}
	b.update("web", &deployerv1.App{Source: &deployerv1.SourceOptions{Directory: "apps/shop"}}, "source.directory")
	d := b.deployed("web", deployerv1.Deployment_FAILED)
	if d.GetError().GetReason() != "DIRECTORY_NOT_FOUND" || !strings.Contains(d.GetError().GetMessage(), "apps/shop") || b.file("web", "index.html") != "one" {
		t.Errorf("a directory that is not there: %v", d.GetError())
	}
	for _, directory := range []string{"/etc", "..", "a/../../b", ".git", "a//b"} {
		_, err := b.tryUpdate("web", &deployerv1.App{Source: &deployerv1.SourceOptions{Directory: directory}}, "source")
		if !apierr.Has(err, apierr.ReasonInvalidArgument) {
			t.Errorf("directory %q: %v", directory, err)
		}
	}
}

func TestHooks_areRefusedWithTheFieldAtFault(t *testing.T) {
	b := newBench(t, func(c *deployer.Config) { c.Worker = false })
	b.create("web", web(false))
	long := hookAt(postSetup, "a", "true")
	long.TimeoutSeconds = 3601
	for name, hooks := range map[string][]*deployerv1.DeploymentHook{
		"stage":     {hookAt(deployerv1.Deployment_SOURCE_CONTROL, "a", "true")},
		"no stage":  {hookAt(deployerv1.Deployment_STAGE_UNSPECIFIED, "a", "true")},
		"command":   {hookAt(postSetup, "a", "")},
		"name":      {hookAt(postSetup, "", "true")},
		"twice":     {hookAt(postSetup, "a", "true"), hookAt(postRelease, "a", "true")},
		"timeout":   {long},
		"too many":  slices.Repeat([]*deployerv1.DeploymentHook{hookAt(postSetup, "a", "true")}, 1000),
		"zero byte": {hookAt(postSetup, "a", "echo \x00")},
	} {
		_, err := b.tryUpdate("web", &deployerv1.App{Hooks: hooks}, "hooks")
		if !apierr.Has(err, apierr.ReasonInvalidArgument) || !strings.Contains(err.Error(), "hooks") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if app := b.get("web"); len(app.GetHooks()) != 0 {
		t.Errorf("refused hooks were saved: %v", app.GetHooks())
	}
}

// running are the processes whose arguments hold a text.
func running(t testing.TB, arguments string) []string {
	t.Helper()
	list, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, p := range list {
		if c, err := os.ReadFile(p); err == nil && strings.Contains(string(c), arguments) {
			out = append(out, filepath.Base(filepath.Dir(p)))
		}
	}
	return out
}

// nap is a time to sleep, longer than any test, that tells a process of this run of the tests from
// those of another one on the same machine.
func nap(seconds int) string { return fmt.Sprintf("%d.%d", seconds, os.Getpid()) }

// awaitRunning waits until a process with these arguments runs.
func awaitRunning(t testing.TB, arguments string) {
	t.Helper()
	testkit.Eventually(t, timeout, func() error {
		if len(running(t, arguments)) == 0 {
			return fmt.Errorf("no process has the arguments %q", arguments)
		}
		return nil
	})
}

// A hook that fills what its app keeps is its own app's trouble: the app is told so, and others deploy.
func TestHooks_appThatFillsTheDiskFailsAlone(t *testing.T) {
	b := newBench(t, func(c *deployer.Config) { c.Hooks.AppDisk = 64 << 20 })
	b.repo.Commit("main", "one", map[string]string{"index.html": "one"})
	greedy := withHooks(hookAt(postSetup, "fill", "i=0; while :; do head -c 4000000 /dev/zero >uploads/$i; i=$((i+1)); sleep 0.02; done"))
	greedy.SharedPaths = []string{"uploads/"}
	b.create("web", greedy)
	d := b.deployed("web", deployerv1.Deployment_FAILED)
	if e := d.GetError(); e.GetReason() != "HOOK_FAILED" || !strings.Contains(e.GetMessage(), "takes more of the disk than it may") {
		t.Errorf("%v", e)
	}
	b.create("shop", withHooks(hookAt(postSetup, "add little", "head -c 20000000 /dev/zero >big; echo added")))
	b.deployed("shop", deployerv1.Deployment_COMPLETED)
}
