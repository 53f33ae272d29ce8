package deployer

import (
	"context"
	"log/slog"

	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/services/deployer/internal/record/restored"
	"devpilot.io/bitbucket/services/deployer/internal/record/store"
)

// Settled says what SettleRestored did.
type Settled = restored.Settled

// SettleRestored makes the deployer's records, which were restored from a backup, fit each other, and has the workers look at what
// their data directories still hold when they start. No deployer may run meanwhile. It may be repeated. Records that the
// inventory has and the backup has not are a *kv.LossError.
func SettleRestored(ctx context.Context, js jetstream.JetStream, logger *slog.Logger) (*Settled, error) {
	st, err := store.Open(ctx, js, logger)
	if err != nil {
		return nil, err
	}
	return restored.Settle(ctx, st)
}
