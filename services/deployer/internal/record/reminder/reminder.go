// Package reminder writes entries of the schedule: "reconcile this thing then". What is to be done
// stands in the record that the entry names. Who looks, and when, is internal/control/schedule.
//
// Depends on pkg/kv and internal/record/lane.
package reminder

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

// Kind says what is to be reconciled.
type Kind string

// The kinds.
const (
	// Lane is a lane with work.
	Lane Kind = "lane"
	// Watches are watched branches that webhook has not been told of.
	Watches Kind = "watches"
	// Reach is a connection whose reach is to be checked.
	Reach Kind = "reach"
)

// Book is where entries are written.
type Book struct {
	Bucket *kv.Bucket[storev1.Due, *storev1.Due]
}

// Key is an entry's key in the bucket.
func Key(kind Kind, workspace, name string) string {
	return kv.EncodeKey(string(kind), workspace, name)
}

// Touch makes sure that the thing is reconciled at the given time, and returns the entry's revision.
// It writes even where the entry is there, so that a concurrent removal fails.
func (b *Book) Touch(ctx context.Context, kind Kind, workspace, name string, at time.Time) (uint64, error) {
	_, rev, err := b.Bucket.Update(ctx, Key(kind, workspace, name), func(*storev1.Due) (*storev1.Due, error) {
		return &storev1.Due{Time: timestamppb.New(at)}, nil
	})
	if err != nil {
		return 0, fmt.Errorf("reminder: touch: %w", err)
	}
	return rev, nil
}

// Clear removes an entry that is still as Touch left it.
func (b *Book) Clear(ctx context.Context, kind Kind, workspace, name string, rev uint64) error {
	err := b.Bucket.Delete(ctx, Key(kind, workspace, name), rev)
	if err == nil || errors.Is(err, kv.ErrConflict) || errors.Is(err, kv.ErrNotFound) {
		return nil
	}
	return fmt.Errorf("reminder: clear: %w", err)
}

// laneAfter is when a lane that got work is reconciled: by then most deployments are done, and
// the entry only goes.
const laneAfter = 10 * time.Second

// Lanes has lanes reconciled: lane.Alarm and pipeline.Alarm.
type Lanes struct {
	Book *Book
	Now  func() time.Time
}

// Arm has the lane reconciled soon.
func (l Lanes) Arm(ctx context.Context, k lane.Key) error {
	return l.At(ctx, k, l.Now().Add(laneAfter))
}

// At has the lane reconciled at a given time.
func (l Lanes) At(ctx context.Context, k lane.Key, at time.Time) error {
	_, err := l.Book.Touch(ctx, Lane, k.Workspace, k.App, at)
	return err
}
