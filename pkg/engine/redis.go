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
	"github.com/alicebob/miniredis/v2/server"
)

// redisTick is the step in which the embedded Redis' clock moves.
const redisTick = 100 * time.Millisecond

// Redis is an embedded Redis in memory. Its keys expire in real time: miniredis expires nothing by
// itself, so its clock is set right before a command, and costs nothing while there is none.
type Redis struct {
	srv      *miniredis.Miniredis
	password string
	stopped  atomic.Bool
	once     sync.Once

	mu  sync.Mutex
	now time.Time // what the server's clock says
}

// StartRedis starts an embedded Redis on a free loopback port. It asks for a random password, so that
// other users of the machine cannot look into it.
func StartRedis() (*Redis, error) {
	r := &Redis{srv: miniredis.NewMiniRedis(), password: rand.Text(), now: time.Now()}
	r.srv.RequireAuth(r.password)
	if err := r.srv.StartAddr("127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("engine: start the embedded Redis: %w", err)
	}
	r.srv.Server().SetPreHook(r.beforeCommand)
	return r, nil
}

// beforeCommand sets the clock. A script's own commands run while the script has the server locked, and
// the clock stands still for them; it also does for whoever comes while another command runs.
func (r *Redis) beforeCommand(*server.Peer, string, ...string) (done bool) {
	if !r.srv.TryLock() {
		return false
	}
	r.srv.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if passed := time.Since(r.now); passed >= redisTick {
		r.srv.FastForward(passed)
		r.now = r.now.Add(passed)
	}
	return false
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
	r.srv.Server().SetPreHook(r.beforeCommand)
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

// Close stops the server. A second Close does nothing.
func (r *Redis) Close() { r.once.Do(r.Stop) }
