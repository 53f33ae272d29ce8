package deployer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/services/deployer/internal/engine/sandbox"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

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
				return cfg, fmt.Errorf("deployer: %s: %q is no network such as 10.20.0.0/24", list.flag, s)
			}
			*list.out = append(*list.out, p)
		}
	}
	return cfg, nil
}

// hookRunner chooses how hooks run here; nil where they do not, and why.
func (c *core) hookRunner(ctx context.Context) (sandbox.Runner, string, error) {
	h, log := c.s.cfg.Hooks, c.s.deps.Logger
	cfg, err := h.sandbox()
	if err != nil {
		return nil, "", err
	}
	// A worker's last word keeps its wake-up for two thirds of the lease at least (stream.Consume):
	// by the time somebody else gets it, the hooks of a worker that stands still are gone.
	cfg.Patience = c.s.cfg.AckWait / 2
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
		return alone{Runner: sandbox.NewUnsandboxed(cfg.Patience), workspaces: c.workspaces}, "", nil
	}
	log.WarnContext(ctx, "deployment hooks do not run here", logs.Err(err))
	return nil, err.Error(), nil
}

// alone runs hooks only while a single workspace has apps: without a sandbox, hooks of one workspace
// could read what belongs to another.
type alone struct {
	sandbox.Runner
	workspaces *kv.Mirror[storev1.WorkspaceIndex, *storev1.WorkspaceIndex]
}

// Run implements hook.Runner.
func (a alone) Run(ctx context.Context, s sandbox.Spec, out sandbox.Sink) (sandbox.Result, error) {
	if err := a.workspaces.Ready(ctx); err != nil {
		return sandbox.Result{}, fmt.Errorf("%w: the list of workspaces is not known yet", sandbox.ErrStart)
	}
	used := 0
	for _, idx := range a.workspaces.All() {
		if len(idx.GetApps()) > 0 {
			used++
		}
	}
	if used > 1 {
		out.Line(sandbox.Notice, "Hooks do not run: there is no sandbox on this server, and more than one workspace has apps. Install bubblewrap.")
		return sandbox.Result{}, errors.Join(sandbox.ErrStart, errors.New("no sandbox, and several workspaces have apps"))
	}
	return a.Runner.Run(ctx, s, out)
}
