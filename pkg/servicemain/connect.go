package servicemain

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/redis/go-redis/v9"

	"devpilot.io/bitbucket/pkg/installation"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/lifecycle"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/redisx"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/stream"
)

// connectLimit bounds the attempts to reach a store at start.
const connectLimit = 60 * time.Second

// ConnectNATS connects, trying for a minute with growing pauses, and logs when the connection is
// lost and found again. The URL stays out of errors and logs.
func ConnectNATS(ctx context.Context, target seal.Secret, name string, settings stream.Settings, logger *slog.Logger, refused *Refusals, extra ...nats.Option) (*nats.Conn, *kv.Session, error) {
	type connected struct {
		nc *nats.Conn
		js jetstream.JetStream
	}
	c, err := retry(ctx, logger, "NATS", func() (connected, error) {
		nc, js, err := stream.Connect(target.Reveal(), name, slices.Concat(NATSLogging(logger, refused), settings.Installation.ConnectOptions(name, name), extra)...)
		if err != nil {
			return connected{}, NATSTrouble(withoutURL(err))
		}
		return connected{nc, js}, nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("cannot connect to NATS at DEVPILOT_NATS_URL: %w", err)
	}
	return c.nc, kv.NewSession(c.js, settings), nil
}

// NATSLogging logs what happens to a connection, and remembers what NATS does not let it do.
func NATSLogging(logger *slog.Logger, refused *Refusals) []nats.Option {
	return []nats.Option{
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil { // nil: we closed it
				logger.Warn("nats disconnected", logs.Err(err))
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			logger.Info("nats connected again", slog.String(logs.KeyAddr, nc.ConnectedAddr()))
		}),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			if errors.Is(err, nats.ErrPermissionViolation) {
				refused.note(err, logger)
				return
			}
			attrs := []any{logs.Err(err)}
			if sub != nil {
				attrs = append(attrs, slog.String(logs.KeyNATSSubject, sub.Subject))
			}
			logger.Warn("nats error", attrs...)
		}),
	}
}

// ConnectRedis makes the client, whose keys begin with the installation's name. Redis holds only what may be lost, so a Redis that does not answer
// is a warning and not a reason not to start.
func ConnectRedis(ctx context.Context, stores StoreFlags, plain PlaintextFlags, name stream.Installation, logger *slog.Logger) (redis.UniversalClient, error) {
	client, err := stores.OpenRedis(plain)
	if err != nil {
		return nil, err
	}
	redisx.Prefix(client, string(name))
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := client.Ping(ctx).Err(); err != nil {
		logger.Warn("redis does not answer; going on without it", logs.Err(err))
	}
	return client, nil
}

// installationLimit bounds the wait for JetStream, which may come after us.
const installationLimit = time.Hour

// Installation is the part of a process that keeps it from working with another installation's stores. of
// is asked when the stores are connected.
func Installation(of func() installation.Config) lifecycle.Component {
	var i *installation.Installation
	return lifecycle.Component{
		Name: "installation", StartTimeout: installationLimit,
		Start: func(ctx context.Context) (err error) {
			i, err = installation.Open(ctx, of())
			return err
		},
		Run:   func(ctx context.Context) error { return i.Run(ctx) },
		Ready: func(ctx context.Context) error { return i.Ready(ctx) },
	}
}

func retry[T any](ctx context.Context, logger *slog.Logger, what string, f func() (T, error)) (T, error) {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = 200*time.Millisecond, 2*time.Second
	attempt := 0
	return backoff.Retry(ctx, f, backoff.WithBackOff(b), backoff.WithMaxElapsedTime(connectLimit),
		backoff.WithNotify(func(err error, next time.Duration) {
			attempt++
			logger.Warn("cannot connect yet", slog.String(logs.KeyComponent, what), slog.Int(logs.KeyAttempt, attempt),
				slog.Int64(logs.KeyRetryIn, next.Milliseconds()), logs.Err(err))
		}))
}

// withoutURL takes the URL, which can hold a password, out of a parse error.
func withoutURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return fmt.Errorf("not a URL: %w", u.Err)
	}
	return err
}
