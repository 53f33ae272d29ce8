package kv

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/types/known/timestamppb"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/kv/store/v1"
)

// Positions is a bucket of positions of consumers.
type Positions = Bucket[storev1.StreamPosition, *storev1.StreamPosition]

// ConsumerPosition keeps the position of one consumer in a bucket; it is a stream.Position.
type ConsumerPosition struct {
	Bucket *Positions
	Key    string
}

// Load implements stream.Position.
func (p ConsumerPosition) Load(ctx context.Context, made time.Time) (uint64, error) {
	rec, _, err := p.Bucket.Get(ctx, p.Key)
	switch {
	case errors.Is(err, ErrNotFound):
		return 0, nil
	case err != nil:
		return 0, err
	case !rec.GetStreamCreateTime().AsTime().Equal(made):
		return 0, nil
	}
	return rec.GetSequence(), nil
}

// Save implements stream.Position.
func (p ConsumerPosition) Save(ctx context.Context, made time.Time, sequence uint64, cutBack bool) error {
	_, _, err := p.Bucket.Update(ctx, p.Key, func(cur *storev1.StreamPosition) (*storev1.StreamPosition, error) {
		if cur != nil && cur.GetStreamCreateTime().AsTime().Equal(made) && (cur.GetSequence() == sequence || cur.GetSequence() > sequence && !cutBack) {
			return nil, ErrSkip
		}
		return &storev1.StreamPosition{StreamCreateTime: timestamppb.New(made), Sequence: sequence}, nil
	})
	return err
}

// MovePositions makes the positions of a bucket count for streams that were made again with the same sequences, by when they were made before.
func MovePositions(ctx context.Context, js jetstream.JetStream, cfg Config, made map[time.Time]time.Time) error {
	bucket, err := Open[storev1.StreamPosition](ctx, js, cfg)
	if err != nil {
		return err
	}
	moved := map[int64]time.Time{}
	for before, now := range made {
		moved[before.UnixNano()] = now
	}
	return bucket.Each(ctx, ">", func(key string, p *storev1.StreamPosition, rev uint64) error {
		now, found := moved[p.GetStreamCreateTime().AsTime().UnixNano()]
		if !found {
			return nil
		}
		_, err := bucket.CompareAndSet(ctx, key, &storev1.StreamPosition{StreamCreateTime: timestamppb.New(now), Sequence: p.GetSequence()}, rev)
		return err
	})
}
