package timequeue

import (
	"context"
	"sync"
	"time"
)

// Loop does what is due, one thing per key at a time. It is safe for concurrent use.
type Loop struct {
	now      func() time.Time
	parallel int
	wake     chan struct{}

	mu    sync.Mutex
	queue Queue
	// busy are the keys that something is done about, with when they are due again where that was said
	// meanwhile.
	busy map[string]*time.Time
}

// NewLoop makes a loop that does so many things at once.
func NewLoop(parallel int, now func() time.Time) *Loop {
	return &Loop{now: now, parallel: parallel, wake: make(chan struct{}, 1), busy: map[string]*time.Time{}}
}

// Set makes a key due at a time, whenever it was due before. Where it is being done, it is due again.
func (l *Loop) Set(key string, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, busy := l.busy[key]; busy {
		l.busy[key] = &at
		return
	}
	l.queue.Set(key, at)
	l.poke()
}

// Remove forgets a key. What is being done about it is done to its end.
func (l *Loop) Remove(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, busy := l.busy[key]; busy {
		l.busy[key] = nil
	}
	l.queue.Remove(key)
}

// At is when a key is due; false when it is not, or is being done.
func (l *Loop) At(key string) (time.Time, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.queue.At(key)
}

// Late is for how long the key that has been due for longest has waited to be done; 0 where none is due.
func (l *Loop) Late() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	at, some := l.queue.Next()
	if !some {
		return 0
	}
	return max(l.now().Sub(at), 0)
}

func (l *Loop) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// longest is how long a loop sleeps at most: clocks are set forward, and machines sleep.
const longest = 5 * time.Second

// Run has do do what is due until ctx is done, and then waits for what was begun. do returns when the
// key is due again, or the zero time where it is not; what Set said meanwhile comes before.
func (l *Loop) Run(ctx context.Context, do func(ctx context.Context, key string) time.Time) {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, l.parallel)
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		key, ok := l.next(ctx)
		if !ok {
			return
		}
		wg.Go(func() {
			next := do(ctx, key)
			<-slots
			l.done(key, next)
		})
	}
}

// next waits for a key to be due.
func (l *Loop) next(ctx context.Context) (key string, ok bool) {
	timer := time.NewTimer(longest)
	defer timer.Stop()
	for ctx.Err() == nil {
		l.mu.Lock()
		now := l.now()
		if key, ok := l.queue.Pop(now); ok {
			l.busy[key] = nil
			l.mu.Unlock()
			return key, true
		}
		wait := longest
		if at, some := l.queue.Next(); some {
			wait = min(wait, max(at.Sub(now), time.Millisecond))
		}
		l.mu.Unlock()
		timer.Reset(wait)
		select {
		case <-ctx.Done():
		case <-l.wake:
		case <-timer.C:
		}
	}
	return "", false
}

func (l *Loop) done(key string, next time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if said := l.busy[key]; said != nil {
		next = *said
	}
	delete(l.busy, key)
	if !next.IsZero() {
		l.queue.Set(key, next)
		l.poke()
	}
}
