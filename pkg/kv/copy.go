package kv

import (
	"bytes"
	"container/list"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"

	"devpilot.io/bitbucket/pkg/logs"
)

const (
	// DefaultCopyBytes bounds a copy that has no bound of its own.
	DefaultCopyBytes = 64 << 20
	// keyCost is how much memory a key is counted as, besides its bytes and those of its value.
	keyCost = 256
	// summaryCost is how much memory a summary is counted as.
	summaryCost = 160
)

// CopyConfig describes a Copy.
type CopyConfig[P any] struct {
	// MaxBytes bounds the memory; DefaultCopyBytes when zero. Where the values do not fit, those
	// written longest ago are left out, and read from the leader. Where not even the keys fit, the
	// copy is given up until it is watched anew, and everything is read from the leader.
	MaxBytes int64
	// Summarize, where it is set, makes of each value something small that is kept even where the
	// value is not, for View.Summary. It is called once for each change.
	Summarize func(key string, v P) any
	// OnChange, where it is set, is called after each change that the copy took in, one call at a time,
	// with the key that was written or is gone. It must not keep the watch waiting.
	OnChange func(key string)
	// Decoded is OnChange with the value, nil for a key that is gone, for whoever keeps something of it. A
	// value that cannot be decoded is logged and left out.
	Decoded func(key string, v P)
	// Metrics may be nil.
	Metrics *Metrics
}

// Copy is a copy of a bucket in memory that knows which revision of the bucket it has reached. Views
// are read from it: see Fresh and AtLeast. Values are kept as they are stored, and decoded for each
// reader. It is safe for concurrent use.
type Copy[T any, P Message[T]] struct {
	bucket *Bucket[T, P]
	cfg    CopyConfig[P]
	reach  *reach

	mu    sync.RWMutex
	items map[string]*list.Element // of *copied
	// ages has the oldest write first; those without a value are not in it. golang-lru would forget the
	// key with its value, and bounds how many there are, not their bytes.
	ages   *list.List
	bytes  int64
	full   bool
	held   bool     // a pass was complete once
	sorted []string // all keys in order; nil until somebody lists them
}

type copied struct {
	key     string
	rev     uint64
	value   []byte // nil when it was left out
	summary any
}

func (c *copied) cost() int64 {
	n := keyCost + 2*len(c.key) + len(c.value)
	if c.summary != nil {
		n += summaryCost
	}
	return int64(n)
}

// NewCopy prepares a copy. Run fills it.
func NewCopy[T any, P Message[T]](b *Bucket[T, P], cfg CopyConfig[P]) *Copy[T, P] {
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = DefaultCopyBytes
	}
	c := &Copy[T, P]{bucket: b, cfg: cfg, items: map[string]*list.Element{}, ages: list.New()}
	c.reach = newReach(b.s.position, b.s.wrote, c.Len)
	c.reach.sole = b.s.soleLife
	return c
}

// Run keeps the copy up to date until ctx is done.
func (c *Copy[T, P]) Run(ctx context.Context) error {
	leave := c.cfg.Metrics.watch(c.bucket.Name(), c.reach.revision, c.Bytes)
	defer leave()
	err := c.bucket.s.follow(ctx, func() scan {
		seen := map[string]struct{}{}
		pass := true
		return scan{filter: ">", follow: true, again: c.reach.again,
			onStart: func(p position) {
				c.reach.began(p)
				c.mu.Lock()
				c.full = false
				c.mu.Unlock()
			},
			onEntry: func(e entry) error {
				if pass {
					seen[e.key] = struct{}{}
				}
				c.apply(ctx, e)
				c.reach.saw(e.rev)
				return nil
			},
			onPassed: func() {
				pass = false
				c.passed(ctx, seen)
				seen = nil
				c.reach.complete()
			},
		}
	})
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func (c *Copy[T, P]) apply(ctx context.Context, e entry) {
	if inv := c.bucket.s.inventory; inv != nil {
		if e.deleted {
			inv.forget(e.key)
		} else {
			inv.know(e.key)
		}
	}
	var summary any
	var v P
	var err error
	if !e.deleted && (c.cfg.Summarize != nil || c.cfg.Decoded != nil) {
		v, _, err = c.bucket.decode(e.key, e.data, e.rev)
		if err == nil && c.cfg.Summarize != nil { // else Get says so
			summary = c.cfg.Summarize(e.key, v)
		}
	}
	c.take(ctx, e, summary)
	if c.cfg.OnChange != nil {
		c.cfg.OnChange(e.key)
	}
	switch {
	case c.cfg.Decoded == nil:
	case err != nil:
		c.bucket.s.cfg.Logger.ErrorContext(ctx, "a record cannot be read and is left out", slog.String(logs.KeyBucket, c.bucket.Name()), slog.String(logs.KeyKey, e.key), logs.Err(err))
	default:
		c.cfg.Decoded(e.key, v)
	}
}

func (c *Copy[T, P]) take(ctx context.Context, e entry, summary any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.full {
		return
	}
	if e.deleted {
		c.drop(e.key)
		return
	}
	c.keep(&copied{key: strings.Clone(e.key), rev: e.rev, value: bytes.Clone(e.data), summary: summary})
	if c.bytes > c.cfg.MaxBytes {
		c.shrink(ctx)
	}
}

// keep stores an item as the newest. An empty value is not nil: that one was left out. c.mu is held.
func (c *Copy[T, P]) keep(it *copied) {
	if it.value == nil {
		it.value = []byte{}
	}
	if el := c.items[it.key]; el != nil {
		old, _ := el.Value.(*copied)
		c.bytes -= old.cost()
		it.key = old.key
		if old.value != nil {
			c.ages.Remove(el)
		}
	} else if c.sorted != nil {
		at, _ := slices.BinarySearch(c.sorted, it.key)
		c.sorted = slices.Insert(c.sorted, at, it.key)
	}
	c.items[it.key] = c.ages.PushBack(it)
	c.bytes += it.cost()
}

// drop removes a key. c.mu is held.
func (c *Copy[T, P]) drop(key string) {
	el := c.items[key]
	if el == nil {
		return
	}
	it, _ := el.Value.(*copied)
	if it.value != nil {
		c.ages.Remove(el)
	}
	c.bytes -= it.cost()
	delete(c.items, key)
	if at, found := slices.BinarySearch(c.sorted, key); found {
		c.sorted = slices.Delete(c.sorted, at, at+1)
	}
}

// shrink leaves out the oldest values until the rest fits, or gives the copy up. c.mu is held.
func (c *Copy[T, P]) shrink(ctx context.Context) {
	for c.bytes > c.cfg.MaxBytes {
		oldest := c.ages.Front()
		if oldest == nil {
			break
		}
		it, _ := c.ages.Remove(oldest).(*copied)
		c.bytes -= int64(len(it.value))
		it.value = nil
	}
	if c.bytes <= c.cfg.MaxBytes {
		return
	}
	c.bucket.s.cfg.Logger.WarnContext(ctx, "a bucket is too large to be kept in memory: it is read from the store", logs.KeyBucket, c.bucket.Name())
	c.items, c.sorted, c.bytes, c.full = map[string]*list.Element{}, nil, 0, true
	c.ages.Init()
}

// passed ends a pass: keys that it did not see are gone. Those that the inventory has were lost.
func (c *Copy[T, P]) passed(ctx context.Context, seen map[string]struct{}) {
	var gone []string
	c.mu.Lock()
	for key := range c.items {
		if _, ok := seen[key]; !ok {
			c.drop(key)
			gone = append(gone, key)
		}
	}
	c.held = true
	c.mu.Unlock()
	for _, key := range gone {
		if c.cfg.OnChange != nil {
			c.cfg.OnChange(key)
		}
		if c.cfg.Decoded != nil {
			c.cfg.Decoded(key, nil)
		}
	}
	if inv := c.bucket.s.inventory; inv != nil {
		inv.miss(ctx, "", slices.Sorted(maps.Keys(seen)))
	}
}

// CaughtUp waits a short time until the copy has what this process wrote before the call. It asks
// nobody: while the store is away the copy stays what it was.
func (c *Copy[T, P]) CaughtUp(ctx context.Context) bool {
	return c.reach.await(ctx, c.reach.wrote.Load()) == ""
}

// Latest is what CopyConfig.Summarize made of the value of a key, as far as the copy has come; nil for a
// key that holds no value. It asks nobody, also while the store is away: for callers whose number strangers
// decide. It is not ok before the first full pass is complete, and where the copy was given up.
func (c *Copy[T, P]) Latest(key string) (summary any, ok bool) {
	c.mu.RLock()
	known := c.held && !c.full
	c.mu.RUnlock()
	if !known {
		return nil, false
	}
	return c.summary(key), true
}

func (c *Copy[T, P]) summary(key string) any {
	c.mu.RLock()
	defer c.mu.RUnlock()
	el := c.items[key]
	if el == nil {
		return nil
	}
	it, _ := el.Value.(*copied)
	return it.summary
}

// Held is nil once a full pass has been complete: from then on the copy has all, if perhaps not the newest,
// also while it is being watched anew.
func (c *Copy[T, P]) Held() error {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if !c.held {
		return fmt.Errorf("%w: bucket %s", ErrNotReady, c.bucket.Name())
	}
	return nil
}

// Ready is nil once the first full pass is complete. Reads work before, from the leader.
func (c *Copy[T, P]) Ready(context.Context) error {
	c.reach.mu.Lock()
	defer c.reach.mu.Unlock()
	if !c.reach.passed {
		return fmt.Errorf("%w: bucket %s", ErrNotReady, c.bucket.Name())
	}
	return nil
}

// list calls fn with all keys in order.
func (c *Copy[T, P]) list(fn func(sorted []string)) {
	c.mu.RLock()
	if c.sorted != nil {
		defer c.mu.RUnlock()
		fn(c.sorted)
		return
	}
	c.mu.RUnlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sorted == nil {
		c.sorted = slices.AppendSeq(make([]string, 0, len(c.items)), maps.Keys(c.items))
		slices.Sort(c.sorted)
	}
	fn(c.sorted)
}

// Len is the number of keys in the copy.
func (c *Copy[T, P]) Len() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.items)
}

// Bytes is about how much memory the copy takes.
func (c *Copy[T, P]) Bytes() int64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.bytes
}

// Revision is how far the copy is.
func (c *Copy[T, P]) Revision() uint64 {
	at, _ := c.reach.revision()
	return at
}
