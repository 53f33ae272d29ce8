package testkit

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/engine"
	"devpilot.io/bitbucket/pkg/stream"
)

// StreamsFit checks that a small disk has room for all these streams together, and that ensuring one
// again, also with newer settings, does not fail for want of its full size.
func StreamsFit(t testing.TB, defs ...stream.Definition) {
	t.Helper()
	const disk = 512 << 20
	js := NATSWith(t, engine.NATSConfig{CanaryInterval: -1, MaxStore: disk}).JS()
	var reserved int64
	for _, def := range defs {
		s, err := stream.Ensure(t.Context(), js, def, stream.Options{})
		if err != nil {
			t.Fatalf("%s: %v", def.Config.Name, err)
		}
		reserved += s.CachedInfo().Config.MaxBytes
		for range 2 {
			if _, err := stream.Ensure(t.Context(), js, def, stream.Options{}); err != nil {
				t.Fatalf("%s again: %v", def.Config.Name, err)
			}
			def.Version++
		}
	}
	if reserved > disk {
		t.Fatalf("%d bytes reserved", reserved)
	}
}

// StreamIs checks a stream's name, retention and age, and what holds for every stream of ours.
func StreamIs(t testing.TB, def stream.Definition, name string, retention jetstream.RetentionPolicy, maxAge time.Duration) {
	t.Helper()
	cfg := def.Config
	if cfg.Name != name || cfg.Retention != retention || cfg.MaxAge != maxAge {
		t.Errorf("%s: %v, %v", cfg.Name, cfg.Retention, cfg.MaxAge)
	}
	// A disk that fills up blocks a stream until restart, so that every one has a bound.
	if cfg.MaxBytes <= 0 || cfg.Storage != jetstream.FileStorage {
		t.Errorf("%s: %d bytes at most, storage %v", cfg.Name, cfg.MaxBytes, cfg.Storage)
	}
	// A per-subject limit with discard-old would delete a message that is being worked on.
	if cfg.MaxMsgsPerSubject != 0 {
		t.Errorf("%s has a per-subject limit", cfg.Name)
	}
}
