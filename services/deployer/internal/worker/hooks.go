package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"

	"devpilot.io/bitbucket/pkg/checkup"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/services/deployer/internal/engine/sandbox"
	"devpilot.io/bitbucket/services/deployer/internal/worker/host"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

// Hooks say how a worker runs deployment hooks.
type Hooks struct {
	// AllowUnsandboxed runs them as the worker's user where there is no sandbox, as long as a single
	// workspace has apps.
	AllowUnsandboxed bool
	Network          string   // internet, none or auto: the internet where it can be had; auto when empty
	Allow, Deny      []string // networks, in CIDR form
	ReadOnly         []string // directories
	Path             string
	// AppDisk is what one app's releases and shared paths may take, in bytes, before its hooks are ended:
	// a quarter of the volume when zero, all of it when negative.
	AppDisk int64
	// DiskReserve is what must stay free on the disk of the releases, in bytes; see sandbox.Limits.
	DiskReserve int64
}

// sandbox is the configuration of the sandbox.
func (h Hooks) sandbox() (sandbox.SandboxConfig, error) {
	cfg := sandbox.SandboxConfig{Network: sandbox.NetworkAuto, ReadOnly: h.ReadOnly, Path: h.Path}
	switch h.Network {
	case "none":
		cfg.Network = sandbox.NetworkNone
	case "internet":
		cfg.Network = sandbox.NetworkInternet
	}
	for _, list := range []struct {
		flag string
		in   []string
		out  *[]netip.Prefix
	}{{"--hook-allow", h.Allow, &cfg.Allow}, {"--hook-deny", h.Deny, &cfg.Deny}} {
		for _, s := range list.in {
			p, err := netip.ParsePrefix(s)
			if err != nil {
				return cfg, fmt.Errorf("worker: %s: %q is no network such as 10.20.0.0/24", list.flag, s)
			}
			*list.out = append(*list.out, p)
		}
	}
	return cfg, nil
}

// CheckSandbox makes a sandbox, which runs a command in it, as a worker with these settings does.
func CheckSandbox(h Hooks) checkup.Check {
	where, lacking, err := trySandbox(h)
	return host.Sandbox(where, lacking, err, h.AllowUnsandboxed)
}

func trySandbox(h Hooks) (where, lacking string, err error) {
	cfg, err := h.sandbox()
	if err != nil {
		return "", "", err
	}
	box, err := sandbox.NewSandbox(cfg)
	if err != nil {
		return "", "", err
	}
	return box.Describe(), box.Lacking(), nil
}

// hookRunner chooses how hooks run here; nil where they do not, and why.
func (w *Worker) hookRunner(ctx context.Context) (sandbox.Runner, string, error) {
	h, log := w.cfg.Hooks, w.cfg.Logger
	cfg, err := h.sandbox()
	if err != nil {
		return nil, "", err
	}
	// A worker's last word keeps its wake-up for two thirds of the lease at least (stream.Consume):
	// by the time somebody else gets it, the hooks of a worker that stands still are gone.
	cfg.SilenceTimeout = w.cfg.Lease / 2
	box, err := sandbox.NewSandbox(cfg)
	if err == nil {
		level := slog.LevelInfo
		if box.Lacking() != "" {
			level = slog.LevelWarn
		}
		log.Log(ctx, level, "deployment hooks run", slog.String(logs.KeyReason, box.Describe()))
		return box, "", nil
	}
	if h.AllowUnsandboxed {
		log.WarnContext(ctx, "deployment hooks run without a sandbox", logs.Err(err))
		return alone{Runner: sandbox.NewUnsandboxed(cfg.SilenceTimeout), apps: w.cfg.Records.Store.Apps}, "", nil
	}
	log.WarnContext(ctx, "deployment hooks do not run here", logs.Err(err))
	return nil, err.Error(), nil
}

// alone runs hooks only while a single workspace has apps: without a sandbox, hooks of one workspace
// could read what belongs to another.
type alone struct {
	sandbox.Runner
	apps *kv.Bucket[storev1.App, *storev1.App]
}

// Run implements sandbox.Runner.
func (a alone) Run(ctx context.Context, s sandbox.Spec, out sandbox.Sink) (sandbox.Result, error) {
	first := ""
	for key, err := range a.apps.Keys(ctx, ">") {
		if err != nil {
			return sandbox.Result{}, fmt.Errorf("%w: which workspaces have apps is not known: %w", sandbox.ErrStart, err)
		}
		workspace, _, _ := strings.Cut(key, ".")
		if first == "" {
			first = workspace
		}
		if workspace != first {
			out.Line(sandbox.Notice, "Hooks do not run: there is no sandbox on this server, and more than one workspace has apps. Install bubblewrap.")
			return sandbox.Result{}, errors.Join(sandbox.ErrStart, errors.New("no sandbox, and several workspaces have apps"))
		}
	}
	return a.Runner.Run(ctx, s, out)
}
