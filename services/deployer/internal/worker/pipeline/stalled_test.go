package pipeline_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"devpilot.io/bitbucket/services/deployer/internal/engine/sandbox"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// stalling are hooks of a worker that stands still at the first run of each.
type stalling struct {
	sandbox.Runner
	ran []string
}

func (s *stalling) Run(_ context.Context, spec sandbox.Spec, _ sandbox.Sink) (sandbox.Result, error) {
	again := slices.Contains(s.ran, spec.Command)
	s.ran = append(s.ran, spec.Command)
	if !again {
		return sandbox.Result{ExitCode: 137}, sandbox.ErrStalled
	}
	return sandbox.Result{}, nil
}

// A hook that was ended because its worker stood still is no failure of the hook: the deployment is
// started again, also when its release is live already.
func TestHandle_startsAgainWhenItStoodStill(t *testing.T) {
	m := newModel(t, 1)
	m.calm = true
	runner := &stalling{}
	m.hooks = runner
	app := &storev1.App{Repository: modelRepository, Branch: m.key(0).App, AutoDeploy: true, Hooks: []*deployerv1.DeploymentHook{
		{Name: "build", Stage: deployerv1.Deployment_POST_SETUP, Command: "build"},
		{Name: "warm", Stage: deployerv1.Deployment_POST_RELEASE, Command: "warm"},
	}}
	p := m.deployerWith(nil, fixedApp{modelAppsReader{m}, app})
	hash := strings.Repeat("a", 40)
	wake := pushTo(t, m, p, "e1", hash)
	for attempt := 1; attempt <= 2; attempt++ {
		if err := p.handle(t.Context(), wake); !errors.Is(err, sandbox.ErrStalled) {
			t.Fatalf("attempt %d: %v", attempt, err)
		}
		if d := m.state(t, 1); d.GetState() != deployerv1.Deployment_PENDING || d.GetWaitingFor() != nil || d.GetError() != nil {
			t.Fatalf("attempt %d: %v", attempt, d)
		}
	}
	if got := currentCommit(t, m); got != hash {
		t.Fatalf("current holds %s", got)
	}
	if err := p.handle(t.Context(), wake); err != nil {
		t.Fatal(err)
	}
	if d := m.state(t, 1); d.GetState() != deployerv1.Deployment_COMPLETED || d.GetAttempt() != 3 {
		t.Fatalf("%v", d)
	}
	if want := []string{"build", "build", "warm", "warm"}; !slices.Equal(runner.ran, want) {
		t.Errorf("ran %v", runner.ran)
	}
}
