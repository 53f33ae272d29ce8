package worker

import (
	"context"
	"errors"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/deployer/internal/engine/sandbox"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

// countingRunner counts the hooks that reach it.
type countingRunner struct {
	sandbox.Runner
	runs int
}

func (r *countingRunner) Run(context.Context, sandbox.Spec, sandbox.Sink) (sandbox.Result, error) {
	r.runs++
	return sandbox.Result{}, nil
}

type noLines struct{}

func (noLines) Line(sandbox.Stream, string) {}

// Without a sandbox a hook of one workspace could read what is another's.
func TestUnsandboxed_refusesOnceASecondWorkspaceHasApps(t *testing.T) {
	nats := testkit.NATS(t)
	apps, err := kv.Open[storev1.App](t.Context(), nats.JS(), kv.Config{Name: "apps"})
	if err != nil {
		t.Fatal(err)
	}
	put := func(key string) {
		if _, err := apps.Create(t.Context(), key, &storev1.App{}); err != nil {
			t.Fatal(err)
		}
	}
	put("one.web")
	put("one.shop")
	put("gone.web")
	if err := apps.Delete(t.Context(), "gone.web", 0); err != nil {
		t.Fatal(err)
	}
	inner := &countingRunner{}
	runner := alone{Runner: inner, apps: apps}
	if _, err := runner.Run(t.Context(), sandbox.Spec{}, noLines{}); err != nil || inner.runs != 1 {
		t.Fatalf("one workspace with apps: %v, %d runs", err, inner.runs)
	}
	put("two.shop")
	if _, err := runner.Run(t.Context(), sandbox.Spec{}, noLines{}); !errors.Is(err, sandbox.ErrStart) || inner.runs != 1 {
		t.Fatalf("two workspaces with apps: %v, %d runs", err, inner.runs)
	}
	nats.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := runner.Run(ctx, sandbox.Spec{}, noLines{}); !errors.Is(err, sandbox.ErrStart) || inner.runs != 1 {
		t.Fatalf("where the workspaces are not known: %v, %d runs", err, inner.runs)
	}
}
