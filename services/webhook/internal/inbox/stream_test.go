package inbox_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/services/webhook/internal/inbox"
)

func TestDefinition_isWhatTheDesignSays(t *testing.T) {
	cfg := inbox.Definition.Config
	if cfg.Name != "DEVPILOT_INBOX" || cfg.Retention != jetstream.LimitsPolicy || cfg.MaxAge != 7*24*time.Hour {
		t.Errorf("%s: %v, %v", cfg.Name, cfg.Retention, cfg.MaxAge)
	}
	// A disk that fills up blocks a stream until restart, so that it has a bound.
	if cfg.MaxBytes <= 0 || cfg.Storage != jetstream.FileStorage || cfg.MaxMsgsPerSubject != 0 {
		t.Errorf("%d bytes at most, storage %v, %d messages a subject", cfg.MaxBytes, cfg.Storage, cfg.MaxMsgsPerSubject)
	}
	if cfg.Discard != jetstream.DiscardNew {
		t.Error("a full inbox must refuse, not forget")
	}
}
