package kv

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

// View reads a bucket for one request: from the copy where that is new enough, else from the leader.
// It is no snapshot: two reads of it may see a write that came between them. It is safe for
// concurrent use.
type View[T any, P Message[T]] struct {
	copy *Copy[T, P]
	// reason says why the copy is not read; empty when it is.
	reason string
}

// Fresh returns a view that has everything written by anybody before the call. It asks the leader
// once how far the bucket is (callers who come at the same time share the question) and waits a short
// time until the copy is there; where it does not get there, the view reads from the leader. The
// error is the leader's: ErrUnavailable.
func (c *Copy[T, P]) Fresh(ctx context.Context) (*View[T, P], error) {
	return c.view(c.reach.fresh(ctx))
}

// AtLeast returns a view that has everything written by this process before the call, and everything
// up to a revision; 0 for none. Nobody is asked as long as the copy is there already: for records
// whose revision another record tells, and for those that no caller waits for.
func (c *Copy[T, P]) AtLeast(ctx context.Context, rev uint64) (*View[T, P], error) {
	return c.view(c.reach.atLeast(ctx, rev))
}

func (c *Copy[T, P]) view(reason string, err error) (*View[T, P], error) {
	if err != nil {
		return nil, err
	}
	if reason == "" {
		c.mu.RLock()
		if c.full {
			reason = reasonFull
		}
		c.mu.RUnlock()
	}
	return &View[T, P]{c, reason}, nil
}

// Get is Fresh and View.Get, for a request that reads one record of the bucket.
func (c *Copy[T, P]) Get(ctx context.Context, key string) (P, uint64, error) {
	v, err := c.Fresh(ctx)
	if err != nil {
		return nil, 0, err
	}
	return v.Get(ctx, key)
}

// FromCopy tells that the view reads from the copy. Where it does not, whoever wants to look through
// many records does better with few.
func (v *View[T, P]) FromCopy() bool { return v.reason == "" }

// Get is Bucket.Get.
func (v *View[T, P]) Get(ctx context.Context, key string) (P, uint64, error) {
	if v.reason != "" {
		return v.leader(ctx, key, v.reason)
	}
	if err := checkKey(key); err != nil {
		return nil, 0, err
	}
	data, rev, found := v.copy.get(key)
	b := v.copy.bucket
	switch {
	case found && data == nil:
		return v.leader(ctx, key, reasonEvicted)
	case found:
		v.copy.cfg.Metrics.hit(b.Name())
		return b.decode(key, data, rev)
	case b.s.inventory != nil && b.s.inventory.isKnown(key):
		return v.leader(ctx, key, reasonMissing) // deleted by somebody else just now, or lost
	}
	v.copy.cfg.Metrics.hit(b.Name())
	return nil, 0, fmt.Errorf("%w: get %s/%s", ErrNotFound, b.Name(), key)
}

func (v *View[T, P]) leader(ctx context.Context, key, reason string) (P, uint64, error) {
	v.copy.cfg.Metrics.fallback(v.copy.bucket.Name(), reason)
	return v.copy.bucket.Get(ctx, key)
}

func (c *Copy[T, P]) get(key string) (data []byte, rev uint64, found bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	el := c.items[key]
	if el == nil {
		return nil, 0, false
	}
	it, _ := el.Value.(*copied)
	return it.value, it.rev, true
}

// Summary is what CopyConfig.Summarize made of the value of a key. It is not ok where the view does
// not read from the copy, and for a key that holds no value.
func (v *View[T, P]) Summary(key string) (summary any, ok bool) {
	if v.reason != "" {
		return nil, false
	}
	summary = v.copy.summary(key)
	return summary, summary != nil
}

// Keys returns up to limit keys that begin with prefix and come after the given one, sorted; all when
// limit is 0. A view that reads from the leader may also name keys that were deleted lately.
func (v *View[T, P]) Keys(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	if err := v.copy.bucket.Intact(); err != nil {
		return nil, err // a list would be short of what was lost, and nobody would know
	}
	if v.reason != "" {
		return v.leaderKeys(ctx, prefix, after, limit)
	}
	v.copy.cfg.Metrics.hit(v.copy.bucket.Name())
	var keys []string
	v.copy.list(func(sorted []string) { keys = pick(sorted, prefix, after, limit) })
	return keys, nil
}

// Count is how many keys begin with prefix, which is whole parts, each with its '.'.
func (v *View[T, P]) Count(ctx context.Context, prefix string) (n int, err error) {
	b := v.copy.bucket
	if v.reason == "" {
		v.copy.cfg.Metrics.hit(b.Name())
		v.copy.list(func(sorted []string) {
			from, _ := slices.BinarySearch(sorted, prefix)
			n = within(sorted[from:], prefix)
		})
		return n, b.Intact()
	}
	v.copy.cfg.Metrics.fallback(b.Name(), v.reason)
	for _, err := range b.Keys(ctx, prefix+">") {
		if err != nil {
			return 0, err
		}
		n++
	}
	return n, nil
}

func (v *View[T, P]) leaderKeys(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	b := v.copy.bucket
	v.copy.cfg.Metrics.fallback(b.Name(), v.reason)
	keys, err := b.s.subjects(ctx, prefix)
	if err != nil {
		return nil, err
	}
	if inv := b.s.inventory; inv != nil && v.reason == reasonChanged {
		inv.miss(ctx, prefix, keys)
	}
	return pick(keys, prefix, after, limit), b.Intact()
}

// pick returns a copy of a part of sorted keys.
func pick(sorted []string, prefix, after string, limit int) []string {
	from, found := slices.BinarySearch(sorted, max(prefix, after))
	if found && after >= prefix {
		from++
	}
	n := within(sorted[from:], prefix)
	if limit > 0 {
		n = min(n, limit)
	}
	return slices.Clone(sorted[from : from+n])
}

// within is how many of the sorted keys, none of which is smaller than prefix, begin with it.
func within(sorted []string, prefix string) int {
	n, _ := slices.BinarySearchFunc(sorted, prefix, func(key, prefix string) int {
		if strings.HasPrefix(key, prefix) {
			return -1
		}
		return 1
	})
	return n
}

// subjects lists the keys that begin with prefix, sorted, as the leader knows them; those that were
// deleted are among them as long as their markers are kept. prefix is whole parts, each with its '.'.
func (s *store) subjects(ctx context.Context, prefix string) ([]string, error) {
	if prefix != "" {
		if err := checkKey(strings.TrimSuffix(prefix, ".")); err != nil {
			return nil, err
		}
	}
	ctx, cancel := bound(ctx)
	defer cancel()
	info, err := s.stream.Info(ctx, jetstream.WithSubjectFilter(s.prefix+prefix+">"))
	if err != nil {
		return nil, storeError(ctx, "list", s.cfg.Name, prefix, err)
	}
	keys := make([]string, 0, len(info.State.Subjects))
	for subject := range info.State.Subjects {
		keys = append(keys, subject[len(s.prefix):])
	}
	slices.Sort(keys)
	return keys, nil
}
