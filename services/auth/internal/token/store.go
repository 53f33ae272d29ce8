package token

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/stream"
	authstorev1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/store/v1"
	"devpilot.io/bitbucket/services/auth/internal/rotation"
)

// Step 4: a result is stored in the record as it is by then.

// stored is the record after a write: nil when it is gone.
type stored struct {
	rec *authstorev1.Integration
	rev uint64
	out rotation.Outcome
}

const (
	storeTries = 8                     // tries of a write that may be given up
	storeFirst = 10 * time.Millisecond // before the second try to store a result
)

// store writes what decide makes of the record as it is, by compare-and-set, again from the start
// while others win or the store is away: until abort is closed, or with nil a few times.
func (m *Manager) store(ctx context.Context, ws string, abort <-chan struct{}, decide func(*authstorev1.Integration) (*authstorev1.Integration, rotation.Outcome)) (stored, error) {
	pauses := stream.Pauses(storeFirst, m.time.MaxPoll)
	for try := 1; ; try++ {
		cur, rev, err := m.getRev(ctx, ws)
		if err == nil {
			next, out := decide(cur)
			if next == nil {
				return stored{cur, rev, out}, nil
			}
			if rev, err = m.cfg.Integrations.CompareAndSet(ctx, ws, next, rev); err == nil {
				return stored{next, rev, out}, nil
			}
		}
		contended := errors.Is(err, kv.ErrConflict) || errors.Is(err, kv.ErrNotFound)
		if !contended && !errors.Is(err, kv.ErrUnavailable) || abort == nil && try == storeTries {
			return stored{}, fmt.Errorf("store the result of a token refresh of workspace %s: %w", ws, err)
		}
		if !contended && try == 1 {
			m.cfg.Logger.WarnContext(ctx, "the result of a token refresh waits for the store", slog.String(logs.KeyWorkspace, ws), logs.Err(err))
		}
		if m.rest(pauses.NextBackOff(), abort) != nil {
			return stored{}, fmt.Errorf("store the result of a token refresh of workspace %s before the process ended: %w", ws, err)
		}
	}
}
