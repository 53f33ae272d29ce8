package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/tracing"
	"devpilot.io/bitbucket/services/deployer/internal/engine/sandbox"
	"devpilot.io/bitbucket/services/deployer/internal/record/codeconfig"
	"devpilot.io/bitbucket/services/deployer/internal/record/settings"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// failedHook ends a deployment: a hook did not do its work.
type failedHook struct {
	reason, message string
	err             error
	server          bool // it did not even run
}

func (e *failedHook) Error() string { return fmt.Sprintf("pipeline: %s: %v", e.reason, e.err) }
func (e *failedHook) Unwrap() error { return e.err }

// Reasons of failures that hooks have.
const (
	reasonHookFailed   = "HOOK_FAILED"
	reasonHookTimedOut = "HOOK_TIMED_OUT"
	reasonNoHookRunner = "NO_HOOK_RUNNER"
)

// errHookFailed marks the span of a hook that did not do its work.
var errHookFailed = errors.New("pipeline: the hook failed")

// runHooks runs the hooks of a stage, one after the other. The first that
// fails ends the deployment; those after it are skipped.
func (a *attempt) runHooks(ctx context.Context, s stage) error {
	hooks := settings.At(a.settings.Hooks, s.id)
	if len(hooks) == 0 {
		return nil
	}
	a.progress.hooks(waiting(hooks))
	_, from, till := a.span(s.id)
	active, done := 0, 0
	for _, h := range hooks {
		if h.Active {
			active++
		}
	}
	for i, h := range hooks {
		if !h.Active {
			continue
		}
		if err := a.runHook(ctx, s.id, i, h); err != nil {
			a.skipAfter(hooks, i)
			return err
		}
		done++
		a.progress.within(from, till, done, active)
	}
	return nil
}

// waiting are the records of hooks that have not begun.
func waiting(hooks []codeconfig.Hook) []*deployerv1.HookRecord {
	out := make([]*deployerv1.HookRecord, len(hooks))
	for i, h := range hooks {
		out[i] = &deployerv1.HookRecord{Name: h.Name, State: deployerv1.HookRecord_PENDING}
		if !h.Active {
			out[i].State, out[i].Message = deployerv1.HookRecord_SKIPPED, "Switched off."
		}
	}
	return out
}

// skipAfter marks the hooks of the stage that do not run any more.
func (a *attempt) skipAfter(hooks []codeconfig.Hook, failed int) {
	for i := failed + 1; i < len(hooks); i++ {
		a.progress.hook(i, skip)
	}
}

func skip(r *deployerv1.HookRecord) {
	if r.GetState() == deployerv1.HookRecord_PENDING {
		r.State = deployerv1.HookRecord_SKIPPED
	}
}

// skipRest marks the hooks of the stages that are not entered any more.
func (a *attempt) skipRest(after deployerv1.Deployment_Stage) {
	for _, s := range plan() {
		hooks := settings.At(a.settings.Hooks, s.id)
		if s.id <= after || len(hooks) == 0 {
			continue
		}
		records := waiting(hooks)
		for _, r := range records {
			skip(r)
		}
		a.progress.skipped(s.id, records)
	}
}

func (a *attempt) runHook(ctx context.Context, id deployerv1.Deployment_Stage, i int, h codeconfig.Hook) error {
	if a.w.cfg.Hooks == nil {
		return &failedHook{reason: reasonNoHookRunner, message: fmt.Sprintf("Hook %q did not run: %s", h.Name, a.w.cfg.NoHooks), err: errors.New("no runner")}
	}
	spec, err := a.spec(id, h)
	if err != nil {
		return err
	}
	now := timestamppb.New(a.w.cfg.Now())
	a.progress.hook(i, func(r *deployerv1.HookRecord) { r.State, r.StartTime = deployerv1.HookRecord_RUNNING, now })
	a.hookSay(h.Name, "Running hook %q.", h.Name)
	hooking, span := a.trace(ctx, "hook", tracing.About{Stage: id.String()})
	result, err := a.w.cfg.Hooks.Run(hooking, spec, hookLines{a, id, h.Name})
	if err == nil && !result.OK() {
		span.End(errHookFailed)
	} else {
		span.End(err)
	}
	if err != nil && ctx.Err() != nil {
		a.w.cfg.Logger.WarnContext(ctx, "hook could not be stopped in good order", slog.String(logs.KeyHook, h.Name), logs.Err(err))
		if errors.Is(err, sandbox.ErrLeft) {
			a.hookSay(h.Name, "Hook %q was killed, but a process of it has not ended. It is on the server still.", h.Name)
		}
		result, err = sandbox.Result{Cancelled: true}, nil
	}
	a.progress.hook(i, func(r *deployerv1.HookRecord) { a.ended(r, result, err) })
	switch {
	case result.Cancelled:
		a.hookSay(h.Name, "Hook %q was stopped.", h.Name)
		return context.Cause(ctx)
	case errors.Is(err, sandbox.ErrStalled):
		return err
	case err != nil:
		a.w.cfg.Logger.WarnContext(ctx, "hook could not be run", slog.String(logs.KeyHook, h.Name), logs.Err(err))
		return &failedHook{reason: reasonHookFailed, message: fmt.Sprintf("Hook %q could not be run on the server. See the deployer's log for what its system said.", h.Name), err: err, server: true}
	case result.OK():
		a.hookSay(h.Name, "Hook %q is done, after %v.", h.Name, result.Duration.Round(time.Millisecond))
		return nil
	}
	if result.DiskFull && !a.switched {
		// Who took the room is not known: others write to this disk too. What one app may take has a limit of its own.
		a.hookSay(h.Name, "Hook %q was ended: %s.", h.Name, result.Problem())
		return fmt.Errorf("hook %q: %w", h.Name, unix.ENOSPC)
	}
	a.hookSay(h.Name, "Hook %q failed: %s.", h.Name, result.Problem())
	reason := reasonHookFailed
	if result.TimedOut {
		reason = reasonHookTimedOut
	}
	message := fmt.Sprintf("Hook %q failed: %s.", h.Name, result.Problem())
	if a.switched {
		message += " The release is live all the same; roll back if it does not work."
	}
	return &failedHook{reason: reason, message: message, err: errors.New(result.Problem())}
}

// ended notes how a hook ended.
func (a *attempt) ended(r *deployerv1.HookRecord, result sandbox.Result, err error) {
	r.EndTime = timestamppb.New(a.w.cfg.Now())
	switch {
	case result.Cancelled:
		r.State = deployerv1.HookRecord_CANCELLED
	case result.TimedOut:
		r.State = deployerv1.HookRecord_TIMED_OUT
	case err == nil && result.OK():
		r.State = deployerv1.HookRecord_COMPLETED
	default:
		r.State = deployerv1.HookRecord_FAILED
	}
	if err == nil && !result.Cancelled {
		r.ExitCode = proto.Int32(int32(result.ExitCode)) // 0 to 255
	}
	if p := result.Problem(); p != "" && err == nil {
		r.Message = p
	}
}

// spec is what a hook is run with. Before the source is there it works in an empty directory that
// is thrown away.
func (a *attempt) spec(id deployerv1.Deployment_Stage, h codeconfig.Hook) (sandbox.Spec, error) {
	rel := a.w.cfg.Releases
	final := rel.AbsPath(a.key.Workspace, a.key.App, a.directory)
	s := sandbox.Spec{
		Command: h.Command, Limits: sandbox.Limits{Time: h.Timeout, Disk: a.w.cfg.AppDisk, DiskReserve: a.w.cfg.DiskReserve}, Shared: a.shared, Release: final,
		Counted: []string{filepath.Dir(filepath.Dir(final))}, // all of the app
	}
	if id < deployerv1.Deployment_SOURCE_CONTROL {
		scratch, err := rel.Scratch(a.key.Workspace, a.key.App, a.directory)
		if err != nil {
			return sandbox.Spec{}, err
		}
		s.Release, s.Shared = scratch, nil
	} else {
		s.Dir = filepath.Join(final, filepath.FromSlash(a.app.GetSource().GetDirectory()))
	}
	branch, tag := a.job.GetBranch(), a.job.GetTag()
	for _, v := range a.variables {
		s.Env = append(s.Env, v.Name+"="+v.Value.Reveal())
	}
	s.Env = append(s.Env,
		"DEVPILOT=1", "DEVPILOT_WORKSPACE="+a.key.Workspace, "DEVPILOT_APP="+a.key.App,
		"DEVPILOT_DEPLOYMENT="+strconv.Itoa(int(a.job.GetNumber())), "DEVPILOT_ATTEMPT="+strconv.Itoa(int(a.job.GetAttempt())),
		"DEVPILOT_COMMIT="+a.commit, "DEVPILOT_BRANCH="+branch, "DEVPILOT_TAG="+tag, "DEVPILOT_TRIGGER="+a.job.GetTrigger().String(),
		"DEVPILOT_RELEASE_DIR="+final, "DEVPILOT_STAGE="+id.String(), "DEVPILOT_HOOK="+h.Name,
	)
	return s, nil
}

// hookLines writes what a hook prints to the log.
type hookLines struct {
	a     *attempt
	stage deployerv1.Deployment_Stage
	name  string
}

// Line implements hook.Sink.
func (l hookLines) Line(from sandbox.Stream, text string) {
	to := deployerv1.LogRecord_SYSTEM
	switch from {
	case sandbox.Stdout:
		to = deployerv1.LogRecord_STDOUT
	case sandbox.Stderr:
		to = deployerv1.LogRecord_STDERR
	case sandbox.Notice:
	}
	l.a.log.HookLine(l.stage, l.name, to, text)
}

// hookSay writes one of Devpilot's own lines about a hook.
func (a *attempt) hookSay(name, format string, args ...any) {
	a.log.HookLine(a.progress.stage(), name, deployerv1.LogRecord_SYSTEM, fmt.Sprintf(format, args...))
}
