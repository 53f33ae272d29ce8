package testkit

import (
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/stream"
)

// StreamIs checks a stream's name, retention and age, and what holds for every stream of ours.
func StreamIs(t testing.TB, def stream.Definition, name string, retention jetstream.RetentionPolicy, maxAge time.Duration) {
	t.Helper()
	cfg := def.Config
	if cfg.Name != name || cfg.Retention != retention || cfg.MaxAge != maxAge {
		t.Errorf("%s: %v, %v", cfg.Name, cfg.Retention, cfg.MaxAge)
	}
	// A disk that fills up blocks a stream until restart, so that every one has a bound: its share.
	shared := slices.ContainsFunc(stream.Shares(), func(s stream.Share) bool { return s.Stream == name })
	if !shared || cfg.Storage != jetstream.FileStorage {
		t.Errorf("%s: has a share %t, storage %v", cfg.Name, shared, cfg.Storage)
	}
	// A per-subject limit with discard-old would delete a message that is being worked on.
	if cfg.MaxMsgsPerSubject != 0 {
		t.Errorf("%s has a per-subject limit", cfg.Name)
	}
}
