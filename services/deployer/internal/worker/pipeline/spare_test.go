package pipeline_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/testkit"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// prepared waits until the app's spare is, or is not, there.
func prepared(t *testing.T, m *model, want bool) {
	t.Helper()
	spare := filepath.Join(m.dir, "apps", modelWorkspace, m.key(0).App, "releases", ".spare", "manifest")
	testkit.Eventually(t, 10*time.Second, func() error {
		if _, err := os.Stat(spare); (err == nil) != want {
			return errors.New("spare: " + spare)
		}
		return nil
	})
}

// deployed pushes and runs the deployment to its end.
func deployed(t *testing.T, m *model, p *process, id, hash string, number int32) {
	t.Helper()
	wake := pushTo(t, m, p, id, hash)
	if err := p.handle(t.Context(), wake); err != nil {
		t.Fatal(err)
	}
	m.work.ack(wake.seq)
	if d := m.state(t, number); d.GetState() != deployerv1.Deployment_COMPLETED {
		t.Fatalf("deployment %d: %v", number, d)
	}
	if got := currentCommit(t, m); got != hash {
		t.Fatalf("current holds %s", got)
	}
}

// TestRun_preparesTheNextDeployment: each deployment but the first begins with a copy that no
// release's hook wrote in.
func TestRun_preparesTheNextDeployment(t *testing.T) {
	m := newModel(t, 1)
	m.calm = true
	p := m.deployer(nil)
	go func() { _ = p.worker.Run(t.Context()) }()
	for i, c := range []string{"a", "b", "c"} {
		deployed(t, m, p, c, strings.Repeat(c, 40), int32(i+1))
		prepared(t, m, true)
	}
	if n := m.spares.Load(); n != 2 {
		t.Fatalf("%d deployments began with a spare", n)
	}
}

// TestRun_noDeploymentWaitsForASpare: one that is being made is given up when its app's next
// deployment begins.
func TestRun_noDeploymentWaitsForASpare(t *testing.T) {
	m := newModel(t, 1)
	m.calm, m.copying = true, make(chan struct{})
	p := m.deployer(nil)
	go func() { _ = p.worker.Run(t.Context()) }()
	for i, c := range []string{"a", "b", "c"} {
		deployed(t, m, p, c, strings.Repeat(c, 40), int32(i+1))
		select { // the one before has ended, or this one could not be begun
		case <-m.copying:
		case <-time.After(time.Minute):
			t.Fatal("the copy is not made")
		}
	}
	if n := m.spares.Load(); n != 0 {
		t.Fatalf("%d deployments began with a spare that was never whole", n)
	}
}

// TestHandle_sparesGoFirstWhenTheDiskIsShort: the deployment then goes on in the same attempt.
func TestHandle_sparesGoFirstWhenTheDiskIsShort(t *testing.T) {
	m := newModel(t, 1)
	m.calm = true
	p := m.deployer(nil)
	go func() { _ = p.worker.Run(t.Context()) }()
	deployed(t, m, p, "e1", strings.Repeat("a", 40), 1)
	prepared(t, m, true)
	m.short = func() bool {
		spares, _ := filepath.Glob(filepath.Join(m.dir, "apps", "*", "*", "releases", ".spare"))
		return len(spares) > 0
	}
	deployed(t, m, p, "e2", strings.Repeat("b", 40), 2)
	if d := m.state(t, 2); d.GetAttempt() > 1 {
		t.Fatalf("%v", d)
	}
	if n := m.spares.Load(); n != 0 {
		t.Fatalf("%d deployments began with a spare", n)
	}
}
