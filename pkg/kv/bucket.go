package kv

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/stream"
)

// Config describes a bucket.
type Config struct {
	// Name of the bucket, letters, digits, '_' and '-'; the stream is KV_<name>.
	Name string
	// Version of these settings; lower never overwrites higher (stream.Ensure). 1 when zero.
	Version int
	// MaxBytes bounds the bucket; a full one refuses writes. Unbounded when zero.
	MaxBytes int64
	// SecureErase overwrites replaced and deleted values on disk. Every write then costs one
	// more round trip. On a replicated bucket the servers' Raft logs keep a copy of a value
	// until they are compacted; what must not be read there is encrypted before it gets here.
	SecureErase bool
	// TTL lets Create give keys a time to live. Such a bucket refuses updates (ErrCreateOnly).
	TTL bool
	// Inventory names the service whose bucket <Inventory>-inventory keeps a list of this
	// bucket's keys, so that records which a damaged file takes away are missed: Open and every
	// read of such a key then answer a *LossError. Empty: no list is kept; for buckets that can
	// be filled again, and those with TTL.
	Inventory string
	// Logger hears of leftovers that could not be erased; nil discards.
	Logger *slog.Logger
}

// Message is what a Bucket holds: T is the generated struct, P its pointer.
type Message[T any] interface {
	*T
	proto.Message
}

// Bucket holds values of one message type. It is safe for concurrent use.
type Bucket[T any, P Message[T]] struct{ s *store }

// Open creates the bucket or brings its settings up to date, and returns it. With SecureErase it
// first erases replaced values that a process left behind when it died between write and erase.
// With an Inventory it compares the bucket with it: a *LossError says that records were lost.
func Open[T any, P Message[T]](ctx context.Context, js jetstream.JetStream, cfg Config) (*Bucket[T, P], error) {
	s, err := openStore(ctx, js, cfg)
	if err != nil {
		return nil, err
	}
	return &Bucket[T, P]{s}, nil
}

// Name is the bucket's name.
func (b *Bucket[T, P]) Name() string { return b.s.cfg.Name }

// StreamName is the name of the stream behind the bucket.
func (b *Bucket[T, P]) StreamName() string { return StreamName(b.s.cfg.Name) }

// Intact is nil, or the *LossError that a read has met.
func (b *Bucket[T, P]) Intact() error {
	if b.s.inventory == nil {
		return nil
	}
	if loss := b.s.inventory.lost.Load(); loss != nil {
		return loss
	}
	return nil
}

// Get returns the value of key and its revision, or ErrNotFound.
func (b *Bucket[T, P]) Get(ctx context.Context, key string) (P, uint64, error) {
	data, rev, err := b.s.get(ctx, key)
	if err != nil {
		return nil, 0, err
	}
	return b.decode(key, data, rev)
}

func (b *Bucket[T, P]) decode(key string, data []byte, rev uint64) (P, uint64, error) {
	v := P(new(T))
	if err := proto.Unmarshal(data, v); err != nil {
		return nil, 0, fmt.Errorf("kv: decode %s/%s at revision %d: %w", b.s.cfg.Name, key, rev, err)
	}
	return v, rev, nil
}

func (b *Bucket[T, P]) encode(key string, v P) ([]byte, error) {
	if v == nil {
		return nil, fmt.Errorf("kv: encode %s/%s: no value", b.s.cfg.Name, key)
	}
	data, err := proto.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("kv: encode %s/%s: %w", b.s.cfg.Name, key, err)
	}
	return data, nil
}

// CreateOption changes how Create stores a value.
type CreateOption func(*createOptions)

type createOptions struct{ ttl time.Duration }

// TTL makes the key disappear after d, whole seconds, one at least. Only buckets opened with
// Config.TTL take it.
func TTL(d time.Duration) CreateOption { return func(o *createOptions) { o.ttl = d } }

// Create stores the value under a key that holds none, and returns the revision; else ErrExists.
func (b *Bucket[T, P]) Create(ctx context.Context, key string, v P, opts ...CreateOption) (uint64, error) {
	var o createOptions
	for _, opt := range opts {
		opt(&o)
	}
	data, err := b.encode(key, v)
	if err != nil {
		return 0, err
	}
	return b.s.create(ctx, key, data, o.ttl)
}

// CompareAndSet replaces the value when its revision is still rev, and returns the new revision;
// else ErrConflict. Revision 0 stands for a key that never held a value. In a SecureErase bucket
// it is CompareAndSetErasing.
func (b *Bucket[T, P]) CompareAndSet(ctx context.Context, key string, v P, rev uint64) (uint64, error) {
	data, err := b.encode(key, v)
	if err != nil {
		return 0, err
	}
	return b.s.compareAndSet(ctx, key, data, rev)
}

// CompareAndSetErasing is CompareAndSet that also overwrites the replaced value on disk. The
// bucket must have SecureErase. An erase that fails is logged, not returned, because the write has
// happened: the next write of the key, or the next Open, repeats it.
func (b *Bucket[T, P]) CompareAndSetErasing(ctx context.Context, key string, v P, rev uint64) (uint64, error) {
	if !b.s.cfg.SecureErase {
		return 0, fmt.Errorf("kv: bucket %s does not erase", b.s.cfg.Name)
	}
	return b.CompareAndSet(ctx, key, v, rev)
}

const (
	// updateTries bounds Update. With the pauses below, losing this often takes seconds of
	// constant contention on one key.
	updateTries     = 100
	updateFirstWait = 2 * time.Millisecond   // before the second try of an update
	updateMaxWait   = 200 * time.Millisecond // between two tries of an update at most
)

// Update loads the value, or nil when there is none, has fn change it, and stores it by
// compare-and-set, again from the start while others win. fn therefore may run several times: it
// must have no effects of its own. It may change cur in place and return it. It returns ErrSkip to
// leave the record alone: Update then returns the record (nil when there is none) and its
// revision, and no error. Any other error of fn ends Update and is returned as it is.
//
// What this process wrote itself lately is not asked for again: fn may first be given that, although
// somebody has replaced it since. The store then refuses what fn makes of it; and where fn stores nothing,
// it is called once more with what the leader has. Updates of one key through one bucket wait for each
// other, so that they meet what the one before wrote, and conflict only with those of other processes.
func (b *Bucket[T, P]) Update(ctx context.Context, key string, fn func(cur P) (P, error)) (P, uint64, error) {
	return b.UpdateAfter(ctx, key, fn, nil)
}

// UpdateAfter is Update for a record that must not be stored before something else has been done:
// prepare does that, after fn has decided what to store. It may run several times, like fn, but may have
// effects, other than on the record itself: its update would wait for this one. Its error ends the update.
func (b *Bucket[T, P]) UpdateAfter(ctx context.Context, key string, fn func(cur P) (P, error), prepare func(context.Context) error) (P, uint64, error) {
	if b.s.cfg.TTL {
		return nil, 0, fmt.Errorf("%w: %s/%s", ErrCreateOnly, b.s.cfg.Name, key)
	}
	ctx, cancel := bound(ctx)
	defer cancel()
	unlock, err := b.s.updates.Lock(ctx, key)
	if err != nil {
		return nil, 0, storeError(ctx, "update", b.s.cfg.Name, key, err)
	}
	defer unlock()
	pauses := stream.Pauses(updateFirstWait, updateMaxWait)
	for try := range updateTries {
		cur, rev, sure, err := b.base(ctx, key, try)
		if err != nil {
			return nil, 0, err
		}
		next, err := fn(cur)
		switch {
		case err != nil && !sure:
			b.s.recent.forget(key)
			continue
		case errors.Is(err, ErrSkip):
			return b.unchanged(ctx, key, rev)
		case err != nil:
			return nil, 0, err
		}
		if prepare != nil {
			if err := prepare(ctx); err != nil {
				return nil, 0, err
			}
		}
		stored, err := b.store(ctx, key, next, rev)
		if err == nil {
			return next, stored, nil
		}
		if !errors.Is(err, ErrConflict) && !errors.Is(err, ErrExists) {
			return nil, 0, err
		}
		if !sure { // it is not tried with again either
			b.s.recent.forget(key)
			continue
		}
		if err := sleep(ctx, pauses.NextBackOff()); err != nil {
			return nil, 0, storeError(ctx, "update", b.s.cfg.Name, key, err)
		}
	}
	return nil, 0, fmt.Errorf("%w: update %s/%s: lost %d times", ErrConflict, b.s.cfg.Name, key, updateTries)
}

// base is what an update begins with, nil where there is nothing: at the first try what this process wrote
// lately, else what the leader has. It is sure where the leader was asked.
func (b *Bucket[T, P]) base(ctx context.Context, key string, try int) (cur P, rev uint64, sure bool, err error) {
	if data, rev, ok := b.s.recent.find(key); ok && try == 0 {
		cur, rev, err = b.decode(key, data, rev)
		return cur, rev, false, err
	}
	cur, rev, err = b.Get(ctx, key)
	if errors.Is(err, ErrNotFound) {
		err = nil
	}
	return cur, rev, true, err
}

// store writes over the value of a revision, or over nothing at revision 0.
func (b *Bucket[T, P]) store(ctx context.Context, key string, v P, rev uint64) (uint64, error) {
	if rev == 0 {
		return b.Create(ctx, key, v)
	}
	return b.CompareAndSet(ctx, key, v, rev)
}

// unchanged reads the record again for a skipped update, since fn may have touched the copy it was
// given.
func (b *Bucket[T, P]) unchanged(ctx context.Context, key string, rev uint64) (P, uint64, error) {
	if rev == 0 {
		return nil, 0, nil
	}
	v, rev, err := b.Get(ctx, key)
	if errors.Is(err, ErrNotFound) {
		return nil, 0, nil
	}
	return v, rev, err
}

// Delete removes the value when its revision is still rev, else ErrConflict; with rev 0, whatever
// the revision. Deleting a key that holds nothing is ErrNotFound. In a SecureErase bucket the
// value is overwritten on disk too.
func (b *Bucket[T, P]) Delete(ctx context.Context, key string, rev uint64) error {
	return b.s.delete(ctx, key, rev)
}

// Erase removes the value, whatever its revision, and overwrites it and all its leftovers on disk.
// The bucket must have SecureErase. When it returns nil the bytes are gone; a key that holds
// nothing is not an error.
func (b *Bucket[T, P]) Erase(ctx context.Context, key string) error { return b.s.erase(ctx, key) }

// jitter spreads d over [d/2, d).
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
