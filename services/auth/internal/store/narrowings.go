package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/kv"
	authstorev1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/store/v1"
)

// BucketNarrowings holds authstorev1.Narrowing under <workspace>.bitbucket. It is apart from the
// integrations, because disconnecting erases those and must not widen what the next account may see.
const BucketNarrowings = "DEVPILOT_AUTH_NARROWINGS"

type (
	narrowingBucket = kv.Bucket[authstorev1.Narrowing, *authstorev1.Narrowing]
	narrowingCopy   = kv.Copy[authstorev1.Narrowing, *authstorev1.Narrowing]
)

// Narrowings is the bucket of narrowings. It is safe for concurrent use. Until Open has succeeded every
// call answers kv.ErrUnavailable.
type Narrowings struct {
	js     jetstream.JetStream
	cfg    kv.Config
	bucket atomic.Pointer[narrowingBucket]
	copy   atomic.Pointer[narrowingCopy] // set before bucket
}

// NewNarrowings does no I/O.
func NewNarrowings(js jetstream.JetStream, logger *slog.Logger) *Narrowings {
	return &Narrowings{js: js, cfg: kv.Config{Name: BucketNarrowings, Version: 1, Logger: logger}}
}

// Open makes the bucket or brings it up to date. It may be called again after an error.
func (s *Narrowings) Open(ctx context.Context) error {
	b, err := kv.Open[authstorev1.Narrowing](ctx, s.js, s.cfg)
	if err != nil {
		return fmt.Errorf("open the narrowings: %w", err)
	}
	s.copy.Store(kv.NewCopy(b, kv.CopyConfig[*authstorev1.Narrowing]{}))
	s.bucket.Store(b)
	return nil
}

// RunCopy keeps in memory what Get reads, until ctx is done; before, and without it, the leader is asked. Open
// has succeeded.
func (s *Narrowings) RunCopy(ctx context.Context) error {
	if err := s.copy.Load().Run(ctx); err != nil {
		return fmt.Errorf("keep the narrowings in memory: %w", err)
	}
	return nil
}

func (s *Narrowings) opened() (*narrowingBucket, error) {
	if b := s.bucket.Load(); b != nil {
		return b, nil
	}
	return nil, fmt.Errorf("%w: bucket %s is not open yet", kv.ErrUnavailable, s.cfg.Name)
}

// Get reads the workspace's narrowing with everything that was acknowledged before the call (kv.Copy); nil when it
// is not narrowed.
func (s *Narrowings) Get(ctx context.Context, workspace string) (*authstorev1.Narrowing, error) {
	if _, err := s.opened(); err != nil {
		return nil, err
	}
	n, _, err := s.copy.Load().Get(ctx, Key(workspace))
	if errors.Is(err, kv.ErrNotFound) {
		return nil, nil
	}
	return n, err
}

// Update changes the narrowing by compare-and-set (kv.Bucket.Update); fn gets nil when there is none.
func (s *Narrowings) Update(ctx context.Context, workspace string, fn func(cur *authstorev1.Narrowing) (*authstorev1.Narrowing, error)) error {
	b, err := s.opened()
	if err != nil {
		return err
	}
	_, _, err = b.Update(ctx, Key(workspace), fn)
	return err
}

// Remove forgets the narrowing; none is not an error.
func (s *Narrowings) Remove(ctx context.Context, workspace string) error {
	b, err := s.opened()
	if err != nil {
		return err
	}
	if err := b.Delete(ctx, Key(workspace), 0); !errors.Is(err, kv.ErrNotFound) {
		return err
	}
	return nil
}

// RelayChanges tells of a changed narrowing as of a change of the integration, which shows it, until ctx is
// done.
func (s *Narrowings) RelayChanges(ctx context.Context, logger *slog.Logger) error {
	return kv.RelayChanges(ctx, s.js, kv.RelayConfig{
		Bucket: BucketNarrowings, Service: "auth", Durable: "auth-narrowings", Logger: logger,
		Describe: func(key string, _ bool) (workspace, kind, id string, ok bool) {
			workspace, ok = WorkspaceOf(key)
			return workspace, "integration", Provider, ok
		},
	})
}
