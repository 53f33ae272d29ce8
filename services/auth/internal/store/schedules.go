package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"sync/atomic"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/kv"
	authstorev1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/store/v1"
)

type scheduleBucket = kv.Bucket[authstorev1.Schedule, *authstorev1.Schedule]

// Schedules is the bucket of schedules: what must be looked after, and when, without reading the
// integrations themselves. It is safe for concurrent use. Until Open has succeeded every call
// answers kv.ErrUnavailable.
type Schedules struct {
	js     jetstream.JetStream
	cfg    kv.Config
	bucket atomic.Pointer[scheduleBucket]
	mirror atomic.Pointer[kv.Mirror[authstorev1.Schedule, *authstorev1.Schedule]]
}

// NewSchedules does no I/O.
func NewSchedules(js jetstream.JetStream, logger *slog.Logger) *Schedules {
	return &Schedules{js: js, cfg: kv.Config{Name: BucketSchedules, Version: 1, Logger: logger}}
}

// Open makes the bucket or brings it up to date. It may be called again after an error.
func (s *Schedules) Open(ctx context.Context) error {
	b, err := kv.Open[authstorev1.Schedule](ctx, s.js, s.cfg)
	if err != nil {
		return fmt.Errorf("open the schedules: %w", err)
	}
	s.bucket.Store(b)
	return nil
}

func (s *Schedules) opened() (*scheduleBucket, error) {
	if b := s.bucket.Load(); b != nil {
		return b, nil
	}
	return nil, fmt.Errorf("%w: bucket %s is not open yet", kv.ErrUnavailable, s.cfg.Name)
}

// Update stores what fn makes of the workspace's schedule; fn gets nil when there is none, returns
// nil to remove it, and may run several times. Nothing is written when nothing changes.
func (s *Schedules) Update(ctx context.Context, workspace string, fn func(cur *authstorev1.Schedule) *authstorev1.Schedule) error {
	b, err := s.opened()
	if err != nil {
		return err
	}
	for range updateTries {
		if err = update(ctx, b, Key(workspace), fn); !errors.Is(err, kv.ErrConflict) && !errors.Is(err, kv.ErrExists) {
			return err
		}
	}
	return err
}

// updateTries bounds Update: replicas write the same few times an hour.
const updateTries = 20

func update(ctx context.Context, b *scheduleBucket, key string, fn func(cur *authstorev1.Schedule) *authstorev1.Schedule) error {
	cur, rev, err := b.Get(ctx, key)
	if err != nil && !errors.Is(err, kv.ErrNotFound) {
		return err
	}
	next := fn(proto.CloneOf(cur))
	switch {
	case cur == nil && next == nil, cur != nil && next != nil && proto.Equal(cur, next):
		return nil
	case next == nil:
		err = b.Delete(ctx, key, rev)
		if errors.Is(err, kv.ErrNotFound) {
			err = nil
		}
	case cur == nil:
		_, err = b.Create(ctx, key, next)
	default:
		_, err = b.CompareAndSet(ctx, key, next, rev)
	}
	return err
}

// Watch calls onChange for every schedule, and for every change of one (nil when it is gone), until
// ctx is done; one call at a time.
func (s *Schedules) Watch(ctx context.Context, onChange func(workspace string, v *authstorev1.Schedule)) error {
	b, err := s.opened()
	if err != nil {
		return err
	}
	m := kv.NewMirror(b)
	m.OnChange(func(key string, v *authstorev1.Schedule) {
		if ws, ok := WorkspaceOf(key); ok {
			onChange(ws, v)
		}
	})
	s.mirror.Store(m)
	return m.Run(ctx)
}

// Ready is nil once Watch has seen all schedules.
func (s *Schedules) Ready(ctx context.Context) error {
	m := s.mirror.Load()
	if m == nil {
		return fmt.Errorf("%w: bucket %s is not watched yet", kv.ErrNotReady, s.cfg.Name)
	}
	return m.Ready(ctx)
}

// Workspaces yields the workspaces that have a schedule. It walks the bucket: for the sweep only.
func (s *Schedules) Workspaces(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		b, err := s.opened()
		if err != nil {
			yield("", err)
			return
		}
		eachWorkspace(b.Keys(ctx, ">"), yield)
	}
}
