package redisx

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"
)

const (
	// CallTimeout bounds every command, its connection and one retry included.
	CallTimeout = 400 * time.Millisecond
	dialTimeout = 300 * time.Millisecond // for connecting to Redis
	// tripAfter failures in a row open the circuit, for openFor; then one call at a time tries.
	tripAfter = 3
	openFor   = 2 * time.Second // how long Redis is not asked after it failed
)

// ErrUnavailable says that Redis cannot be reached or does not answer in time. While the circuit is
// open it comes without waiting.
var ErrUnavailable = errors.New("redisx: redis is unavailable")

// Connect makes a client for a redis:// or rediss:// URL. It does not connect yet: Redis may come
// later, or never. Every command through the client is bounded by CallTimeout, whatever its
// context, and fails at once while Redis is known to be down.
func Connect(url string) (redis.UniversalClient, error) {
	opts, err := redis.ParseURL(url)
	if err != nil {
		// ParseURL's error may quote the URL, and the URL may hold a password.
		return nil, errors.New("redisx: the Redis URL is not valid; it looks like redis://host:6379/0")
	}
	opts.DialTimeout = dialTimeout
	opts.ReadTimeout = CallTimeout
	opts.WriteTimeout = CallTimeout
	opts.PoolTimeout = CallTimeout
	opts.ContextTimeoutEnabled = true
	opts.MaxRetries = 1 // a pooled connection to a Redis that was restarted
	opts.DialerRetries = 1
	opts.MinRetryBackoff = 5 * time.Millisecond
	opts.MaxRetryBackoff = 20 * time.Millisecond
	opts.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	// go-redis writes to standard error by itself; what matters of it is in the errors we return.
	logging.Disable()
	c := redis.NewClient(opts)
	c.AddHook(&circuit{now: time.Now})
	return c, nil
}

// circuit bounds every command and stops asking a Redis that is down.
type circuit struct {
	now func() time.Time

	mu       sync.Mutex
	failures int
	retryAt  time.Time
	probing  bool
}

// allow tells whether to ask Redis at all.
func (c *circuit) allow() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failures < tripAfter {
		return true
	}
	if c.probing || c.now().Before(c.retryAt) {
		return false
	}
	c.probing = true
	return true
}

func (c *circuit) report(failed, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.probing = false
	switch {
	case !known:
	case !failed:
		c.failures = 0
	default:
		c.failures++
		c.retryAt = c.now().Add(openFor)
	}
}

// insideKey marks the context of a call that is being judged. go-redis runs the handshake of a new
// connection through the hooks too, as part of the command that needs the connection.
type insideKey struct{}

// do runs one command or pipeline.
func (c *circuit) do(ctx context.Context, f func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if ctx.Value(insideKey{}) != nil {
		return f(ctx)
	}
	if !c.allow() {
		return fmt.Errorf("%w: not asked, it failed a moment ago", ErrUnavailable)
	}
	callCtx, cancel := context.WithTimeout(context.WithValue(ctx, insideKey{}, true), CallTimeout)
	defer cancel()
	err := f(callCtx)
	failed := isOutage(err)
	// When the caller gave up first, its context says nothing about Redis.
	c.report(failed, !failed || ctx.Err() == nil)
	if failed {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}

// isOutage tells a Redis that is away from one that answered, be it with an error.
func isOutage(err error) bool {
	if err == nil || errors.Is(err, redis.Nil) {
		return false
	}
	var reply redis.Error
	if errors.As(err, &reply) {
		for _, state := range []string{"LOADING", "MASTERDOWN", "CLUSTERDOWN", "READONLY", "TRYAGAIN"} {
			if strings.HasPrefix(reply.Error(), state) {
				return true
			}
		}
		return false
	}
	return true
}

// DialHook leaves dialling alone.
func (c *circuit) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

// ProcessHook bounds one command.
func (c *circuit) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		return c.do(ctx, func(ctx context.Context) error { return next(ctx, cmd) })
	}
}

// ProcessPipelineHook bounds one pipeline.
func (c *circuit) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := c.do(ctx, func(ctx context.Context) error { return next(ctx, cmds) })
		if errors.Is(err, ErrUnavailable) {
			for _, cmd := range cmds {
				cmd.SetErr(err)
			}
		}
		return err
	}
}
