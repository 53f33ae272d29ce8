package redisx

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"
	"github.com/sony/gobreaker/v2"
)

const (
	// CallTimeout bounds every command, its connection and one retry included.
	CallTimeout = 400 * time.Millisecond
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
func Connect(url string) (redis.UniversalClient, error) { return connect(url, CallTimeout, TLS{}) }

// TLS are PEM files for a rediss:// URL. They are read for every connection.
type TLS struct {
	Authorities      string // whom Redis' certificate is by; empty: one of the system's
	Certificate, Key string // what Redis is shown; empty: nothing
}

// ConnectTLS is Connect with files.
func ConnectTLS(url string, files TLS) (redis.UniversalClient, error) {
	return connect(url, CallTimeout, files)
}

// ConnectWithin is Connect with another bound of every command: for tests, on machines where an answer
// of a Redis that is well may take longer.
func ConnectWithin(url string, callTimeout time.Duration) (redis.UniversalClient, error) {
	return connect(url, callTimeout, TLS{})
}

func connect(url string, callTimeout time.Duration, files TLS) (redis.UniversalClient, error) {
	opts, err := redis.ParseURL(url)
	if err != nil {
		// ParseURL's error may quote the URL, and the URL may hold a password.
		return nil, errors.New("redisx: the Redis URL is not valid; it looks like redis://host:6379/0")
	}
	opts.DialTimeout = callTimeout * 3 / 4 // leaves time for the command itself
	if files != (TLS{}) {
		if err := files.secure(opts); err != nil {
			return nil, err
		}
	}
	opts.ReadTimeout = callTimeout
	opts.WriteTimeout = callTimeout
	opts.PoolTimeout = callTimeout
	opts.ContextTimeoutEnabled = true
	opts.MaxRetries = 1 // a pooled connection to a Redis that was restarted
	opts.DialerRetries = 1
	opts.MinRetryBackoff = 5 * time.Millisecond
	opts.MaxRetryBackoff = 20 * time.Millisecond
	opts.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	// go-redis writes to standard error by itself; what matters of it is in the errors we return.
	logging.Disable()
	c := redis.NewClient(opts)
	c.AddHook(newCircuit(callTimeout))
	return c, nil
}

// circuit bounds every command and stops asking a Redis that is down.
type circuit struct {
	timeout time.Duration // of a command
	breaker *gobreaker.CircuitBreaker[struct{}]
}

// errGaveUp marks what failed because its caller gave up first: that says nothing about Redis.
var errGaveUp = errors.New("the caller gave up first")

func newCircuit(timeout time.Duration) *circuit {
	return &circuit{timeout, gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		Timeout:      openFor,
		ReadyToTrip:  func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= tripAfter },
		IsSuccessful: func(err error) bool { return !isOutage(err) },
		IsExcluded:   func(err error) bool { return errors.Is(err, errGaveUp) },
	})}
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
	_, err := c.breaker.Execute(func() (struct{}, error) {
		callCtx, cancel := context.WithTimeout(context.WithValue(ctx, insideKey{}, true), c.timeout)
		defer cancel()
		err := f(callCtx)
		if isOutage(err) && ctx.Err() != nil {
			err = fmt.Errorf("%w: %w", errGaveUp, err)
		}
		return struct{}{}, err
	})
	switch {
	case errors.Is(err, gobreaker.ErrOpenState), errors.Is(err, gobreaker.ErrTooManyRequests):
		return fmt.Errorf("%w: not asked, it failed a moment ago", ErrUnavailable)
	case isOutage(err):
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

// IsRefusal tells that Redis does not take the user or the password, or does not let the user do it.
func IsRefusal(err error) bool {
	var reply redis.Error
	if !errors.As(err, &reply) {
		return false
	}
	for _, refusal := range []string{"WRONGPASS", "NOAUTH", "NOPERM", "ERR AUTH", "ERR invalid password", "ERR Client sent AUTH"} {
		if strings.HasPrefix(reply.Error(), refusal) {
			return true
		}
	}
	return false
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
