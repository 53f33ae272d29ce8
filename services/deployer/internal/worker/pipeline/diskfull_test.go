package pipeline_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/deployer/internal/engine/sandbox"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// crowded are hooks on a disk that has too little room, until somebody makes some.
type crowded struct {
	sandbox.Runner
	full    bool
	reserve int64 // as the hook was told
}

func (c *crowded) Run(_ context.Context, spec sandbox.Spec, _ sandbox.Sink) (sandbox.Result, error) {
	c.reserve = spec.Limits.DiskReserve
	if c.full {
		return sandbox.Result{ExitCode: 137, DiskFull: true}, nil
	}
	return sandbox.Result{}, nil
}

// Who filled the disk is not known, and it may be everybody else: the deployment waits for room, as one does that finds
// none for its files. What must stay free is what the operator said, for hooks too.
func TestHandle_aHookWithoutRoomIsTriedAgain(t *testing.T) {
	m := newModel(t, 1)
	m.calm = true
	runner := &crowded{full: true}
	m.hooks = runner
	app := &storev1.App{Repository: modelRepository, Branch: m.key(0).App, AutoDeploy: true, Hooks: []*deployerv1.DeploymentHook{
		{Name: "build", Stage: deployerv1.Deployment_POST_SETUP, Command: "build"},
	}}
	p := m.deployerWith(nil, fixedApp{modelAppsReader{m}, app})
	hash := strings.Repeat("a", 40)
	wake := pushTo(t, m, p, "e1", hash)
	if err := p.handle(t.Context(), wake); err != nil {
		t.Fatal(err)
	}
	if d := m.state(t, 1); d.GetState() != deployerv1.Deployment_PENDING || d.GetWaitingFor().GetReason() != "DISK_FULL" {
		t.Fatalf("without room: %v", d)
	}
	if runner.reserve != modelReserve {
		t.Errorf("the hook is to leave %d bytes, not %d", runner.reserve, modelReserve)
	}
	runner.full = false
	testkit.Eventually(t, 10*time.Second, func() error {
		if _, err := p.janitor.Handle(t.Context(), m.key(0).Workspace, m.key(0).App, 1); err != nil { // its time has come
			return err
		}
		if err := p.handle(t.Context(), wake); err != nil {
			return err
		}
		if d := m.state(t, 1); d.GetState() != deployerv1.Deployment_COMPLETED {
			return fmt.Errorf("with room: %v", d)
		}
		return nil
	})
}
