package lifecycle_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"devpilot.io/bitbucket/pkg/lifecycle"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/ops"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// journal notes what happens, in order.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) add(s string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, s)
}

func (j *journal) all() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.lines)
}

// component notes its start, its stop, and the end of its run.
func (j *journal) component(name string) lifecycle.Component {
	return lifecycle.Component{
		Name:  name,
		Start: func(context.Context) error { j.add("start " + name); return nil },
		Run: func(ctx context.Context) error {
			<-ctx.Done()
			j.add("ended " + name)
			return ctx.Err()
		},
		Stop: func(context.Context) error { j.add("stop " + name); return nil },
	}
}

func config() lifecycle.Config { return lifecycle.Config{Logger: logs.Discard()} }

// untilStarted cancels as soon as all components are up: the last one says so.
func untilStarted(cancel context.CancelFunc) lifecycle.Component {
	return lifecycle.Component{Name: "last", Start: func(context.Context) error { cancel(); return nil }}
}

func TestRun_startsInOrderAndStopsInReverse(t *testing.T) {
	var j journal
	ctx, cancel := context.WithCancel(t.Context())
	if err := lifecycle.Run(ctx, config(), j.component("engine"), j.component("service"), j.component("server"), untilStarted(cancel)); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"start engine", "start service", "start server",
		"stop server", "ended server", "stop service", "ended service", "stop engine", "ended engine",
	}
	if got := j.all(); !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
}

func TestRun_notReadyFirstThenTheDrainDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ready ops.Readiness
		ctx, cancel := context.WithCancel(t.Context())
		var told, stopped time.Time
		cfg := lifecycle.Config{Logger: logs.Discard(), Readiness: &ready, DrainDelay: 5 * time.Second}
		watcher := make(chan struct{})
		go func() {
			defer close(watcher)
			<-ctx.Done()
			synctest.Wait() // until Run is in its delay
			if err := ready.Ready(context.Background()); errors.Is(err, ops.ErrDraining) {
				told = time.Now()
			}
		}()
		err := lifecycle.Run(ctx, cfg, lifecycle.Component{
			Name: "server", Ready: func(context.Context) error { return nil },
			Start: func(context.Context) error { cancel(); return nil },
			Stop:  func(context.Context) error { stopped = time.Now(); return nil },
		})
		<-watcher
		if err != nil || told.IsZero() || stopped.Sub(told) != 5*time.Second {
			t.Errorf("%v: not ready at %s, stopped at %s", err, told, stopped)
		}
	})
}

func TestRun_readyChecksAreRegistered(t *testing.T) {
	var ready ops.Readiness
	ctx, cancel := context.WithCancel(t.Context())
	down := errors.New("no first pass yet")
	var seen error
	err := lifecycle.Run(ctx, lifecycle.Config{Logger: logs.Discard(), Readiness: &ready},
		lifecycle.Component{Name: "mirror", Ready: func(context.Context) error { return down }},
		lifecycle.Component{Name: "last", Start: func(ctx context.Context) error { seen = ready.Ready(ctx); cancel(); return nil }},
	)
	if err != nil || !errors.Is(seen, down) || !strings.Contains(seen.Error(), "mirror: ") {
		t.Errorf("%v, %v", err, seen)
	}
}

func TestRun_notReadyBeforeEverythingHasStarted(t *testing.T) {
	var ready ops.Readiness
	ctx, cancel := context.WithCancel(t.Context())
	var during, after error
	err := lifecycle.Run(ctx, lifecycle.Config{Logger: logs.Discard(), Readiness: &ready},
		lifecycle.Component{Name: "ops"},
		lifecycle.Component{Name: "nats", Start: func(ctx context.Context) error { during = ready.Ready(ctx); return nil }},
		lifecycle.Component{Name: "last", Run: func(ctx context.Context) error {
			for ctx.Err() == nil {
				if after = ready.Ready(ctx); after == nil {
					break
				}
			}
			cancel()
			<-ctx.Done()
			return nil
		}},
	)
	if err != nil || during == nil || !strings.Contains(during.Error(), "startup: ") || after != nil {
		t.Errorf("%v; while starting: %v; later: %v", err, during, after)
	}
}

func TestRun_failedStartStopsWhatWasStarted(t *testing.T) {
	var j journal
	boom := errors.New("no route to host")
	err := lifecycle.Run(t.Context(), config(), j.component("engine"),
		lifecycle.Component{Name: "nats", Start: func(context.Context) error { return boom }, Stop: func(context.Context) error { j.add("stop nats"); return nil }},
		j.component("server"))
	if !errors.Is(err, boom) || !strings.Contains(err.Error(), "nats: start: ") {
		t.Errorf("%v", err)
	}
	if got, want := j.all(), []string{"start engine", "stop engine", "ended engine"}; !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
}

func TestRun_startIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		err := lifecycle.Run(t.Context(), config(), lifecycle.Component{
			Name: "nats", StartTimeout: 7 * time.Second, Start: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		})
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != 7*time.Second {
			t.Errorf("%v after %s", err, time.Since(begin))
		}
	})
}

func TestRun_stoppedWhileStarting(t *testing.T) {
	var j journal
	ctx, cancel := context.WithCancel(t.Context())
	err := lifecycle.Run(ctx, config(), j.component("engine"),
		lifecycle.Component{Name: "nats", Start: func(ctx context.Context) error { cancel(); <-ctx.Done(); return ctx.Err() }},
		j.component("server"))
	if !errors.Is(err, context.Canceled) || slices.Contains(j.all(), "start server") || !slices.Contains(j.all(), "ended engine") {
		t.Errorf("%v, %v", err, j.all())
	}
}

func TestRun_aComponentThatDiesTakesTheProcessDown(t *testing.T) {
	boom := errors.New("canary failed")
	for name, result := range map[string]error{"with an error": boom, "without one": nil} {
		t.Run(name, func(t *testing.T) {
			var j journal
			err := lifecycle.Run(t.Context(), config(), j.component("engine"),
				lifecycle.Component{Name: "worker", Run: func(context.Context) error { return result }}, j.component("server"))
			if err == nil || (result != nil && !errors.Is(err, result)) || !strings.Contains(err.Error(), "worker: ") {
				t.Errorf("%v", err)
			}
			if got := j.all(); !slices.Contains(got, "ended engine") || !slices.Contains(got, "ended server") {
				t.Errorf("%v", got)
			}
		})
	}
}

func TestRun_aRunMayReturnOnceItsStopWasCalled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	quit := make(chan struct{})
	err := lifecycle.Run(ctx, config(), lifecycle.Component{
		Name: "grpc", Start: func(context.Context) error { cancel(); return nil },
		Run:  func(context.Context) error { <-quit; return nil }, // as grpc.Server.Serve
		Stop: func(context.Context) error { close(quit); return nil },
	})
	if err != nil {
		t.Error(err)
	}
}

func TestRun_stopIsBoundedAndGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		ctx, cancel := context.WithCancel(t.Context())
		release := make(chan struct{})
		begin := time.Now()
		err := lifecycle.Run(ctx, config(), j.component("engine"),
			lifecycle.Component{Name: "stuck", StopTimeout: 3 * time.Second, Run: func(context.Context) error { <-release; return nil }},
			lifecycle.Component{Name: "sick", Stop: func(context.Context) error { return errors.New("cannot flush") }},
			untilStarted(cancel))
		if !errors.Is(err, lifecycle.ErrStopTimeout) || !strings.Contains(err.Error(), "stuck: ") || !strings.Contains(err.Error(), "sick: stop: cannot flush") {
			t.Errorf("%v", err)
		}
		if time.Since(begin) != 3*time.Second || !slices.Contains(j.all(), "ended engine") {
			t.Errorf("after %s: %v", time.Since(begin), j.all())
		}
		close(release)
	})
}

func TestRun_errorsOfADrainingRunAreReported(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	lost := errors.New("work lost")
	err := lifecycle.Run(ctx, config(), lifecycle.Component{
		Name: "service", Run: func(ctx context.Context) error { <-ctx.Done(); return lost },
	}, untilStarted(cancel))
	if !errors.Is(err, lost) {
		t.Errorf("%v", err)
	}
}

func TestSignals_endTheContext(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		ctx, stop := lifecycle.Signals(t.Context())
		if err := syscall.Kill(syscall.Getpid(), sig); err != nil {
			t.Fatal(err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Minute):
			t.Errorf("%v does not end the context", sig)
		}
		stop()
	}
}
