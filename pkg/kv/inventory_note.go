package kv

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/logs"
	kvstorev1 "devpilot.io/bitbucket/proto/gen/devpilot/kv/store/v1"
)

// wrote notes a revision that this process has written.
func (i *inventory) wrote(key string, rev uint64) {
	isNew := !i.isKnown(key)
	i.know(key)
	i.note(key, rev, nil, isNew)
}

// deleting writes down that a key is about to be deleted at a revision, before it is. The deletion is
// forgotten after inventoryMemory, so that no other record may go on naming the key.
func (i *inventory) deleting(ctx context.Context, key string, rev uint64) error {
	i.mu.Lock()
	delete(i.pending[inventoryNewest], key)
	i.mu.Unlock()
	gone := notes{key: {Key: key, Revision: rev, DeleteTime: timestamppb.Now()}}
	if _, err := i.write(ctx, partOf(key), gone); err != nil {
		return err
	}
	return i.remove(ctx, gone)
}

// note keeps an entry to be written soon or, for a key that is new, very soon.
func (i *inventory) note(key string, rev uint64, deleted *timestamppb.Timestamp, isNew bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	e := &kvstorev1.InventoryEntry{Key: key, Revision: rev, DeleteTime: deleted}
	if isNew {
		i.keepPending(inventoryNewest, e)
		i.later(&i.soon, inventoryNewDelay, func(ctx context.Context) error { return i.flush(ctx, false) })
		return
	}
	i.keepPending(partOf(key), e)
	i.flushLater()
}

// keepPending adds an entry to what is pending. i.mu is held.
func (i *inventory) keepPending(part int, e *kvstorev1.InventoryEntry) {
	if i.pending[part] == nil {
		i.pending[part] = notes{}
	}
	i.pending[part].add(e)
}

// later does something after a while, unless that is going to happen already. i.mu is held.
func (i *inventory) later(timer **time.Timer, delay time.Duration, do func(context.Context) error) {
	if *timer != nil || i.of.js.Conn().IsClosed() {
		return
	}
	*timer = time.AfterFunc(delay, func() {
		i.mu.Lock()
		*timer = nil
		i.mu.Unlock()
		if err := do(context.Background()); err != nil { // bounded by each write's own timeout
			i.of.cfg.Logger.Debug("inventory not written yet", slog.String(logs.KeyBucket, i.of.cfg.Name), logs.Err(err))
		}
	})
}

// flushLater has all that is pending written. i.mu is held.
func (i *inventory) flushLater() {
	i.later(&i.late, inventoryDelay, func(ctx context.Context) error { return i.flush(ctx, true) })
}

// moveLater has the entries of inventoryNewest moved. i.mu is held.
func (i *inventory) moveLater() {
	i.later(&i.move, inventoryMove, func(ctx context.Context) error {
		newest, _, err := i.parts.Get(ctx, partKey(i.of.cfg.Name, inventoryNewest))
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		return i.moveNewest(ctx, newest)
	})
}

// flush writes what is pending, or the keys that are new alone, and returns when it is written or why it is
// not.
func (i *inventory) flush(ctx context.Context, all bool) error {
	for {
		i.mu.Lock()
		others := i.writing
		if others == nil {
			i.writing = make(chan struct{})
		}
		i.mu.Unlock()
		if others == nil {
			return i.writePending(ctx, all)
		}
		select {
		case <-others:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// writePending writes until nothing is pending; its caller has set i.writing. What cannot be written
// waits for the next time.
func (i *inventory) writePending(ctx context.Context, all bool) error {
	for {
		i.mu.Lock()
		part, todo := i.next(all)
		if todo == nil {
			i.wroteAll()
			i.mu.Unlock()
			return nil
		}
		delete(i.pending, part)
		i.mu.Unlock()
		stored, err := i.write(ctx, part, todo)
		if err == nil && part == inventoryNewest {
			if len(stored.GetEntries()) >= inventoryLong {
				err, todo = i.moveNewest(ctx, stored), nil // what stays there moves with the next
			} else {
				i.mu.Lock()
				i.moveLater()
				i.mu.Unlock()
			}
		}
		if err == nil {
			continue
		}
		i.mu.Lock()
		for _, e := range todo {
			i.keepPending(part, e)
		}
		i.wroteAll()
		i.flushLater()
		i.mu.Unlock()
		return err
	}
}

// next is what is to be written next; nothing where todo is nil. i.mu is held.
func (i *inventory) next(all bool) (part int, todo notes) {
	for part, todo = range i.pending {
		if len(todo) > 0 && (all || part == inventoryNewest) {
			return part, todo
		}
	}
	return 0, nil
}

// wroteAll ends the writer's turn. i.mu is held.
func (i *inventory) wroteAll() {
	close(i.writing)
	i.writing = nil
}

// moveNewest writes entries of inventoryNewest to the records where they belong, and then removes them from
// it. It may be done twice, by anybody.
func (i *inventory) moveNewest(ctx context.Context, newest *kvstorev1.InventoryPart) error {
	moved, by := notes{}, map[int]notes{}
	for _, e := range newest.GetEntries() {
		part := partOf(e.GetKey())
		if by[part] == nil {
			by[part] = notes{}
		}
		by[part].add(e)
		moved.add(e)
	}
	for part, entries := range by {
		if _, err := i.write(ctx, part, entries); err != nil {
			return err
		}
	}
	return i.remove(ctx, moved)
}

// remove takes entries out of inventoryNewest, as far as they are not newer there.
func (i *inventory) remove(ctx context.Context, gone notes) error {
	_, _, err := i.parts.Update(ctx, partKey(i.of.cfg.Name, inventoryNewest), func(cur *kvstorev1.InventoryPart) (*kvstorev1.InventoryPart, error) {
		next := &kvstorev1.InventoryPart{}
		for _, e := range cur.GetEntries() {
			if g := gone[e.GetKey()]; g == nil || e.GetRevision() > g.GetRevision() {
				next.Entries = append(next.Entries, e)
			}
		}
		if len(next.GetEntries()) == len(cur.GetEntries()) {
			return nil, ErrSkip
		}
		return next, nil
	})
	return err
}

// write merges entries into one part, and returns it.
func (i *inventory) write(ctx context.Context, part int, todo notes) (*kvstorev1.InventoryPart, error) {
	old := time.Now().Add(-inventoryMemory)
	stored, _, err := i.parts.Update(ctx, partKey(i.of.cfg.Name, part), func(cur *kvstorev1.InventoryPart) (*kvstorev1.InventoryPart, error) {
		merged := notes{}
		for _, e := range cur.GetEntries() {
			if e.GetDeleteTime() == nil || e.GetDeleteTime().AsTime().After(old) {
				merged.add(e)
			}
		}
		for _, e := range todo {
			merged.add(e)
		}
		next := &kvstorev1.InventoryPart{Entries: make([]*kvstorev1.InventoryEntry, 0, len(merged))}
		for _, e := range merged {
			next.Entries = append(next.Entries, e)
		}
		return next, nil
	})
	return stored, err
}
