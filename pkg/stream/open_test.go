package stream_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"

	"devpilot.io/bitbucket/pkg/stream"
)

func TestUntilOpen(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	logger := slog.New(slog.DiscardHandler)
	calls := 0
	if err := stream.UntilOpen(ctx, logger, func(context.Context) error {
		if calls++; calls < 3 {
			return errors.New("not yet")
		}
		return nil
	}); err != nil || calls != 3 {
		t.Errorf("after %d calls: %v", calls, err)
	}
	calls = 0
	if err := stream.UntilOpen(ctx, logger, func(context.Context) error {
		calls++
		return fmt.Errorf("lost: %w", stream.ErrPermanent)
	}); !errors.Is(err, stream.ErrPermanent) || calls != 1 {
		t.Errorf("what waiting does not mend was tried %d times: %v", calls, err)
	}
	if err := stream.UntilOpen(ctx, logger, func(context.Context) error {
		cancel()
		return errors.New("not yet")
	}); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end: %v", err)
	}
}
