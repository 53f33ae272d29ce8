package pipeline_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"devpilot.io/bitbucket/services/deployer/internal/engine/sandbox"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// leaving is a hook that runs until it is stopped, and then does not end.
type leaving struct {
	sandbox.Runner
	begin func()
}

func (l leaving) Run(ctx context.Context, _ sandbox.Spec, _ sandbox.Sink) (sandbox.Result, error) {
	l.begin()
	<-ctx.Done()
	return sandbox.Result{Cancelled: true}, sandbox.ErrLeft
}

// A deployment is CANCELLED also when the kernel cannot end its hook, and its log says that something
// is left.
func TestHandle_saysWhatACancelledHookLeft(t *testing.T) {
	m := newModel(t, 1)
	m.calm = true
	m.hookLines = &[]string{}
	var p *process
	m.hooks = leaving{begin: func() {
		_, err := p.dispatcher.Change(t.Context(), m.key(0), func(l *storev1.Lane) error { return lane.Cancel(l, 1, nil, time.Now()) })
		if err != nil {
			t.Error(err)
		}
	}}
	app := &storev1.App{Repository: modelRepository, Branch: m.key(0).App, AutoDeploy: true, Hooks: []*deployerv1.DeploymentHook{
		{Name: "build", Stage: deployerv1.Deployment_POST_SETUP, Command: "build"},
	}}
	p = m.deployerWith(nil, fixedApp{modelAppsReader{m}, app})
	if err := p.handle(t.Context(), pushTo(t, m, p, "e1", strings.Repeat("a", 40))); err != nil {
		t.Fatal(err)
	}
	if d := m.state(t, 1); d.GetState() != deployerv1.Deployment_CANCELLED {
		t.Fatalf("%v", d)
	}
	want := []string{`Running hook "build".`, `Hook "build" was killed, but a process of it has not ended. It is on the server still.`, `Hook "build" was stopped.`}
	if !slices.Equal(*m.hookLines, want) {
		t.Errorf("the log says %q", *m.hookLines)
	}
}
