package natsstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/stream"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
	"devpilot.io/bitbucket/services/webhook/internal/inbox"
)

// ErrBodyGone says that the inbox no longer holds a delivery's body.
var ErrBodyGone = errors.New("natsstore: the delivery's body is no longer kept")

// Ledger reads a webhook's ledger; an empty one when nothing was delivered yet.
func (s *Store) Ledger(ctx context.Context, workspace, webhook string) (*storev1.LedgerRecord, error) {
	b, err := s.buckets()
	if err != nil {
		return nil, err
	}
	rec, _, err := b.ledgers.Get(ctx, WebhookKey(workspace, webhook))
	if errors.Is(err, kv.ErrNotFound) {
		return &storev1.LedgerRecord{}, nil
	}
	return rec, err
}

// UpdateLedger changes a webhook's ledger by compare-and-set.
func (s *Store) UpdateLedger(ctx context.Context, workspace, webhook string, change func(*storev1.LedgerRecord) error) error {
	b, err := s.buckets()
	if err != nil {
		return err
	}
	_, _, err = b.ledgers.Update(ctx, WebhookKey(workspace, webhook), func(cur *storev1.LedgerRecord) (*storev1.LedgerRecord, error) {
		if cur == nil {
			cur = &storev1.LedgerRecord{}
		}
		return cur, change(cur)
	})
	return err
}

// Refused reads the ring of a webhook's refused requests; an empty one when there were none.
func (s *Store) Refused(ctx context.Context, workspace, webhook string) (*storev1.RefusedRecord, error) {
	b, err := s.buckets()
	if err != nil {
		return nil, err
	}
	rec, _, err := b.refused.Get(ctx, WebhookKey(workspace, webhook))
	if errors.Is(err, kv.ErrNotFound) {
		return &storev1.RefusedRecord{}, nil
	}
	return rec, err
}

// UpdateRefused changes the ring of a webhook's refused requests by compare-and-set.
func (s *Store) UpdateRefused(ctx context.Context, workspace, webhook string, change func(*storev1.RefusedRecord) error) error {
	b, err := s.buckets()
	if err != nil {
		return err
	}
	_, _, err = b.refused.Update(ctx, WebhookKey(workspace, webhook), func(cur *storev1.RefusedRecord) (*storev1.RefusedRecord, error) {
		if cur == nil {
			cur = &storev1.RefusedRecord{}
		}
		return cur, change(cur)
	})
	return err
}

// InboxDelivery reads a delivery as it came, while the inbox keeps it, else ErrBodyGone.
func (s *Store) InboxDelivery(ctx context.Context, sequence uint64, place int32) (*storev1.InboxDelivery, error) {
	b, err := s.buckets()
	if err != nil {
		return nil, err
	}
	m, err := b.inbox.GetMsg(ctx, sequence)
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return nil, ErrBodyGone
	case err != nil:
		return nil, fmt.Errorf("%w: read the inbox: %w", kv.ErrUnavailable, err)
	}
	var pack storev1.InboxPack
	if err := proto.Unmarshal(m.Data, &pack); err != nil {
		return nil, fmt.Errorf("natsstore: inbox message %d: %w", sequence, err)
	}
	if place < 0 || int(place) >= len(pack.GetDeliveries()) {
		return nil, ErrBodyGone
	}
	return pack.GetDeliveries()[place], nil
}

// consumer asks for the state of a consumer of the inbox; nil when there is none.
func (s *Store) consumer(ctx context.Context, durable string) (*jetstream.ConsumerInfo, error) {
	names := stream.InstallationOf(s.js)
	c, err := s.js.Consumer(ctx, names.Stream(inbox.Stream), names.Stream(durable))
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: ask for the inbox's consumer: %w", kv.ErrUnavailable, err)
	}
	return c.CachedInfo(), nil // asked for just now
}

// InboxUsage tells how full the inbox is, how far consumer durable has acknowledged it, and where
// it begins and ends.
func (s *Store) InboxUsage(ctx context.Context, durable string) (u InboxUsage, err error) {
	b, err := s.buckets()
	if err != nil {
		return u, err
	}
	info, err := b.inbox.Info(ctx)
	if err != nil {
		return u, fmt.Errorf("%w: ask for the inbox: %w", kv.ErrUnavailable, err)
	}
	u.Bytes, u.MaxBytes = info.State.Bytes, info.Config.MaxBytes
	u.First, u.Last = info.State.FirstSeq, info.State.LastSeq
	c, err := s.consumer(ctx, durable)
	if err != nil || c == nil {
		return u, err
	}
	u.Routed, u.Pending = c.AckFloor.Stream, c.NumPending
	return u, nil
}

// InboxUsage is how the inbox stands.
type InboxUsage struct {
	Bytes    uint64
	MaxBytes int64  // -1: no limit
	First    uint64 // sequence of the oldest message
	Last     uint64 // sequence of the newest
	Routed   uint64 // every message up to this one has been acknowledged
	Pending  uint64 // messages not handed to a router yet
}

// PurgeInbox deletes all messages before a sequence.
func (s *Store) PurgeInbox(ctx context.Context, before uint64) error {
	b, err := s.buckets()
	if err != nil {
		return err
	}
	if err := b.inbox.Purge(ctx, jetstream.WithPurgeSequence(before)); err != nil {
		return fmt.Errorf("natsstore: purge the inbox: %w", err)
	}
	return nil
}

// Position keeps how far a consumer of this service has come.
func (s *Store) Position(name string) stream.Position { return position{s, name} }

type position struct {
	store *Store
	name  string
}

func (p position) at() (kv.ConsumerPosition, error) {
	b, err := p.store.buckets()
	if err != nil {
		return kv.ConsumerPosition{}, err
	}
	return kv.ConsumerPosition{Bucket: b.positions, Key: kv.EncodeKey(p.name)}, nil
}

// Load implements stream.Position.
func (p position) Load(ctx context.Context, made time.Time) (uint64, error) {
	at, err := p.at()
	if err != nil {
		return 0, err
	}
	return at.Load(ctx, made)
}

// Save implements stream.Position.
func (p position) Save(ctx context.Context, made time.Time, sequence uint64, cutBack bool) error {
	at, err := p.at()
	if err != nil {
		return err
	}
	return at.Save(ctx, made, sequence, cutBack)
}

// RoutedUpTo is the sequence up to which no message of the inbox comes again: a consumer that is
// made anew begins behind it.
func (s *Store) RoutedUpTo(ctx context.Context, durable string) (uint64, error) {
	b, err := s.buckets()
	if err != nil {
		return 0, err
	}
	return s.Position(durable).Load(ctx, b.inbox.CachedInfo().Created)
}
