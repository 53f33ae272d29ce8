// Package lifecycle starts the parts of a process in order and stops them in reverse.
//
// A process is a list of [Component]s, dependencies first: engines, connections, services,
// servers. Shutdown is a procedure of numbered steps, see [Run]. Every step is bounded.
//
// Depends on pkg/logs and pkg/ops.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/ops"
)

// Component is one part of a process. All functions are optional.
type Component struct {
	Name string
	// Start returns when the component is up, or why it cannot be; bounded by StartTimeout.
	Start func(ctx context.Context) error
	// Run blocks until ctx is done and the component's work is drained. Returning earlier, with or
	// without an error, ends the process.
	Run func(ctx context.Context) error
	// Ready is nil once the component can serve; it becomes a check of /readyz.
	Ready func(ctx context.Context) error
	// Stop asks the component to end, before Run's context is canceled; bounded by StopTimeout.
	Stop func(ctx context.Context) error

	StartTimeout time.Duration // 0: DefaultStartTimeout
	StopTimeout  time.Duration // 0: DefaultStopTimeout; Stop and the rest of Run together
}

// The bounds of components that name none.
const (
	DefaultStartTimeout = 60 * time.Second
	DefaultStopTimeout  = 15 * time.Second
)

// Config is how Run behaves.
type Config struct {
	Logger    *slog.Logger
	Readiness *ops.Readiness // nil: readiness is not shown anywhere
	// DrainDelay is how long the process goes on serving after it said that it is not ready, so
	// that balancers take it out first.
	DrainDelay time.Duration
}

// ErrStopTimeout is in the error of a component that did not end in time.
var ErrStopTimeout = errors.New("did not stop in time")

var errStarting = errors.New("not everything has started yet")

type running struct {
	Component
	cancel   context.CancelFunc
	stopping atomic.Bool // from then on Run may return
	done     chan error  // receives what Run returned; nil without Run
}

// Run starts the components one after another, waits until ctx is done or a component ends by
// itself, and stops:
//
//  1. not ready (/readyz, gRPC health);
//  2. wait DrainDelay;
//  3. each component in reverse order of start: Stop, then its Run's context, then wait for Run,
//     all within StopTimeout.
//
// Before the last component has started the process is not ready. What did not start is not stopped. It returns nil only if ctx ended it and every component
// stopped cleanly.
func Run(ctx context.Context, cfg Config, components ...Component) error {
	readiness := cfg.Readiness
	if readiness == nil {
		readiness = &ops.Readiness{}
	}
	var started atomic.Bool
	readiness.Add("startup", func(context.Context) error {
		if !started.Load() {
			return errStarting
		}
		return nil
	})
	died := make(chan error, len(components))
	var up []*running
	var cause error
	for _, c := range components {
		r, err := start(ctx, cfg.Logger, c, died)
		if err != nil {
			cause = err
			break
		}
		up = append(up, r)
		if c.Ready != nil {
			readiness.Add(c.Name, c.Ready)
		}
	}
	if cause == nil {
		started.Store(true)
		select {
		case <-ctx.Done():
			cfg.Logger.Info("stopping")
		case cause = <-died:
			cfg.Logger.Error("stopping: a component ended", logs.Err(cause))
		}
	}
	readiness.Drain()
	if cause == nil && cfg.DrainDelay > 0 {
		select {
		case <-time.After(cfg.DrainDelay):
		case cause = <-died:
		}
	}
	errs := []error{cause}
	for i := len(up) - 1; i >= 0; i-- {
		errs = append(errs, up[i].stop(ctx, cfg.Logger))
	}
	return errors.Join(errs...)
}

func start(ctx context.Context, logger *slog.Logger, c Component, died chan<- error) (*running, error) {
	begin := time.Now()
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%s: not started: %w", c.Name, context.Cause(ctx))
	}
	if c.Start != nil {
		sctx, cancel := context.WithTimeout(ctx, or(c.StartTimeout, DefaultStartTimeout))
		err := c.Start(sctx)
		cancel()
		if err != nil {
			return nil, fmt.Errorf("%s: start: %w", c.Name, err)
		}
	}
	// Run's context does not end with ctx: components end one after another, in order.
	rctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r := &running{Component: c, cancel: cancel}
	if c.Run != nil {
		r.done = make(chan error, 1)
		go func() {
			err := c.Run(rctx)
			if !r.stopping.Load() {
				if err == nil {
					err = errors.New("ended by itself")
				}
				died <- fmt.Errorf("%s: %w", c.Name, err)
				err = nil // reported already
			}
			r.done <- err
		}()
	}
	logger.Debug("component started", slog.String(logs.KeyComponent, c.Name), logs.Since(begin))
	return r, nil
}

func (r *running) stop(ctx context.Context, logger *slog.Logger) error {
	begin := time.Now()
	sctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), or(r.StopTimeout, DefaultStopTimeout))
	defer cancel()
	r.stopping.Store(true)
	var errs []error
	if r.Stop != nil {
		if err := r.Stop(sctx); err != nil {
			errs = append(errs, fmt.Errorf("%s: stop: %w", r.Name, err))
		}
	}
	r.cancel()
	if r.done != nil {
		select {
		case err := <-r.done:
			if err != nil && !errors.Is(err, context.Canceled) {
				errs = append(errs, fmt.Errorf("%s: %w", r.Name, err))
			}
		case <-sctx.Done():
			errs = append(errs, fmt.Errorf("%s: %w", r.Name, ErrStopTimeout))
		}
	}
	err := errors.Join(errs...)
	if err != nil {
		logger.Warn("component stopped with an error", slog.String(logs.KeyComponent, r.Name), logs.Since(begin), logs.Err(err))
	} else {
		logger.Debug("component stopped", slog.String(logs.KeyComponent, r.Name), logs.Since(begin))
	}
	return err
}

// Signals returns a context that ends with the first SIGTERM or SIGINT. After stop is called (do so
// once the context is done) a second signal kills the process, as without us.
func Signals(ctx context.Context) (_ context.Context, stop context.CancelFunc) {
	return signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
}

func or(d, def time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return def
}
