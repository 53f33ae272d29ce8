package redisx

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// ErrHeld says that somebody else has the lock; ErrUnavailable that nobody can tell.
var ErrHeld = errors.New("redisx: held by somebody else")

// Only the owner's token lets go or extends: a holder that was slow must not free its successor.
var (
	releaseScript = redis.NewScript(`if redis.call("GET", KEYS[1]) == ARGV[1] then return redis.call("DEL", KEYS[1]) end return 0`)
	extendScript  = redis.NewScript(`if redis.call("GET", KEYS[1]) == ARGV[1] then return redis.call("PEXPIRE", KEYS[1], ARGV[2]) end return 0`)
)

// Lock is a lock that may be lost at any time, with Redis or by taking longer than its time to
// live. It saves work; it protects nothing. What must not happen twice is decided in JetStream.
type Lock struct {
	client redis.UniversalClient
	key    string
	token  string
}

// TryLock takes the lock under key for ttl, or returns ErrHeld, or ErrUnavailable.
func TryLock(ctx context.Context, client redis.UniversalClient, key string, ttl time.Duration) (*Lock, error) {
	l := &Lock{client: client, key: key, token: rand.Text()}
	ok, err := client.SetNX(ctx, key, l.token, ttl).Result()
	if err != nil {
		return nil, outage("lock", err)
	}
	if !ok {
		return nil, ErrHeld
	}
	return l, nil
}

// Extend gives the lock ttl from now, or returns ErrHeld when it was lost.
func (l *Lock) Extend(ctx context.Context, ttl time.Duration) error {
	n, err := extendScript.Run(ctx, l.client, []string{l.key}, l.token, ttl.Milliseconds()).Int()
	if err != nil {
		return outage("extend lock", err)
	}
	if n == 0 {
		return fmt.Errorf("%w: lost", ErrHeld)
	}
	return nil
}

// Release gives the lock up, if it is still ours. It may be called with a context that is done.
func (l *Lock) Release(ctx context.Context) error {
	if err := releaseScript.Run(context.WithoutCancel(ctx), l.client, []string{l.key}, l.token).Err(); err != nil {
		return outage("release lock", err)
	}
	return nil
}

// flightPoll is how often a waiter looks whether the work is done.
const flightPoll = 50 * time.Millisecond

// Flight is work that several replicas want at once and one of them should do.
type Flight[T any] struct {
	// Key of the lock.
	Key string
	// TTL of the lock, which is extended while the work goes on: how long the others wait for
	// one that died. 10 s when zero.
	TTL time.Duration
	// Cached looks for the result that another replica has left.
	Cached func(ctx context.Context) (T, bool)
	// Work makes the result and leaves it where Cached looks.
	Work func(ctx context.Context) (T, error)
}

// Do returns what Cached finds once another replica is done, or does the work itself: at once when
// nobody else is at it or Redis is down, and when the other one went away without a result.
func (f Flight[T]) Do(ctx context.Context, client redis.UniversalClient) (T, error) {
	ttl := f.TTL
	if ttl == 0 {
		ttl = 10 * time.Second
	}
	for waited := false; ; waited = true {
		lock, err := TryLock(ctx, client, f.Key, ttl)
		if err != nil && ctx.Err() != nil {
			var none T
			return none, ctx.Err()
		}
		if err == nil && waited {
			// The other one let go: with a result, as a rule.
			if v, ok := f.Cached(ctx); ok {
				_ = lock.Release(ctx) // else it expires
				return v, nil
			}
		}
		if !errors.Is(err, ErrHeld) {
			return f.work(ctx, lock, ttl)
		}
		if v, ok := f.Cached(ctx); ok {
			return v, nil
		}
		t := time.NewTimer(flightPoll)
		select {
		case <-ctx.Done():
			t.Stop()
			var none T
			return none, ctx.Err()
		case <-t.C:
		}
	}
}

// work does the work under the lock, or without one when Redis is down.
func (f Flight[T]) work(ctx context.Context, lock *Lock, ttl time.Duration) (T, error) {
	if lock == nil {
		return f.Work(ctx)
	}
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		t := time.NewTicker(ttl / 3)
		defer t.Stop()
		for {
			select {
			case <-stop:
				return
			case <-t.C:
				// A lock that was lost only means that another may do the work too.
				_ = lock.Extend(context.WithoutCancel(ctx), ttl)
			}
		}
	}()
	defer func() {
		close(stop)
		<-done
		// What cannot be released expires.
		_ = lock.Release(ctx)
	}()
	return f.Work(ctx)
}
