package natsstore

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"devpilot.io/bitbucket/pkg/kv"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
)

// copies are what people are shown webhooks from (pkg/kv, "Reads from memory"); they decide nothing.
type copies struct {
	webhooks *kv.Copy[storev1.WebhookRecord, *storev1.WebhookRecord]
	index    *kv.Copy[storev1.IndexRecord, *storev1.IndexRecord]
	ledgers  *kv.Copy[storev1.LedgerRecord, *storev1.LedgerRecord]
	refused  *kv.Copy[storev1.RefusedRecord, *storev1.RefusedRecord]
}

// webhooksCopyBytes is how much memory the copy of all webhooks may take, besides the decoded records.
const webhooksCopyBytes = 256 << 20

func newCopies(b *buckets, onWebhook func(key string, rec *storev1.WebhookRecord), metrics *kv.Metrics) *copies {
	return &copies{
		webhooks: kv.NewCopy(b.webhooks, kv.CopyConfig[*storev1.WebhookRecord]{MaxBytes: webhooksCopyBytes, Decoded: onWebhook, Metrics: metrics}),
		index:    kv.NewCopy(b.index, kv.CopyConfig[*storev1.IndexRecord]{Metrics: metrics}),
		ledgers:  kv.NewCopy(b.ledgers, kv.CopyConfig[*storev1.LedgerRecord]{Metrics: metrics}),
		refused:  kv.NewCopy(b.refused, kv.CopyConfig[*storev1.RefusedRecord]{Metrics: metrics}),
	}
}

// RunCopies keeps in memory what people are shown, until ctx is done. The store is open. Reads work
// before, and without it, from the leader.
func (s *Store) RunCopies(ctx context.Context) error {
	b, err := s.buckets()
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, run := range []func(context.Context) error{b.copies.webhooks.Run, b.copies.index.Run, b.copies.ledgers.Run, b.copies.refused.Run} {
		g.Go(func() error { return run(ctx) })
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("natsstore: keep copies: %w", err)
	}
	return nil
}

// OnWebhook has fn called with each webhook that RunCopies sees new or changed, one call at a time, and with
// nil for one that is gone. fn must not block. Call it before Open.
func (s *Store) OnWebhook(fn func(key string, rec *storev1.WebhookRecord)) { s.onWebhook = fn }

// WebhooksKnown is nil once RunCopies has seen all webhooks.
func (s *Store) WebhooksKnown() error {
	b, err := s.buckets()
	if err != nil {
		return err
	}
	return b.copies.webhooks.Held()
}

// Lately reads a webhook as it was a moment ago, with what this process wrote: for work that would have been
// done as well that moment ago. One that the copy does not have is asked of the leader.
func (s *Store) Lately(ctx context.Context, workspace, id string) (*storev1.WebhookRecord, error) {
	b, err := s.buckets()
	if err != nil {
		return nil, err
	}
	return latelyOr(ctx, b.copies.webhooks, b.webhooks, WebhookKey(workspace, id))
}

// LatelyByRepository is Lately of the webhook of a repository.
func (s *Store) LatelyByRepository(ctx context.Context, workspace, repository string) (*storev1.WebhookRecord, error) {
	b, err := s.buckets()
	if err != nil {
		return nil, err
	}
	at, err := latelyOr(ctx, b.copies.index, b.index, keyByRepository(workspace, repository))
	if err != nil {
		return nil, err
	}
	return latelyOr(ctx, b.copies.webhooks, b.webhooks, WebhookKey(workspace, at.GetWebhook()))
}

// latelyOr reads from a copy, and what it does not have from the leader.
func latelyOr[T any, P kv.Message[T]](ctx context.Context, c *kv.Copy[T, P], bucket *kv.Bucket[T, P], key string) (P, error) {
	view, err := c.AtLeast(ctx, 0)
	if err != nil {
		return nil, err
	}
	rec, _, err := view.Get(ctx, key)
	if errors.Is(err, kv.ErrNotFound) {
		rec, _, err = bucket.Get(ctx, key)
	}
	return rec, err
}

// Shown reads the webhooks of some repositories, as they are now; those that have none are left out. The
// leader is asked once how far the webhooks are. An index entry never changes: only one that the copy
// does not have makes it ask for more.
func (s *Store) Shown(ctx context.Context, workspace string, repositories []string) ([]*storev1.WebhookRecord, error) {
	b, err := s.buckets()
	if err != nil {
		return nil, err
	}
	webhooks, err := b.copies.webhooks.Fresh(ctx)
	if err != nil {
		return nil, err
	}
	index, err := b.copies.index.AtLeast(ctx, 0)
	if err != nil {
		return nil, err
	}
	fresh := false
	recs := make([]*storev1.WebhookRecord, 0, len(repositories))
	for _, repository := range repositories {
		key := keyByRepository(workspace, repository)
		at, _, err := index.Get(ctx, key)
		if errors.Is(err, kv.ErrNotFound) && !fresh {
			if index, err = b.copies.index.Fresh(ctx); err != nil {
				return nil, err
			}
			fresh = true
			at, _, err = index.Get(ctx, key)
		}
		var rec *storev1.WebhookRecord
		if err == nil {
			rec, _, err = webhooks.Get(ctx, WebhookKey(workspace, at.GetWebhook()))
		}
		switch {
		case errors.Is(err, kv.ErrNotFound):
		case err != nil:
			return nil, err
		default:
			recs = append(recs, rec)
		}
	}
	return recs, nil
}

// All reads the webhooks of a workspace, as they are now.
func (s *Store) All(ctx context.Context, workspace string) ([]*storev1.WebhookRecord, error) {
	b, err := s.buckets()
	if err != nil {
		return nil, err
	}
	view, err := b.copies.webhooks.Fresh(ctx)
	if err != nil {
		return nil, err
	}
	keys, err := view.Keys(ctx, kv.EncodeKey(workspace)+".", "", 0)
	if err != nil {
		return nil, err
	}
	recs := make([]*storev1.WebhookRecord, 0, len(keys))
	for _, key := range keys {
		rec, _, err := view.Get(ctx, key)
		switch {
		case errors.Is(err, kv.ErrNotFound):
		case err != nil:
			return nil, err
		default:
			recs = append(recs, rec)
		}
	}
	return recs, nil
}

// LatelyRefused reads a webhook's refused requests, as Stand does.
func (s *Store) LatelyRefused(ctx context.Context, workspace, webhook string) (*storev1.RefusedRecord, error) {
	b, err := s.buckets()
	if err != nil {
		return nil, err
	}
	return lately(ctx, b.copies.refused, WebhookKey(workspace, webhook))
}

// Stand reads a webhook's ledger and its refused requests, empty records where there are none. Both are
// written after the requests that they tell of were answered, so that nobody waits for them: what
// another process wrote may come a moment later.
func (s *Store) Stand(ctx context.Context, workspace, webhook string) (*storev1.LedgerRecord, *storev1.RefusedRecord, error) {
	b, err := s.buckets()
	if err != nil {
		return nil, nil, err
	}
	key := WebhookKey(workspace, webhook)
	ledger, err := lately(ctx, b.copies.ledgers, key)
	if err != nil {
		return nil, nil, err
	}
	ring, err := lately(ctx, b.copies.refused, key)
	return ledger, ring, err
}

func lately[T any, P kv.Message[T]](ctx context.Context, c *kv.Copy[T, P], key string) (P, error) {
	view, err := c.AtLeast(ctx, 0)
	if err != nil {
		return nil, err
	}
	rec, _, err := view.Get(ctx, key)
	if errors.Is(err, kv.ErrNotFound) {
		return new(T), nil
	}
	return rec, err
}
