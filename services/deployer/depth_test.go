package deployer_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"devpilot.io/bitbucket/pkg/testkit"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// The stages of hooks, in short.
const (
	preExecution      = deployerv1.Deployment_PRE_EXECUTION
	preSourceControl  = deployerv1.Deployment_PRE_SOURCE_CONTROL
	postSourceControl = deployerv1.Deployment_POST_SOURCE_CONTROL
	postSetup         = deployerv1.Deployment_POST_SETUP
	postRelease       = deployerv1.Deployment_POST_RELEASE
)

func hookAt(stage deployerv1.Deployment_Stage, name, command string) *deployerv1.DeploymentHook {
	return &deployerv1.DeploymentHook{Name: name, Stage: stage, Command: command}
}

// withHooks is an app that deploys by hand and has these hooks.
func withHooks(hooks ...*deployerv1.DeploymentHook) *deployerv1.App {
	a := web(false)
	a.Hooks = hooks
	return a
}

// update changes the fields of an app that the paths name.
func (b *bench) update(app string, a *deployerv1.App, paths ...string) *deployerv1.App {
	b.t.Helper()
	got, err := b.tryUpdate(app, a, paths...)
	if err != nil {
		b.t.Fatalf("update %s: %v", app, err)
	}
	return got
}

func (b *bench) tryUpdate(app string, a *deployerv1.App, paths ...string) (*deployerv1.App, error) {
	resp, err := b.client.UpdateApp(b.admin, &deployerv1.UpdateAppRequest{Workspace: workspace, AppId: app, App: a, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths}})
	return resp.GetApp(), err
}

// deploy asks for the latest commit and returns the deployment's number.
func (b *bench) deploy(app string) int32 {
	b.t.Helper()
	resp, err := b.client.CreateDeployment(b.member, &deployerv1.CreateDeploymentRequest{Workspace: workspace, App: app})
	if err != nil {
		b.t.Fatalf("deploy %s: %v", app, err)
	}
	return resp.GetDeployment().GetNumber()
}

// deployed asks for the latest commit and waits until the deployment is in a state.
func (b *bench) deployed(app string, state deployerv1.Deployment_State) *deployerv1.Deployment {
	b.t.Helper()
	return b.await(app, b.deploy(app), state)
}

// hookOf is the record of a hook, nil when the deployment has none.
func hookOf(d *deployerv1.Deployment, name string) *deployerv1.HookRecord {
	for _, s := range d.GetStages() {
		for _, h := range s.GetHooks() {
			if h.GetName() == name {
				return h
			}
		}
	}
	return nil
}

// printed are the lines that a hook, or all when it is empty, wrote to its streams.
func (b *bench) printed(app string, number int32, hook string) []string {
	b.t.Helper()
	var out []string
	records, _ := b.records(app, number, &deployerv1.ReadLogRequest{})
	for _, r := range records {
		if r.GetStream() != deployerv1.LogRecord_SYSTEM && (hook == "" || r.GetHook() == hook) {
			out = append(out, r.GetText())
		}
	}
	return out
}

// appDir is the app's directory on the server, path a file in its current release.
func (b *bench) appDir(app string) string {
	return filepath.Join(b.cfg.DataDir, "apps", workspace, app)
}

func (b *bench) file(app, path string) string {
	c, err := os.ReadFile(filepath.Join(b.appDir(app), "current", path))
	if err != nil {
		return err.Error()
	}
	return string(c)
}

// releases are the names of the release directories that are there.
func (b *bench) releases(app string) []string {
	b.t.Helper()
	entries, err := os.ReadDir(filepath.Join(b.appDir(app), "releases"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		b.t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") {
			out = append(out, e.Name())
		}
	}
	slices.Sort(out)
	return out
}

// text is a message as the wire has it, for searches.
func text(m proto.Message) string {
	raw, err := proto.Marshal(m)
	if err != nil {
		return err.Error()
	}
	return string(raw)
}

// awaitOutcome waits until a delivery says of an app that it did not deploy, with this reason, and
// returns the words.
func (b *bench) awaitOutcome(delivery int32, app, reason string) string {
	b.t.Helper()
	message := ""
	testkit.Eventually(b.t, timeout, func() error {
		b.world.mu.Lock()
		defer b.world.mu.Unlock()
		var got []string
		for _, o := range b.world.outcomes {
			if o.GetDelivery() != delivery || o.GetOutcome().GetApp() != app {
				continue
			}
			got = append(got, o.GetOutcome().GetKind().String()+" "+o.GetOutcome().GetReason()+" "+o.GetOutcome().GetMessage())
			if o.GetOutcome().GetKind() == webhookv1.DeliveryOutcome_IGNORED && o.GetOutcome().GetReason() == reason {
				message = o.GetOutcome().GetMessage()
				return nil
			}
		}
		return fmt.Errorf("delivery %d came for %q to %q, want %s", delivery, app, got, reason)
	})
	return message
}
