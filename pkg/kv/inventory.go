package kv

import (
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/logs"
	kvstorev1 "devpilot.io/bitbucket/proto/gen/devpilot/kv/store/v1"
)

const (
	// inventoryParts is how many records the inventory of one bucket is spread over: one write
	// then rewrites a small part of it.
	inventoryParts = 64
	// inventoryNewest is one more record, of keys that are new: those of a moment cost one write, wherever
	// they belong. When it is long its entries move to their own records, each of which gets several then.
	inventoryNewest = inventoryParts
	inventoryLong   = 512              // entries of that record when they move
	inventoryMove   = 10 * time.Minute // how long they stay there at most; less than inventoryMemory
	// inventoryDelay is how long the new revision of a known key may stay out of the inventory.
	inventoryDelay = 5 * time.Second
	// inventoryNewDelay is how long a key that is new may, so that those of a moment are written together.
	inventoryNewDelay = 500 * time.Millisecond
	// inventoryMemory is how long the inventory remembers a deletion, so that a replica's late
	// note of an older revision does not bring the key back.
	inventoryMemory = time.Hour
	// inventoryTimeout bounds the comparison of a bucket with its inventory.
	inventoryTimeout = 30 * time.Second
)

// inventory is a list of a bucket's keys and their revisions, kept apart from the bucket in other
// files. JetStream leaves out what it cannot read in a damaged file and serves the rest as if
// nothing had been; the inventory is what such a loss is seen by.
//
// Every process notes what it wrote itself. A key that is new is noted within inventoryNewDelay, a new
// revision within inventoryDelay, both when the process stops (Flush), and a deletion before it
// happens: so that a key which the inventory has and the bucket has not was lost and nothing else.
// A file that is damaged may bring back an older revision; after a kill, one of the last
// inventoryDelay's goes unnoticed.
type inventory struct {
	of    *store
	parts *Bucket[kvstorev1.InventoryPart, *kvstorev1.InventoryPart]
	lost  atomic.Pointer[LossError]

	mu               sync.Mutex
	known            map[string]struct{} // keys that were there when last heard of
	pending          map[int]notes       // by part: what is not written yet
	writing          chan struct{}       // closed when the writer ends; nil while nobody writes
	soon, late, move *time.Timer         // for keys that are new, for all that is pending, for inventoryNewest; nil: none
}

// notes are entries by key. The higher revision wins, and a deletion over a value of the same
// revision.
type notes map[string]*kvstorev1.InventoryEntry

func (n notes) add(e *kvstorev1.InventoryEntry) {
	old := n[e.GetKey()]
	if old == nil || e.GetRevision() > old.GetRevision() || e.GetRevision() == old.GetRevision() && e.GetDeleteTime() != nil {
		n[e.GetKey()] = e
	}
}

func openInventory(ctx context.Context, s *store) (*inventory, error) {
	parts, err := Open[kvstorev1.InventoryPart](ctx, s.js, Config{Name: inventoryName(s.cfg.Inventory), Logger: s.cfg.Logger})
	if err != nil {
		return nil, err
	}
	i := &inventory{of: s, parts: parts, known: map[string]struct{}{}, pending: map[int]notes{}}
	if err := i.compare(ctx); err != nil {
		return nil, err
	}
	i.keep()
	i.mu.Lock()
	i.moveLater() // what an earlier process left
	i.mu.Unlock()
	return i, nil
}

func partOf(key string) int {
	sum := sha256.Sum256([]byte(key))
	return int(sum[0]) % inventoryParts
}

func partKey(bucket string, part int) string { return EncodeKey(bucket, strconv.Itoa(part)) }

// compare holds the bucket against its inventory, and takes into the inventory what it lacks: all,
// when the bucket is older than its inventory.
func (i *inventory) compare(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, inventoryTimeout)
	defer cancel()
	listed, there, err := i.read(ctx)
	if err != nil {
		return err
	}
	loss, err := i.loss(ctx, listed, there)
	if err != nil {
		return err
	}
	if loss != nil {
		return loss
	}
	for key, e := range there {
		old := listed[key]
		switch {
		case e.deleted && old != nil && old.GetDeleteTime() == nil:
			i.note(key, e.rev, timestamppb.Now(), false)
		case !e.deleted:
			i.know(key)
			if old == nil || old.GetRevision() < e.rev || old.GetDeleteTime() != nil {
				i.note(key, e.rev, nil, false)
			}
		}
	}
	return nil
}

// read lists what the inventory has and, after it, what the bucket has.
func (i *inventory) read(ctx context.Context) (listed notes, there map[string]entry, err error) {
	if listed, err = readInventory(ctx, i.parts, i.of.cfg.Name); err != nil {
		return nil, nil, err
	}
	there = map[string]entry{}
	err = i.of.pass(ctx, ">", true, func(e entry) error {
		there[e.key] = e
		return nil
	})
	return listed, there, err
}

// readInventory reads all parts. One that is damaged lists nothing: it is filled again.
func readInventory(ctx context.Context, parts *Bucket[kvstorev1.InventoryPart, *kvstorev1.InventoryPart], bucket string) (notes, error) {
	listed := notes{}
	for n := range inventoryNewest + 1 {
		part, _, err := parts.Get(ctx, partKey(bucket, n))
		if err != nil && !errors.Is(err, ErrNotFound) {
			return nil, err
		}
		for _, e := range part.GetEntries() {
			listed.add(e)
		}
	}
	return listed, nil
}

// loss is what is listed and not there, or nil. What was not seen is asked for once more, key by
// key: it may have been deleted between the two lists.
func (i *inventory) loss(ctx context.Context, listed notes, there map[string]entry) (*LossError, error) {
	loss := &LossError{Bucket: i.of.cfg.Name, stream: i.of.name}
	for key, e := range listed {
		if e.GetDeleteTime() != nil {
			continue
		}
		loss.Known++
		if found, ok := there[key]; ok && found.rev >= e.GetRevision() {
			continue
		}
		lost, err := i.isLost(ctx, key)
		if err != nil {
			return nil, err
		}
		if lost {
			loss.Lost++
			loss.name(key)
		}
	}
	if loss.Lost == 0 {
		return nil, nil
	}
	return loss, nil
}

// isLost asks the leaders about one key: whether the inventory has it at a revision that the
// bucket no longer holds.
func (i *inventory) isLost(ctx context.Context, key string) (bool, error) {
	listed := notes{}
	for _, n := range []int{partOf(key), inventoryNewest} {
		part, _, err := i.parts.Get(ctx, partKey(i.of.cfg.Name, n))
		if err != nil && !errors.Is(err, ErrNotFound) {
			return false, err
		}
		for _, e := range part.GetEntries() {
			if e.GetKey() == key {
				listed.add(e)
			}
		}
	}
	e := listed[key]
	if e == nil || e.GetDeleteTime() != nil {
		return false, nil
	}
	m, err := i.of.last(ctx, key)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return true, nil
	}
	if err != nil {
		return false, storeError(ctx, "get", i.of.cfg.Name, key, err)
	}
	return m.Sequence < e.GetRevision(), nil
}

// missing answers for a key that the bucket has no message of: LossError when the inventory says
// that there must be one, else nil.
func (i *inventory) missing(ctx context.Context, key string) error {
	i.mu.Lock()
	_, known := i.known[key]
	i.mu.Unlock()
	if !known {
		return nil
	}
	lost, err := i.isLost(ctx, key)
	if err != nil {
		return err
	}
	if !lost {
		i.forget(key)
		return nil
	}
	return i.report(ctx, key)
}

// report notes that a key was lost.
func (i *inventory) report(ctx context.Context, key string) *LossError {
	loss := &LossError{Bucket: i.of.cfg.Name, stream: i.of.name, Lost: 1}
	loss.name(key)
	if i.lost.CompareAndSwap(nil, loss) {
		i.of.cfg.Logger.ErrorContext(ctx, "records were lost", slog.String(logs.KeyBucket, i.of.cfg.Name), logs.Err(loss))
	}
	return loss
}

// miss looks for keys that ought to be there, begin with prefix and are not among the sorted ones that
// are. The first that was lost is reported; what cannot be found out now, the next read does.
func (i *inventory) miss(ctx context.Context, prefix string, there []string) {
	var missing []string
	i.mu.Lock()
	for key := range i.known {
		if !strings.HasPrefix(key, prefix) {
			continue
		}
		if _, ok := slices.BinarySearch(there, key); !ok {
			missing = append(missing, key)
		}
	}
	i.mu.Unlock()
	for _, key := range missing {
		if lost, err := i.isLost(ctx, key); lost {
			_ = i.report(ctx, key)
			return
		} else if err != nil {
			return
		}
	}
}

func (i *inventory) isKnown(key string) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	_, known := i.known[key]
	return known
}

func (i *inventory) know(key string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.known[key] = struct{}{}
}

func (i *inventory) forget(key string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.known, key)
}
