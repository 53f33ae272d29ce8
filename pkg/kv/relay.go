package kv

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventsv1 "devpilot.io/bitbucket/proto/gen/devpilot/events/v1"

	"devpilot.io/bitbucket/pkg/stream"
)

// relayBatch is how many changes are published in one go.
const relayBatch = 256

// RelayConfig says whose changes to publish, and how to read the bucket's keys.
type RelayConfig struct {
	// Bucket is the bucket's name; its owner relays, nobody else.
	Bucket string
	// Service is the owner, as in the events' subjects.
	Service string
	// Durable names the consumer; "changes" when empty. Replicas of the owner share it.
	Durable string
	// Describe reads a key: which workspace it belongs to, what kind of record it is and the
	// record's id there. A key that is nobody else's business is not ok.
	Describe func(key string, deleted bool) (workspace, kind, id string, ok bool)
	// DescribeValue, when it is set, is asked instead of Describe about keys that hold a value:
	// for buckets whose keys do not tell the id.
	DescribeValue func(key string, value []byte) (workspace, kind, id string, ok bool)
	// Group, when it is set, says which keys are told of together: of those with the same group only
	// the newest change of a batch is told. Otherwise each key is told of for itself.
	Group func(key string) string
	// Every is the time from one batch of events to the next; what changes more often is told once
	// in it. The first change after a while is told at once.
	Every time.Duration
	// Position keeps the relay's place; see stream.ConsumeConfig.
	Position stream.Position
	// Logger is required; Metrics may be nil.
	Logger  *slog.Logger
	Metrics *stream.Metrics
}

// RelayChanges publishes a ChangeEvent for every change of a bucket, at least once and in the
// bucket's order, until ctx is done. Of changes to one record in quick succession only the last
// may be told. The durable consumer begins with the bucket, so that nothing stored before the first
// relay ran is missed: the record is the outbox (DESIGN.md#jetstream).
func RelayChanges(ctx context.Context, js jetstream.JetStream, cfg RelayConfig) error {
	if cfg.Describe == nil || cfg.Service == "" || cfg.Logger == nil {
		return errors.New("kv: RelayConfig needs Service, Describe and Logger")
	}
	if cfg.Durable == "" {
		cfg.Durable = "changes"
	}
	r := relay{cfg: cfg, js: js, prefix: subjectPrefix(cfg.Bucket)}
	return stream.Consume(ctx, stream.ConsumeConfig{
		JS: js, Stream: StreamName(cfg.Bucket), Durable: cfg.Durable,
		HandleBatch: func(work context.Context, ms []stream.Msg) error {
			if err := r.publish(work, ms); err != nil {
				return err
			}
			// Before the next batch is fetched, not with it in hand: then it is all that changed meanwhile.
			_ = sleep(ctx, cfg.Every) // cut short when we stop; this batch is told
			return nil
		},
		Batch: relayBatch, Position: cfg.Position,
		DeadLettersWithoutData: true, // the record has it, and may have to erase it
		Logger:                 cfg.Logger, Metrics: cfg.Metrics,
	})
}

type relay struct {
	cfg     RelayConfig
	js      jetstream.JetStream
	prefix  string
	ensured bool // only the one goroutine of Consume reads it
}

func (r *relay) publish(ctx context.Context, ms []stream.Msg) error {
	if !r.ensured {
		if _, err := stream.Ensure(ctx, r.js, stream.Events, stream.Options{Logger: r.cfg.Logger}); err != nil {
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		r.ensured = true
	}
	events := map[int]*nats.Msg{} // by place in the batch
	told := map[string]bool{}
	for i, m := range slices.Backward(ms) {
		if told[r.group(m)] {
			continue
		}
		msg, err := r.event(m)
		if err != nil {
			return err
		}
		if msg != nil || r.cfg.Group == nil { // in a group an older change may be to be told
			events[i], told[r.group(m)] = msg, true
		}
	}
	var acks []jetstream.PubAckFuture
	for i, m := range ms {
		if events[i] == nil {
			continue
		}
		ack, err := stream.PublishAsync(r.js, events[i], jetstream.WithMsgID(fmt.Sprintf("%s.%d", r.cfg.Bucket, m.Sequence)))
		if err != nil {
			return fmt.Errorf("%w: publish change events: %w", ErrUnavailable, err)
		}
		acks = append(acks, ack)
	}
	return awaitAcks(ctx, acks)
}

// group names what is told of together with a change.
func (r *relay) group(m stream.Msg) string {
	key := strings.TrimPrefix(m.Subject, r.prefix)
	if r.cfg.Group == nil {
		return key
	}
	return r.cfg.Group(key)
}

func awaitAcks(ctx context.Context, acks []jetstream.PubAckFuture) error {
	ctx, cancel := context.WithTimeout(ctx, 2*stream.PublishTimeout)
	defer cancel()
	for _, ack := range acks {
		select {
		case <-ack.Ok():
		case err := <-ack.Err():
			return fmt.Errorf("%w: publish change events: %w", ErrUnavailable, err)
		case <-ctx.Done():
			return fmt.Errorf("%w: publish change events: %w", ErrUnavailable, ctx.Err())
		}
	}
	return nil
}

// event is the message that tells of a change, or nil for one that is nobody else's business.
func (r *relay) event(m stream.Msg) (*nats.Msg, error) {
	key := strings.TrimPrefix(m.Subject, r.prefix)
	deleted := isMarker(m.Header)
	var workspace, kind, id string
	var ok bool
	if r.cfg.DescribeValue != nil && !deleted {
		workspace, kind, id, ok = r.cfg.DescribeValue(key, m.Data)
	} else {
		workspace, kind, id, ok = r.cfg.Describe(key, deleted)
	}
	if !ok {
		return nil, nil
	}
	subject, err := stream.EventSubject(r.cfg.Service, workspace, kind)
	if err != nil {
		return nil, stream.Parkf("key %q gives no event subject: %v", key, err)
	}
	data, err := proto.Marshal(&eventsv1.ChangeEvent{
		Service: r.cfg.Service, Workspace: workspace, Kind: kind, Id: id,
		Deleted: deleted, Time: timestamppb.New(m.Time), Revision: m.Sequence,
	})
	if err != nil {
		return nil, stream.Parkf("key %q: encode change event: %v", key, err)
	}
	msg := nats.NewMsg(subject)
	msg.Data = data
	return msg, nil
}
