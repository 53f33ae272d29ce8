// Package sealed walks over what a service keeps sealed in its buckets: to count by which keys it is sealed, and to seal it
// anew with the key that seals now. A service says for each of its buckets what in a record is sealed (In).
//
// Depends on pkg/kv and pkg/seal.
package sealed

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/seal"
)

// Value is one sealed text of a record.
type Value struct {
	Sealed     *[]byte // where it stands in the record
	Associated []byte  // what it is bound to
	// Stays is why it cannot be sealed anew, for people; empty where it can.
	Stays string
}

// Place is a bucket with sealed texts. It may be used by several goroutines.
type Place struct {
	Bucket string
	Erases bool // what is replaced is overwritten on disk

	count func(ctx context.Context, js jetstream.JetStream, fn func(key uint32, stays string)) error
	renew func(ctx context.Context, js jetstream.JetStream, keyset *seal.Keyset, told func()) error
}

// In says what is sealed in the records of a bucket, which is opened as its service opens it. values is given a record, and
// lists nothing that is empty.
func In[T any, P kv.Message[T]](cfg kv.Config, values func(key string, rec P) []Value) Place {
	return Place{
		Bucket: cfg.Name, Erases: cfg.SecureErase,
		count: func(ctx context.Context, js jetstream.JetStream, fn func(uint32, string)) error {
			b, err := kv.Open[T, P](ctx, js, cfg)
			if err != nil {
				return err
			}
			return b.Each(ctx, ">", func(key string, rec P, _ uint64) error {
				for _, v := range values(key, rec) {
					id, _ := seal.KeyOf(*v.Sealed)
					fn(id, v.Stays)
				}
				return nil
			})
		},
		renew: func(ctx context.Context, js jetstream.JetStream, keyset *seal.Keyset, told func()) error {
			b, err := kv.Open[T, P](ctx, js, cfg)
			if err != nil {
				return err
			}
			return renew(ctx, b, keyset, values, told)
		},
	}
}

// Count calls fn for each sealed text with the key that sealed it, 0 where it names none, and why it stays as it is. It changes nothing.
func (p Place) Count(ctx context.Context, js jetstream.JetStream, fn func(key uint32, stays string)) error {
	return p.count(ctx, js, fn)
}

// Renew seals anew what another key than the primary sealed, and calls told for each record that it changed. Records that are
// changed meanwhile are met as they are then; a Renew after one that was interrupted goes on. What the keyset does not open is left.
func (p Place) Renew(ctx context.Context, js jetstream.JetStream, keyset *seal.Keyset, told func()) error {
	return p.renew(ctx, js, keyset, told)
}

func renew[T any, P kv.Message[T]](ctx context.Context, b *kv.Bucket[T, P], keyset *seal.Keyset, values func(string, P) []Value, told func()) error {
	old := func(v Value) bool {
		id, ok := seal.KeyOf(*v.Sealed)
		return ok && v.Stays == "" && id != keyset.Primary()
	}
	var keys []string // gathered first: updates take longer than a walk may stand still
	err := b.Each(ctx, ">", func(key string, rec P, _ uint64) error {
		for _, v := range values(key, rec) {
			if old(v) {
				keys = append(keys, key)
				break
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, key := range keys {
		changed := false
		_, _, err := b.Update(ctx, key, func(cur P) (P, error) {
			changed = false
			if cur == nil {
				return nil, kv.ErrSkip // deleted meanwhile
			}
			for _, v := range values(key, cur) {
				if !old(v) {
					continue
				}
				plain, err := keyset.Open(*v.Sealed, v.Associated)
				if err != nil {
					continue // of a key that is lost: Count tells
				}
				if *v.Sealed, err = keyset.Seal(plain, v.Associated); err != nil {
					return nil, err
				}
				changed = true
			}
			if !changed {
				return nil, kv.ErrSkip
			}
			return cur, nil
		})
		if err != nil {
			return fmt.Errorf("seal %s of %s anew: %w", key, b.Name(), err)
		}
		if changed {
			told()
		}
	}
	return nil
}
