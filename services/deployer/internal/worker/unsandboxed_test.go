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
	bucket, err := kv.Open[storev1.WorkspaceIndex](t.Context(), testkit.NATS(t).JS(), kv.Config{Name: "workspaces"})
	if err != nil {
		t.Fatal(err)
	}
	put := func(name string, apps ...string) {
		if _, err := bucket.Create(t.Context(), name, &storev1.WorkspaceIndex{Apps: apps}); err != nil {
			t.Fatal(err)
		}
	}
	put("one", "web")
	put("empty")
	mirror := kv.NewMirror(bucket)
	inner := &countingRunner{}
	runner := alone{Runner: inner, workspaces: mirror}
	if _, err := runner.Run(t.Context(), sandbox.Spec{}, noLines{}); !errors.Is(err, sandbox.ErrStart) || inner.runs != 0 {
		t.Fatalf("before the workspaces are known: %v, %d runs", err, inner.runs)
	}
	go func() { _ = mirror.Run(t.Context()) }()
	testkit.Eventually(t, 10*time.Second, func() error { return mirror.Ready(t.Context()) })
	if _, err := runner.Run(t.Context(), sandbox.Spec{}, noLines{}); err != nil || inner.runs != 1 {
		t.Fatalf("one workspace with apps: %v, %d runs", err, inner.runs)
	}
	put("two", "shop")
	testkit.Eventually(t, 10*time.Second, func() error {
		if _, _, ok := mirror.Get("two"); !ok {
			return errors.New("not seen yet")
		}
		return nil
	})
	if _, err := runner.Run(t.Context(), sandbox.Spec{}, noLines{}); !errors.Is(err, sandbox.ErrStart) || inner.runs != 1 {
		t.Fatalf("two workspaces with apps: %v, %d runs", err, inner.runs)
	}
}
