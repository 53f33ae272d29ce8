package catalog

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

// tasks runs work that outlives the call it began in, and ends it at shutdown.
type tasks struct {
	limit time.Duration

	mu     sync.Mutex
	closed bool
	stop   chan struct{}
	wg     sync.WaitGroup
}

func newTasks(limit time.Duration) *tasks { return &tasks{limit: limit, stop: make(chan struct{})} }

// run starts work with a context of its own: the values of ctx (trace, request id), but not its
// end; it ends after the limit or at shutdown. After close the context is done from the beginning.
func (t *tasks) run(ctx context.Context, work func(context.Context)) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), t.limit)
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		cancel()
		work(ctx)
		return
	}
	t.wg.Add(1)
	t.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		select {
		case <-t.stop:
			cancel()
		case <-ended:
		}
	}()
	go func() {
		defer t.wg.Done()
		defer cancel()
		defer close(ended)
		work(ctx)
	}()
}

func (t *tasks) close() {
	t.mu.Lock()
	if !t.closed {
		t.closed = true
		close(t.stop)
	}
	t.mu.Unlock()
	t.wg.Wait()
}

// task is work that several callers wait for.
type task[T any] struct {
	done  chan struct{}
	value T
	err   error
}

// wait returns the result, or ctx's error when that ends first; the work goes on then.
func (t *task[T]) wait(ctx context.Context) (T, error) {
	select {
	case <-t.done:
		return t.value, t.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

// group runs at most one piece of work per key at a time. It is not golang.org/x/sync/singleflight,
// which does not tell whether a key runs, and in which a panic ends the process.
type group[T any] struct {
	tasks *tasks

	mu      sync.Mutex
	running map[string]*task[T]
}

func newGroup[T any](t *tasks) *group[T] { return &group[T]{tasks: t, running: map[string]*task[T]{}} }

// start joins the work that runs under key, or begins it.
func (g *group[T]) start(ctx context.Context, key string, work func(context.Context) (T, error)) *task[T] {
	g.mu.Lock()
	if t, ok := g.running[key]; ok {
		g.mu.Unlock()
		return t
	}
	t := &task[T]{done: make(chan struct{})}
	g.running[key] = t
	g.mu.Unlock()
	g.tasks.run(ctx, func(ctx context.Context) {
		defer close(t.done)
		defer func() {
			g.mu.Lock()
			delete(g.running, key)
			g.mu.Unlock()
		}()
		defer func() {
			if v := recover(); v != nil { // no interceptor stands above this goroutine
				t.err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
			}
		}()
		t.value, t.err = work(ctx)
	})
	return t
}

// isRunning reports whether work runs under key.
func (g *group[T]) isRunning(key string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, ok := g.running[key]
	return ok
}

// shared answers equal questions once, and again from the same answer until that is answerLife old.
type shared[T any] struct {
	group   *group[T]
	answers Answers
	now     func() time.Time

	mu   sync.Mutex
	kept map[string]kept[T]
}

type kept[T any] struct {
	Value T         `json:"value"`
	At    time.Time `json:"at"`
}

func newShared[T any](t *tasks, answers Answers, now func() time.Time) *shared[T] {
	return &shared[T]{group: newGroup[T](t), answers: answers, now: now, kept: map[string]kept[T]{}}
}

// peek returns an answer that is young enough, here or in another replica.
func (s *shared[T]) peek(ctx context.Context, question string) (T, bool) {
	s.mu.Lock()
	k, ok := s.kept[question]
	s.mu.Unlock()
	if ok && s.young(k) {
		return k.Value, true
	}
	var other kept[T] // decoding into k would write into what others still read
	if s.answers.Get(ctx, question, &other) && s.young(other) {
		return other.Value, true
	}
	var none T
	return none, false
}

func (s *shared[T]) young(k kept[T]) bool {
	age := s.now().Sub(k.At)
	return age >= 0 && age < answerLife
}

// ask answers a question. The age of an answer is counted from before it was fetched. Errors are
// shared only by those who wait for them.
func (s *shared[T]) ask(ctx context.Context, question string, work func(context.Context) (T, error)) (T, error) {
	if v, ok := s.peek(ctx, question); ok {
		return v, nil
	}
	return s.group.start(ctx, question, func(ctx context.Context) (T, error) {
		at := s.now()
		v, err := work(ctx)
		if err == nil {
			s.keep(ctx, question, kept[T]{Value: v, At: at})
		}
		return v, err
	}).wait(ctx)
}

func (s *shared[T]) keep(ctx context.Context, question string, k kept[T]) {
	s.mu.Lock()
	for q, old := range s.kept { // there are never more than five seconds' worth
		if !s.young(old) {
			delete(s.kept, q)
		}
	}
	s.kept[question] = k
	s.mu.Unlock()
	s.answers.Put(ctx, question, k, answerLife)
}
