package installation

import (
	"context"
	"crypto/rand"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/seal"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/installation/store/v1"
)

type records = kv.Bucket[storev1.Installation, *storev1.Installation]

func associated(id string) []byte { return []byte(Bucket + "/" + id) }

// canaryOf is what the keyset of a service must open; nil where no process of it has been there yet. A service without a
// canary of its own has that of the keyset that all of them shared.
func canaryOf(rec *storev1.Installation, service string) *storev1.Canary {
	if c := rec.GetCanaries()[service]; c != nil || len(rec.GetSealedCanary()) == 0 {
		return c
	}
	return &storev1.Canary{Sealed: rec.GetSealedCanary(), KeyId: rec.GetKeyId()}
}

// opens is ErrKeyset unless each keyset opens the canary of its service.
func opens(rec *storev1.Installation, keysets seal.Keysets) error {
	for service, keyset := range keysets {
		c := canaryOf(rec, service)
		if c == nil {
			continue
		}
		if text, err := keyset.Open(c.GetSealed(), associated(rec.GetId())); err != nil || string(text) != rec.GetId() {
			return ErrKeyset
		}
	}
	return nil
}

// Canary is the key that sealed the canary of a service; ok is false where there is none yet.
func Canary(ctx context.Context, js jetstream.JetStream, service string) (key uint32, ok bool, err error) {
	rec, err := stored(ctx, js)
	if err != nil || rec == nil {
		return 0, false, err
	}
	c := canaryOf(rec, service)
	return c.GetKeyId(), c != nil, nil
}

// SealAnew does for the services of the keysets what their processes do at their start: canaries are sealed by the keys that seal now. ErrKeyset
// says that a keyset is not that of its service. Where no process has been started yet it does nothing.
func SealAnew(ctx context.Context, js jetstream.JetStream, keysets seal.Keysets) error {
	if rec, err := stored(ctx, js); err != nil || rec == nil {
		return err
	}
	b, err := kv.Open[storev1.Installation](ctx, js, kv.Config{Name: Bucket})
	if err == nil {
		_, err = sealAnew(ctx, b, keysets)
	}
	return err
}

// sealAnew has each service's canary sealed by the key that seals now, so that a key before it may be dropped. The first
// process of an installation makes the record.
func sealAnew(ctx context.Context, b *records, keysets seal.Keysets) (*storev1.Installation, error) {
	rec, _, err := b.Update(ctx, recordKey, func(cur *storev1.Installation) (*storev1.Installation, error) {
		if cur == nil {
			cur = &storev1.Installation{Id: strings.ToLower(rand.Text())}
		}
		if err := opens(cur, keysets); err != nil {
			return nil, err
		}
		changed := false
		for service, keyset := range keysets {
			primary := keyset.KeyIDs()[0]
			if c := cur.GetCanaries()[service]; c != nil && c.GetKeyId() == primary {
				continue
			}
			sealed, err := keyset.Seal([]byte(cur.GetId()), associated(cur.GetId()))
			if err != nil {
				return nil, err
			}
			if cur.Canaries == nil {
				cur.Canaries = map[string]*storev1.Canary{}
			}
			cur.Canaries[service], changed = &storev1.Canary{Sealed: sealed, KeyId: primary}, true
		}
		if !changed {
			return nil, kv.ErrSkip
		}
		return cur, nil
	})
	return rec, err
}
