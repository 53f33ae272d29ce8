package kv

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/stream"
	kvstorev1 "devpilot.io/bitbucket/proto/gen/devpilot/kv/store/v1"
)

// ErrLost says that records which were stored are no longer there: test with errors.Is. The error
// itself is a *LossError.
var ErrLost = errors.New("kv: records were lost")

// LossError says what a bucket lost. Its text says what to do.
type LossError struct {
	// Bucket is the bucket's name.
	Bucket string
	stream string // behind it, in NATS
	// Known is how many records there should be; 0 when only some were looked for.
	Known int
	// Lost is how many of them are not there, or only at an older revision.
	Lost int
	// Keys names some of them.
	Keys []string
}

func (e *LossError) name(key string) {
	const enough = 5
	if len(e.Keys) < enough {
		e.Keys = append(e.Keys, key)
	}
}

// Error says what was lost and what to do.
func (e *LossError) Error() string {
	what := strconv.Itoa(e.Lost)
	if e.Known > 0 {
		what += fmt.Sprintf(" of %d", e.Known)
	}
	return fmt.Sprintf("records of bucket %s were lost: %s (%s). The files of JetStream stream %s are damaged. Nothing was changed. "+
		"Stop Devpilot and restore NATS's files (all-in-one: nats/ in the data directory) from a backup; "+
		"or, to carry on without these records: devpilot accept-loss %s",
		e.Bucket, what, strings.Join(e.Keys, ", "), e.stream, e.Bucket)
}

// Is makes it ErrLost; for whoever opens a store permanent; and for whoever consumes messages
// temporary: a message is not given up because a record is missing.
func (e *LossError) Is(target error) bool {
	return target == ErrLost || target == stream.ErrPermanent || target == stream.ErrTemporary
}

const inventorySuffix = "-inventory"

func inventoryName(owner string) string { return owner + inventorySuffix }

// InventoryKeys are the keys that the inventory of a bucket has, sorted; cfg is the bucket's.
func InventoryKeys(ctx context.Context, js jetstream.JetStream, cfg Config) ([]string, error) {
	parts, err := Open[kvstorev1.InventoryPart](ctx, js, Config{Name: inventoryName(cfg.Inventory)})
	if err != nil {
		return nil, err
	}
	listed, err := readInventory(ctx, parts, cfg.Name)
	if err != nil {
		return nil, err
	}
	var keys []string
	for key, e := range listed {
		if e.GetDeleteTime() == nil {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys, nil
}

// AcceptLoss forgets the inventory of a bucket, so that its next Open takes it as it is, and
// returns how many records were missing. No process may use the bucket meanwhile. A bucket without
// an inventory is ErrNotFound.
func AcceptLoss(ctx context.Context, js jetstream.JetStream, bucket string) (int, error) {
	if !validName.MatchString(bucket) {
		return 0, fmt.Errorf("%w: bucket %q", ErrNotFound, bucket)
	}
	names := js.StreamNames(ctx)
	for name := range names.Name() {
		bare, own := stream.InstallationOf(js).BareStream(name)
		inventory, ok := strings.CutPrefix(bare, StreamName(""))
		if !own || !ok || !strings.HasSuffix(inventory, inventorySuffix) || strings.Contains(inventory, "_") {
			continue // the last: of an installation with a name, where this one has none
		}
		lost, found, err := acceptLoss(ctx, js, inventory, bucket)
		if err != nil || found {
			return lost, err
		}
	}
	if err := names.Err(); err != nil {
		return 0, storeError(ctx, "list", "buckets", "", err)
	}
	return 0, fmt.Errorf("%w: no inventory is kept of a bucket %s", ErrNotFound, bucket)
}

func acceptLoss(ctx context.Context, js jetstream.JetStream, inventoryBucket, bucket string) (lost int, found bool, err error) {
	open := func(name string) (*store, error) {
		s := namedStore(js, nil, Config{Name: name, Logger: slog.New(slog.DiscardHandler)})
		st, err := js.Stream(ctx, s.name)
		s.stream = st
		return s, err
	}
	listing, err := open(inventoryBucket)
	if err != nil {
		return 0, false, storeError(ctx, "open", inventoryBucket, "", err)
	}
	i := &inventory{parts: &Bucket[kvstorev1.InventoryPart, *kvstorev1.InventoryPart]{listing}}
	listed, err := readInventory(ctx, i.parts, bucket)
	if err != nil || len(listed) == 0 {
		return 0, false, err
	}
	i.of, err = open(bucket)
	if err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return 0, false, storeError(ctx, "open", bucket, "", err)
	}
	there := map[string]entry{}
	if err == nil {
		if listed, there, err = i.read(ctx); err != nil {
			return 0, false, err
		}
	}
	for key, e := range listed {
		if found, ok := there[key]; e.GetDeleteTime() == nil && (!ok || found.rev < e.GetRevision()) {
			lost++
		}
	}
	for part := range inventoryNewest + 1 {
		if err := i.parts.Delete(ctx, partKey(bucket, part), 0); err != nil && !errors.Is(err, ErrNotFound) {
			return 0, true, err
		}
	}
	return lost, true, nil
}
