package natsstore

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"devpilot.io/bitbucket/pkg/kv"
)

// EraseWorkspace deletes all records of a workspace: the webhooks first, so that nobody finds them while the rest
// goes, and what leads to the rest last, so that whoever dies on the way is followed by whoever begins again. It walks
// buckets by the workspace's prefix: nobody waits for it.
func (s *Store) EraseWorkspace(ctx context.Context, workspace string) error {
	b, err := s.buckets()
	if err != nil {
		return err
	}
	below := workspaceKey(workspace) + ".>"
	for _, part := range []struct {
		keys   iter.Seq2[string, error]
		remove func(ctx context.Context, key string, rev uint64) error
	}{
		{b.webhooks.Keys(ctx, below), b.webhooks.Delete},
		{b.ledgers.Keys(ctx, below), b.ledgers.Delete},
		{b.refused.Keys(ctx, below), b.refused.Delete},
		{b.pages.Keys(ctx, below), b.pages.Delete},
		{b.deliveries.Keys(ctx, below), b.deliveries.Delete},
		{b.index.Keys(ctx, kv.EncodeKey("n", workspace)+".>"), func(ctx context.Context, key string, rev uint64) error {
			at, _, err := b.index.Get(ctx, key)
			if err == nil {
				err = b.index.Delete(ctx, keyByID(at.GetWebhook()), 0)
			}
			if err != nil && !errors.Is(err, kv.ErrNotFound) {
				return err
			}
			return b.index.Delete(ctx, key, rev)
		}},
		{b.index.Keys(ctx, kv.EncodeKey("r", workspace)+".>"), b.index.Delete},
	} {
		for key, err := range part.keys {
			if err == nil {
				err = part.remove(ctx, key, 0)
			}
			if err != nil && !errors.Is(err, kv.ErrNotFound) {
				return fmt.Errorf("natsstore: erase workspace %s: %w", workspace, err)
			}
		}
	}
	if err := b.workspaces.Delete(ctx, workspaceKey(workspace), 0); err != nil && !errors.Is(err, kv.ErrNotFound) {
		return fmt.Errorf("natsstore: erase workspace %s: %w", workspace, err)
	}
	return nil
}
