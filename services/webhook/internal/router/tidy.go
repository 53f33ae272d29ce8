package router

import (
	"context"
	"log/slog"
	"time"

	"devpilot.io/bitbucket/pkg/logs"
)

const (
	tidyEvery = 30 * time.Second // between two checks of what the inbox may forget
	// crowded is how full the inbox may be before bodies of routed deliveries go ahead of their
	// time: a full inbox refuses new deliveries, and those matter more than replaying old ones.
	crowded = 0.75
)

// tidyLoop watches how full the inbox is.
func (r *Router) tidyLoop(ctx context.Context) error {
	t := time.NewTicker(tidyEvery)
	defer t.Stop()
	for {
		if err := r.tidy(ctx); err != nil && ctx.Err() == nil {
			r.cfg.Logger.WarnContext(ctx, "inbox not tidied", logs.Err(err))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

// tidy deletes the older half of the routed messages when the inbox is crowded.
func (r *Router) tidy(ctx context.Context) error {
	u, err := r.cfg.Store.InboxUsage(ctx, Durable)
	if err != nil {
		return err
	}
	r.pending.Set(float64(u.Pending))
	if u.MaxBytes <= 0 {
		return nil
	}
	filled := float64(u.Bytes) / float64(u.MaxBytes)
	r.filled.Set(filled)
	if filled < crowded || u.Routed <= u.First {
		return nil
	}
	before := u.First + (u.Routed-u.First+1)/2
	r.cfg.Logger.WarnContext(ctx, "inbox crowded, dropping bodies of old deliveries that were routed",
		slog.Int64(logs.KeyCount, int64(before-u.First)), slog.Float64("filled", filled))
	return r.cfg.Store.PurgeInbox(ctx, before)
}
