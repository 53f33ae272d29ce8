package stream

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/cenkalti/backoff/v5"

	"devpilot.io/bitbucket/pkg/logs"
)

// How often a store is tried that is not there yet.
const (
	openFirst = 100 * time.Millisecond
	openMost  = 5 * time.Second
)

// UntilOpen calls open until it succeeds or ctx is done, which is its error then: in a cluster the
// services start together, and JetStream may come after us. ErrPermanent ends it: lost records and a
// store without room are not mended by waiting.
func UntilOpen(ctx context.Context, logger *slog.Logger, open func(context.Context) error) error {
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := open(ctx)
		if errors.Is(err, ErrPermanent) {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(Pauses(openFirst, openMost)), backoff.WithMaxElapsedTime(0), backoff.WithNotify(func(err error, next time.Duration) {
		logger.WarnContext(ctx, "stores not open yet", logs.Err(err), slog.Int64(logs.KeyRetryIn, next.Milliseconds()))
	}))
	if ctx.Err() != nil && !errors.Is(err, ErrPermanent) {
		return ctx.Err()
	}
	return err
}

// Pauses double from first to most, each more or less by up to a quarter at random, so that those who
// failed together do not come again together.
func Pauses(first, most time.Duration) *backoff.ExponentialBackOff {
	return &backoff.ExponentialBackOff{InitialInterval: first, MaxInterval: most, Multiplier: 2, RandomizationFactor: 0.25}
}
