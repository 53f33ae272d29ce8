package engine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/alicebob/miniredis/v2"
)

// redisTick is how often the embedded Redis' clock moves. miniredis expires nothing by itself.
const redisTick = 100 * time.Millisecond

// Redis is an embedded Redis in memory. Its keys expire in real time.
type Redis struct {
	srv      *miniredis.Miniredis
	password string
	stopped  atomic.Bool
	stop     context.CancelFunc
	done     chan struct{}
	once     sync.Once
}

// StartRedis starts an embedded Redis on a free loopback port and ticks its clock until Close. It
// asks for a random password, so that other users of the machine cannot look into it.
func StartRedis() (*Redis, error) {
	srv := miniredis.NewMiniRedis()
	password := rand.Text()
	srv.RequireAuth(password)
	if err := srv.StartAddr("127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("engine: start the embedded Redis: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &Redis{srv: srv, password: password, stop: cancel, done: make(chan struct{})}
	go r.tick(ctx)
	return r, nil
}

func (r *Redis) tick(ctx context.Context) {
	defer close(r.done)
	t := time.NewTicker(redisTick)
	defer t.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			now := time.Now()
			r.srv.FastForward(now.Sub(last))
			last = now
		}
	}
}

// URL is the redis:// URL of the server, with its password: never log it.
func (r *Redis) URL() string { return "redis://:" + r.password + "@" + r.srv.Addr() }

// FastForward moves the clock ahead by d, beside its real pace; for tests of expiry.
func (r *Redis) FastForward(d time.Duration) { r.srv.FastForward(d) }

// Stop makes the server unreachable and keeps its data and port; Start brings it back.
func (r *Redis) Stop() {
	r.stopped.Store(true)
	r.srv.Close()
}

// Start serves again after Stop, on the same port.
func (r *Redis) Start() error {
	if err := r.srv.Restart(); err != nil {
		return fmt.Errorf("engine: restart the embedded Redis: %w", err)
	}
	r.stopped.Store(false)
	return nil
}

// FlushAll forgets everything, as a Redis without persistence does when it is killed.
func (r *Redis) FlushAll() { r.srv.FlushAll() }

// Ready is nil while the server answers.
func (r *Redis) Ready(context.Context) error {
	if r.stopped.Load() {
		return errors.New("engine: the embedded Redis is stopped")
	}
	return nil
}

// Close stops the clock and the server. A second Close does nothing.
func (r *Redis) Close() {
	r.once.Do(func() {
		r.stop()
		<-r.done
		r.Stop()
	})
}
