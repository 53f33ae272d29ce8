package redisx

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/sony/gobreaker/v2"
)

const (
	// tripAfter failures in a row open the circuit, for openFor; then one call at a time tries.
	tripAfter = 3
	openFor   = 2 * time.Second // how long Redis is not asked after it failed
)

// ErrUnavailable says that Redis cannot be reached or does not answer in time. While the circuit is
// open it comes without waiting.
var ErrUnavailable = errors.New("redisx: redis is unavailable")

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

// inside marks the context of a call that a circuit judges. go-redis runs the handshake of a new
// connection through the hooks too, as part of the command that needs the connection.
type inside struct{ *circuit }

// do runs one command or pipeline.
func (c *circuit) do(ctx context.Context, f func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if ctx.Value(inside{c}) != nil {
		return f(ctx)
	}
	_, err := c.breaker.Execute(func() (struct{}, error) {
		callCtx, cancel := context.WithTimeout(context.WithValue(ctx, inside{c}, true), c.timeout)
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
	if errors.Is(err, errNotFound) {
		return true // whatever the sentinels answered
	}
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
func (c *circuit) DialHook(next redis.DialHook) redis.DialHook { return next }

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

// IsOtherKind tells that Redis is run in another way than the URL says: a node of a cluster or a sentinel that was
// taken for a server, or a server for a cluster.
func IsOtherKind(err error) bool {
	var reply redis.Error
	if !errors.As(err, &reply) {
		return false
	}
	for _, answer := range []string{"MOVED ", "ERR This instance has cluster support disabled", "ERR unknown command"} {
		if strings.HasPrefix(reply.Error(), answer) {
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
