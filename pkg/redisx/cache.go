package redisx

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/redis/go-redis/v9"
	"google.golang.org/protobuf/proto"
)

// ErrMiss says that the key is not there, or holds what this version cannot read.
var ErrMiss = errors.New("redisx: not cached")

const (
	formatPlain = 0x01
	formatZstd  = 0x02
	// compressFrom is the size from which compression pays.
	compressFrom = 1 << 10
	// maxDecoded bounds what a value may unpack to: a listing of 10,000 repositories is 5 MiB.
	maxDecoded = 64 << 20
)

// Cache keeps values that may be lost, each with a time to live, large ones compressed. It is safe
// for concurrent use. Its errors are ErrMiss and ErrUnavailable; for most callers both mean "fetch
// it", and a Set that failed means nothing.
type Cache struct {
	client  redis.UniversalClient
	encoder *zstd.Encoder
	decoder *zstd.Decoder
}

// NewCache makes a cache on a client of Connect.
func NewCache(client redis.UniversalClient) (*Cache, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(2))
	if err != nil {
		return nil, fmt.Errorf("redisx: make a compressor: %w", err)
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(maxDecoded), zstd.WithDecoderConcurrency(2))
	if err != nil {
		return nil, fmt.Errorf("redisx: make a decompressor: %w", err)
	}
	return &Cache{client: client, encoder: enc, decoder: dec}, nil
}

// Get returns the bytes under key.
func (c *Cache) Get(ctx context.Context, key string) ([]byte, error) {
	return c.read(c.client.Get(ctx, key))
}

// Take returns the bytes under key and deletes it in the same step, so that only one of several
// callers gets them: for things that may be used once.
func (c *Cache) Take(ctx context.Context, key string) ([]byte, error) {
	return c.read(c.client.GetDel(ctx, key))
}

func (c *Cache) read(cmd *redis.StringCmd) ([]byte, error) {
	raw, err := cmd.Bytes()
	switch {
	case errors.Is(err, redis.Nil):
		return nil, ErrMiss
	case err != nil:
		return nil, outage("read", err)
	case len(raw) == 0:
		return nil, ErrMiss
	}
	switch raw[0] {
	case formatPlain:
		return raw[1:], nil
	case formatZstd:
		data, err := c.decoder.DecodeAll(raw[1:], nil)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrMiss, err)
		}
		return data, nil
	}
	return nil, fmt.Errorf("%w: unknown format", ErrMiss)
}

// Set stores data under key for ttl, which must be positive: no key lives for ever.
func (c *Cache) Set(ctx context.Context, key string, data []byte, ttl time.Duration) error {
	if ttl <= 0 {
		return fmt.Errorf("redisx: key %s needs a time to live", key)
	}
	packed := make([]byte, 1, len(data)+1)
	if len(data) < compressFrom {
		packed[0] = formatPlain
		packed = append(packed, data...)
	} else {
		packed[0] = formatZstd
		packed = c.encoder.EncodeAll(data, packed)
	}
	if err := c.client.Set(ctx, key, packed, ttl).Err(); err != nil {
		return outage("write", err)
	}
	return nil
}

// GetProto reads the message under key into m.
func (c *Cache) GetProto(ctx context.Context, key string, m proto.Message) error {
	data, err := c.Get(ctx, key)
	return decode(data, err, func(data []byte) error { return proto.Unmarshal(data, m) })
}

// TakeProto is Take into m.
func (c *Cache) TakeProto(ctx context.Context, key string, m proto.Message) error {
	data, err := c.Take(ctx, key)
	return decode(data, err, func(data []byte) error { return proto.Unmarshal(data, m) })
}

// SetProto stores a message under key for ttl.
func (c *Cache) SetProto(ctx context.Context, key string, m proto.Message, ttl time.Duration) error {
	data, err := proto.Marshal(m)
	if err != nil {
		return fmt.Errorf("redisx: encode %s: %w", key, err)
	}
	return c.Set(ctx, key, data, ttl)
}

// GetJSON reads the JSON under key into v.
func (c *Cache) GetJSON(ctx context.Context, key string, v any) error {
	data, err := c.Get(ctx, key)
	return decode(data, err, func(data []byte) error { return json.Unmarshal(data, v) })
}

// TakeJSON is Take into v.
func (c *Cache) TakeJSON(ctx context.Context, key string, v any) error {
	data, err := c.Take(ctx, key)
	return decode(data, err, func(data []byte) error { return json.Unmarshal(data, v) })
}

// SetJSON stores v as JSON under key for ttl.
func (c *Cache) SetJSON(ctx context.Context, key string, v any, ttl time.Duration) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("redisx: encode %s: %w", key, err)
	}
	return c.Set(ctx, key, data, ttl)
}

// Delete forgets keys.
func (c *Cache) Delete(ctx context.Context, keys ...string) error {
	if len(keys) == 0 {
		return nil
	}
	pipe := c.client.Pipeline() // keys of different ids may live on different nodes
	for _, key := range keys {
		pipe.Unlink(ctx, key)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return outage("delete", err)
	}
	return nil
}

// decode reads a value; one that an other version wrote and this one cannot read is a miss.
func decode(data []byte, err error, into func([]byte) error) error {
	if err != nil {
		return err
	}
	if err := into(data); err != nil {
		return fmt.Errorf("%w: %w", ErrMiss, err)
	}
	return nil
}

// outage makes sure that every failure is ErrUnavailable, also for clients without our circuit.
func outage(what string, err error) error {
	if errors.Is(err, ErrUnavailable) || errors.Is(err, context.Canceled) {
		return fmt.Errorf("redisx: %s: %w", what, err)
	}
	return fmt.Errorf("%w: %s: %w", ErrUnavailable, what, err)
}
