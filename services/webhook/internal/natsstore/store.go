package natsstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/stream"
	kvstorev1 "devpilot.io/bitbucket/proto/gen/devpilot/kv/store/v1"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
	"devpilot.io/bitbucket/services/webhook/internal/inbox"
)

// The buckets.
const (
	WebhooksBucket   = "webhook-webhooks"
	indexBucket      = "webhook-index"
	workspacesBucket = "webhook-workspaces"
	ledgersBucket    = "webhook-ledgers"
	PagesBucket      = "webhook-pages"
	DeliveriesBucket = "webhook-deliveries"
	positionsBucket  = "webhook-positions"
	RefusedBucket    = "webhook-refused"
)

// Buckets are all buckets of Store.
func Buckets() []string {
	return []string{
		WebhooksBucket, indexBucket, workspacesBucket, ledgersBucket, PagesBucket, DeliveriesBucket, positionsBucket, RefusedBucket, "webhook-inventory",
	}
}

// How many deliveries a page holds, and how many pages are kept: enough for KeptDeliveries while the
// newest page is not full. Changing either makes deliveries stored before unfindable.
const (
	PageDeliveries = 50
	keptPages      = KeptDeliveries/PageDeliveries + 1
)

// KeptDeliveries is how many deliveries of a webhook are kept: number n takes the place of number
// n-KeptDeliveries. Changing it makes deliveries stored before unfindable.
const KeptDeliveries = 1000

type (
	// Webhooks is the bucket of webhooks.
	Webhooks = kv.Bucket[storev1.WebhookRecord, *storev1.WebhookRecord]

	index      = kv.Bucket[storev1.IndexRecord, *storev1.IndexRecord]
	workspaces = kv.Bucket[storev1.WorkspaceRecord, *storev1.WorkspaceRecord]
	ledgers    = kv.Bucket[storev1.LedgerRecord, *storev1.LedgerRecord]
	pages      = kv.Bucket[storev1.DeliveryPage, *storev1.DeliveryPage]
	deliveries = kv.Bucket[storev1.DeliveryRecord, *storev1.DeliveryRecord]
	refused    = kv.Bucket[storev1.RefusedRecord, *storev1.RefusedRecord]
)

type buckets struct {
	webhooks   *Webhooks
	index      *index
	workspaces *workspaces
	ledgers    *ledgers
	pages      *pages
	deliveries *deliveries
	positions  *kv.Positions
	refused    *refused
	inbox      jetstream.Stream
	copies     *copies
}

// Store is safe for concurrent use. Before Open has succeeded every method fails with
// kv.ErrUnavailable.
type Store struct {
	js      jetstream.JetStream
	log     *slog.Logger
	metrics *kv.Metrics
	open    atomic.Pointer[buckets]

	onWebhook func(key string, rec *storev1.WebhookRecord) // may be nil
}

// New makes a store; it does no I/O. metrics, of its copies, may be nil.
func New(js jetstream.JetStream, log *slog.Logger, metrics *kv.Metrics) *Store {
	return &Store{js: js, log: log, metrics: metrics}
}

// Open makes or finds the streams and buckets. It may be repeated until it succeeds.
func (s *Store) Open(ctx context.Context) error {
	if s.open.Load() != nil {
		return nil
	}
	var b buckets
	var err error
	opts := stream.Options{Logger: s.log}
	if b.inbox, err = stream.Ensure(ctx, s.js, inbox.Definition, opts); err != nil {
		return err
	}
	// Consumers of change events and push events may start in any order with us.
	for _, def := range []stream.Definition{stream.Pushes, stream.Events} {
		if _, err = stream.Ensure(ctx, s.js, def, opts); err != nil {
			return err
		}
	}
	cfg := func(name string) kv.Config {
		return kv.Config{Name: name, Version: 1, Logger: s.log}
	}
	// What nothing can fill again has an inventory, so that a loss is noticed. Deliveries are
	// history, and far too many.
	kept := func(name string) kv.Config {
		c := cfg(name)
		c.Inventory = "webhook"
		return c
	}
	var errs [8]error
	b.webhooks, errs[0] = kv.Open[storev1.WebhookRecord](ctx, s.js, WebhooksConfig(s.log))
	b.index, errs[1] = kv.Open[storev1.IndexRecord](ctx, s.js, kept(indexBucket))
	b.workspaces, errs[2] = kv.Open[storev1.WorkspaceRecord](ctx, s.js, kept(workspacesBucket))
	b.ledgers, errs[3] = kv.Open[storev1.LedgerRecord](ctx, s.js, kept(ledgersBucket))
	b.deliveries, errs[4] = kv.Open[storev1.DeliveryRecord](ctx, s.js, cfg(DeliveriesBucket))
	b.refused, errs[5] = kv.Open[storev1.RefusedRecord](ctx, s.js, cfg(RefusedBucket))
	b.pages, errs[6] = kv.Open[storev1.DeliveryPage](ctx, s.js, cfg(PagesBucket))
	b.positions, errs[7] = kv.Open[kvstorev1.StreamPosition](ctx, s.js, kept(positionsBucket))
	if err := errors.Join(errs[:]...); err != nil {
		return fmt.Errorf("natsstore: open: %w", err)
	}
	b.copies = newCopies(&b, s.onWebhook, s.metrics)
	s.open.Store(&b)
	return nil
}

// WebhooksConfig is how the bucket of webhooks is opened.
func WebhooksConfig(logger *slog.Logger) kv.Config {
	return kv.Config{Name: WebhooksBucket, Version: 1, Inventory: "webhook", Logger: logger}
}

// Intact is nil, or says which records were found lost.
func (s *Store) Intact() error {
	b, err := s.buckets()
	if err != nil {
		return err
	}
	return errors.Join(b.webhooks.Intact(), b.index.Intact(), b.workspaces.Intact(), b.ledgers.Intact(), b.positions.Intact())
}

func (s *Store) buckets() (*buckets, error) {
	b := s.open.Load()
	if b == nil {
		return nil, fmt.Errorf("%w: the buckets are not open yet", kv.ErrUnavailable)
	}
	return b, nil
}

// WebhookKey is the key of a webhook, also of its ledger and its refused requests.
func WebhookKey(workspace, id string) string { return kv.EncodeKey(workspace, id) }
