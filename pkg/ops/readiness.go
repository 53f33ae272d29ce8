package ops

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// CheckTimeout bounds each readiness check.
const CheckTimeout = time.Second

// ErrDraining is why a process that shuts down is not ready.
var ErrDraining = errors.New("shutting down")

// Readiness gathers the checks of a process. Safe for concurrent use. The zero value is ready.
type Readiness struct {
	mu       sync.Mutex
	checks   []namedCheck
	draining atomic.Bool
}

type namedCheck struct {
	name  string
	check func(context.Context) error
}

// Result is the outcome of one check.
type Result struct {
	Name string
	Err  error // nil: ready
	Took time.Duration
}

// Add registers a check; nil from it means ready. It must respect its context.
func (r *Readiness) Add(name string, check func(context.Context) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.checks = append(r.checks, namedCheck{name, check})
}

// Drain makes the process not ready for good: the first step of a shutdown.
func (r *Readiness) Drain() { r.draining.Store(true) }

// Results runs all checks at once, each bounded by CheckTimeout even where it ignores its context,
// and returns their results in the order of registration.
func (r *Readiness) Results(ctx context.Context) []Result {
	checks := r.registered()
	results := runAll(ctx, checks)
	// What was registered meanwhile counts: a check that says "still starting" may have been asked
	// after the last one was registered, and the list read before.
	for more := r.registered()[len(checks):]; len(more) > 0; more = r.registered()[len(results):] {
		results = append(results, runAll(ctx, more)...)
	}
	if r.draining.Load() {
		results = append([]Result{{Name: "process", Err: ErrDraining}}, results...)
	}
	return results
}

func (r *Readiness) registered() []namedCheck {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.checks[:len(r.checks):len(r.checks)]
}

func runAll(ctx context.Context, checks []namedCheck) []Result {
	results := make([]Result, len(checks))
	var wg sync.WaitGroup
	for i, c := range checks {
		wg.Go(func() { results[i] = c.run(ctx) })
	}
	wg.Wait()
	return results
}

func (c namedCheck) run(ctx context.Context) Result {
	ctx, cancel := context.WithTimeout(ctx, CheckTimeout)
	defer cancel()
	start := time.Now()
	done := make(chan error, 1)
	go func() {
		defer func() {
			if v := recover(); v != nil {
				done <- fmt.Errorf("check panicked: %v", v)
			}
		}()
		done <- c.check(ctx)
	}()
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		err = fmt.Errorf("no answer within %s", CheckTimeout)
	}
	return Result{Name: c.name, Err: err, Took: time.Since(start)}
}

// Ready is nil when every check passes; otherwise it names those that failed.
func (r *Readiness) Ready(ctx context.Context) error {
	var errs []error
	for _, res := range r.Results(ctx) {
		if res.Err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", res.Name, res.Err))
		}
	}
	return errors.Join(errs...)
}

// Watch calls report with the readiness, at once and then whenever it changed, until ctx is done;
// then it reports not ready and returns. It looks every interval, and ten times as often while not
// ready.
func (r *Readiness) Watch(ctx context.Context, interval time.Duration, report func(err error)) {
	last, first := false, true
	for {
		err := r.Ready(ctx)
		if ready := err == nil; ctx.Err() == nil && (first || ready != last) {
			report(err)
			last, first = ready, false
		}
		pause := interval
		if err != nil {
			pause = interval / 10
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			report(ErrDraining)
			return
		case <-timer.C:
		}
	}
}
