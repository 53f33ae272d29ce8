package redisx

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// ErrSentinelRefuses says that the sentinels take no user or password of ours, or do not let the user ask
// where Redis is.
var ErrSentinelRefuses = errors.New("redisx: the sentinels refuse the user or the password")

// errNotFound marks that no sentinel told where Redis is, or that Redis could not be dialled there.
var errNotFound = errors.New("redisx: redis was not found through its sentinels")

// finding is a hook that says what came of asking the sentinels. Their answers are not Redis': a name that
// they do not know must not read as a key that is not there.
type finding struct{ master string }

// DialHook tells the failures of a dial apart, which asks the sentinels first.
func (f finding) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := next(ctx, network, address)
		switch {
		case err == nil:
			return conn, nil
		case IsRefusal(err):
			return nil, fmt.Errorf("%w: %w", ErrSentinelRefuses, err)
		case errors.Is(err, redis.Nil):
			return nil, fmt.Errorf("%w: they know no Redis called %q (master_name)", errNotFound, f.master)
		}
		return nil, fmt.Errorf("%w: %w", errNotFound, err)
	}
}

// ProcessHook leaves commands alone.
func (finding) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

// ProcessPipelineHook leaves pipelines alone.
func (finding) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// Sentinel is what one of them says of Redis.
type Sentinel struct {
	Err  error    // nil where it knows where Redis is
	Away []string // replicas that it knows and does not reach, by address
}

// Sentinels asks each sentinel of a URL where Redis is, by address. Empty in other modes. The error is that of Connect.
func Sentinels(ctx context.Context, url string, security Security) (map[string]Sentinel, error) {
	target, err := Parse(url)
	if err != nil || target.Mode != ModeSentinel {
		return nil, err
	}
	opts := target.universal()
	if err := security.apply(target, opts, CallTimeout); err != nil {
		return nil, err
	}
	known := map[string]Sentinel{}
	for _, address := range target.Addresses {
		c := redis.NewSentinelClient(&redis.Options{
			Addr: address, Username: opts.SentinelUsername, Password: opts.SentinelPassword, Dialer: opts.Dialer, DialerRetries: 1, ContextTimeoutEnabled: true,
			MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		})
		known[address] = says(ctx, c, target.Master)
		_ = c.Close() // it was only asked
	}
	return known, nil
}

func says(ctx context.Context, c *redis.SentinelClient, master string) Sentinel {
	_, err := c.GetMasterAddrByName(ctx, master).Result()
	if errors.Is(err, redis.Nil) {
		return Sentinel{Err: fmt.Errorf("it knows no Redis called %q", master)}
	}
	if err != nil {
		return Sentinel{Err: err}
	}
	replicas, err := c.Replicas(ctx, master).Result()
	s := Sentinel{Err: err}
	for _, r := range replicas {
		if strings.Contains(r["flags"], "_down") || strings.Contains(r["flags"], "disconnected") {
			s.Away = append(s.Away, net.JoinHostPort(r["ip"], r["port"]))
		}
	}
	return s
}

// bound is the hook of a cluster's client: it bounds a command over all nodes that it is sent to, and says
// when none of them answered. Whether a node is asked its circuit decides.
type bound struct{ timeout time.Duration }

// DialHook leaves dialling alone.
func (bound) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook bounds one command.
func (b bound) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		inner, cancel := context.WithTimeout(ctx, b.timeout)
		defer cancel()
		return asUnavailable(next(inner, cmd))
	}
}

// ProcessPipelineHook bounds one pipeline.
func (b bound) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		inner, cancel := context.WithTimeout(ctx, b.timeout)
		defer cancel()
		err := next(inner, cmds)
		for _, cmd := range cmds { // nodes that answered have
			cmd.SetErr(asUnavailable(cmd.Err()))
		}
		return asUnavailable(err)
	}
}

// asUnavailable makes every failure that is none of Redis' answers ErrUnavailable.
func asUnavailable(err error) error {
	if !isOutage(err) || errors.Is(err, ErrUnavailable) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}
