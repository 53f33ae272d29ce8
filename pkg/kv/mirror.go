package kv

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"

	"devpilot.io/bitbucket/pkg/logs"
)

// ErrNotReady says that a Mirror has not seen the whole bucket yet.
var ErrNotReady = errors.New("kv: mirror not ready")

// Mirror is a copy of a bucket in memory, kept up to date by a watch. It is safe for concurrent
// use. It may be behind the store: an absence that matters is checked with one read from the
// leader, Bucket.Get.
type Mirror[T any, P Message[T]] struct {
	bucket   *Bucket[T, P]
	filter   string
	onChange func(key string, v P)

	mu    sync.RWMutex
	ready bool
	items map[string]mirrored[P]
}

type mirrored[P any] struct {
	value P
	rev   uint64
}

// NewMirror prepares a mirror of a whole bucket. Run fills it.
func NewMirror[T any, P Message[T]](b *Bucket[T, P]) *Mirror[T, P] {
	return &Mirror[T, P]{bucket: b, filter: ">", items: map[string]mirrored[P]{}}
}

// OnChange has fn called for each change that Run applies, one call at a time, with a nil value
// for a key that is gone. fn must not keep Run waiting. Call it before Run.
func (m *Mirror[T, P]) OnChange(fn func(key string, v P)) { m.onChange = fn }

// Run keeps the mirror up to date until ctx is done. After a break in the connection it watches
// again from scratch, and forgets the keys that the new pass did not see; what it knows is served
// meanwhile. A value that cannot be decoded is logged and left out: one bad record must not take
// the others away.
func (m *Mirror[T, P]) Run(ctx context.Context) error {
	err := m.bucket.s.follow(ctx, func() scan {
		seen := map[string]struct{}{}
		passed := false
		return scan{filter: m.filter, follow: true,
			onEntry: func(e entry) error {
				if !passed {
					seen[e.key] = struct{}{}
				}
				m.apply(ctx, e)
				return nil
			},
			onPassed: func() {
				passed = true
				m.forgetOthers(seen)
				seen = nil
			},
		}
	})
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func (m *Mirror[T, P]) apply(ctx context.Context, e entry) {
	var v P
	if !e.deleted {
		var err error
		if v, _, err = m.bucket.decode(e.key, e.data, e.rev); err != nil {
			m.bucket.s.cfg.Logger.ErrorContext(ctx, "record left out of a mirror", slog.String(logs.KeyBucket, m.bucket.Name()), slog.String(logs.KeyKey, e.key), logs.Err(err))
			v = nil
		}
	}
	m.mu.Lock()
	old, had := m.items[e.key]
	if v == nil {
		delete(m.items, e.key)
	} else {
		m.items[e.key] = mirrored[P]{v, e.rev}
	}
	m.mu.Unlock()
	if m.onChange != nil && (v != nil || had) && old.rev != e.rev {
		m.onChange(e.key, v)
	}
}

// forgetOthers ends a pass: keys that it did not see are gone.
func (m *Mirror[T, P]) forgetOthers(seen map[string]struct{}) {
	var gone []string
	m.mu.Lock()
	for key := range m.items {
		if _, ok := seen[key]; !ok {
			delete(m.items, key)
			gone = append(gone, key)
		}
	}
	m.ready = true
	m.mu.Unlock()
	if m.onChange == nil {
		return
	}
	for _, key := range gone {
		m.onChange(key, nil)
	}
}

// Ready is nil once the first full pass is complete. Until then Get's "not there" means nothing.
func (m *Mirror[T, P]) Ready(context.Context) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if !m.ready {
		return fmt.Errorf("%w: bucket %s", ErrNotReady, m.bucket.Name())
	}
	return nil
}

// Get returns the value of key, its revision, and whether it is there. The value is shared: do not
// modify it.
func (m *Mirror[T, P]) Get(key string) (P, uint64, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	it, ok := m.items[key]
	return it.value, it.rev, ok
}

// Len is the number of keys.
func (m *Mirror[T, P]) Len() int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return len(m.items)
}

// All is a snapshot of all values by key. The values are shared: do not modify them.
func (m *Mirror[T, P]) All() map[string]P {
	m.mu.RLock()
	items := maps.Clone(m.items)
	m.mu.RUnlock()
	all := make(map[string]P, len(items))
	for key, it := range items {
		all[key] = it.value
	}
	return all
}
