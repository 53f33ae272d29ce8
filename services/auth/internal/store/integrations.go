package store

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"sync/atomic"

	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/kv"
	authstorev1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/store/v1"
)

// The buckets. Each holds one record per workspace and provider.
const (
	// BucketIntegrations: authstorev1.Integration under <workspace>.bitbucket; erased securely.
	BucketIntegrations = "DEVPILOT_AUTH_INTEGRATIONS"
	// BucketSchedules: authstorev1.Schedule under <workspace>.bitbucket; no secrets.
	BucketSchedules = "DEVPILOT_AUTH_SCHEDULES"
)

// Provider is the only provider there is; part of every key.
const Provider = "bitbucket"

// Key is the key of a workspace's integration in both buckets.
func Key(workspace string) string { return kv.EncodeKey(workspace, Provider) }

// WorkspaceOf reads a key; ok is false for one that Key did not make.
func WorkspaceOf(key string) (workspace string, ok bool) {
	parts, err := kv.DecodeKey(key)
	if err != nil || len(parts) != 2 || parts[1] != Provider {
		return "", false
	}
	return parts[0], true
}

type integrationBucket = kv.Bucket[authstorev1.Integration, *authstorev1.Integration]

// Integrations is the bucket of integrations. It is safe for concurrent use. Until Open has
// succeeded every call answers kv.ErrUnavailable.
type Integrations struct {
	js     jetstream.JetStream
	cfg    kv.Config
	bucket atomic.Pointer[integrationBucket]
}

// NewIntegrations does no I/O.
func NewIntegrations(js jetstream.JetStream, logger *slog.Logger) *Integrations {
	return &Integrations{js: js, cfg: integrationsConfig(logger)}
}

func integrationsConfig(logger *slog.Logger) kv.Config {
	return kv.Config{Name: BucketIntegrations, Version: 1, SecureErase: true, Inventory: "auth", Logger: logger}
}

// Open makes the bucket or brings it up to date, and erases what a process left that died between a
// write and its erasure. It may be called again after an error.
func (s *Integrations) Open(ctx context.Context) error {
	b, err := kv.Open[authstorev1.Integration](ctx, s.js, s.cfg)
	if err != nil {
		return fmt.Errorf("open the integrations: %w", err)
	}
	s.bucket.Store(b)
	return nil
}

// Ready is nil once the bucket is open, while no record of it was found lost.
func (s *Integrations) Ready() error {
	b, err := s.opened()
	if err != nil {
		return err
	}
	return b.Intact()
}

func (s *Integrations) opened() (*integrationBucket, error) {
	if b := s.bucket.Load(); b != nil {
		return b, nil
	}
	return nil, fmt.Errorf("%w: bucket %s is not open yet", kv.ErrUnavailable, s.cfg.Name)
}

// Get returns the workspace's integration and its revision, or kv.ErrNotFound.
func (s *Integrations) Get(ctx context.Context, workspace string) (*authstorev1.Integration, uint64, error) {
	b, err := s.opened()
	if err != nil {
		return nil, 0, err
	}
	return b.Get(ctx, Key(workspace))
}

// CompareAndSet replaces the integration if its revision is still rev, else kv.ErrConflict. The
// replaced revision is overwritten on disk.
func (s *Integrations) CompareAndSet(ctx context.Context, workspace string, rec *authstorev1.Integration, rev uint64) (uint64, error) {
	b, err := s.opened()
	if err != nil {
		return 0, err
	}
	return b.CompareAndSetErasing(ctx, Key(workspace), rec, rev)
}

// Update changes the integration by compare-and-set; fn gets nil when there is none, and may run
// several times (kv.Bucket.Update).
func (s *Integrations) Update(ctx context.Context, workspace string, fn func(cur *authstorev1.Integration) (*authstorev1.Integration, error)) (*authstorev1.Integration, uint64, error) {
	b, err := s.opened()
	if err != nil {
		return nil, 0, err
	}
	return b.Update(ctx, Key(workspace), fn)
}

// Remove deletes the integration if its revision is still rev, else kv.ErrConflict, and overwrites
// all its revisions on disk. Once it returns nil the bytes are gone.
func (s *Integrations) Remove(ctx context.Context, workspace string, rev uint64) error {
	b, err := s.opened()
	if err != nil {
		return err
	}
	return b.Delete(ctx, Key(workspace), rev)
}

// Erase overwrites what may be left on disk of an integration that was removed before.
func (s *Integrations) Erase(ctx context.Context, workspace string) error {
	b, err := s.opened()
	if err != nil {
		return err
	}
	return b.Erase(ctx, Key(workspace))
}

// Workspaces yields the workspaces that have an integration. It walks the bucket: for the sweep
// only.
func (s *Integrations) Workspaces(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		b, err := s.opened()
		if err != nil {
			yield("", err)
			return
		}
		eachWorkspace(b.Keys(ctx, ">"), yield)
	}
}

func eachWorkspace(keys iter.Seq2[string, error], yield func(string, error) bool) {
	for key, err := range keys {
		if err != nil {
			yield("", err)
			return
		}
		if ws, ok := WorkspaceOf(key); ok && !yield(ws, nil) {
			return
		}
	}
}

// RelayChanges publishes a change event (kind "integration", id "bitbucket") for every change of an
// integration, until ctx is done.
func (s *Integrations) RelayChanges(ctx context.Context, logger *slog.Logger) error {
	return kv.RelayChanges(ctx, s.js, kv.RelayConfig{
		Bucket: BucketIntegrations, Service: "auth", Durable: "auth-changes", Logger: logger,
		Describe: func(key string, _ bool) (workspace, kind, id string, ok bool) {
			workspace, ok = WorkspaceOf(key)
			return workspace, "integration", Provider, ok
		},
	})
}
