package streams_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/engine"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/deployer/internal/record/streams"
)

func TestEnsure_streamsFitASmallDisk(t *testing.T) {
	js := testkit.NATSWith(t, engine.NATSConfig{CanaryInterval: -1, MaxStore: 512 << 20}).JS()
	var reserved int64
	for _, def := range []stream.Definition{stream.Pushes, streams.Work, stream.Events, streams.Logs, streams.Outcomes, stream.DeadLetters} {
		s, err := stream.Ensure(t.Context(), js, def, stream.Options{})
		if err != nil {
			t.Fatalf("%s: %v", def.Config.Name, err)
		}
		reserved += s.CachedInfo().Config.MaxBytes
		// Neither a second look nor newer settings may fail for want of the full size.
		for range 2 {
			if _, err := stream.Ensure(t.Context(), js, def, stream.Options{}); err != nil {
				t.Fatalf("%s again: %v", def.Config.Name, err)
			}
			def.Version++
		}
	}
	if reserved > 512<<20 {
		t.Fatalf("%d bytes reserved", reserved)
	}
}

func TestDefinitions_areWhatTheDesignSays(t *testing.T) {
	day := 24 * time.Hour
	for _, c := range []struct {
		def       stream.Definition
		name      string
		retention jetstream.RetentionPolicy
		maxAge    time.Duration
	}{
		{streams.Work, "DEVPILOT_WORK", jetstream.WorkQueuePolicy, 0},
		{streams.Logs, "DEVPILOT_LOGS", jetstream.LimitsPolicy, 30 * day},
		{streams.Outcomes, "DEVPILOT_OUTCOMES", jetstream.WorkQueuePolicy, 7 * day},
	} {
		cfg := c.def.Config
		if cfg.Name != c.name || cfg.Retention != c.retention || cfg.MaxAge != c.maxAge {
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
	if streams.Work.Config.Discard != jetstream.DiscardNew {
		t.Error("a full work queue must refuse, not forget")
	}
}

// Per-subject limits with discard-old delete the message a worker is busy with; the work queue has
// none, so that a newer wake-up leaves the one in hand alone.
func TestFact_aNewerWakeUpLeavesTheOneInHandAlone(t *testing.T) {
	js := testkit.JS(t)
	if _, err := stream.Ensure(t.Context(), js, streams.Work, stream.Options{}); err != nil {
		t.Fatal(err)
	}
	subject, err := streams.WorkSubject("default", "acme-inc", "web")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), subject, []byte("1")); err != nil {
		t.Fatal(err)
	}
	c, err := stream.EnsureConsumer(t.Context(), js, streams.WorkStream, jetstream.ConsumerConfig{Durable: "c", AckPolicy: jetstream.AckExplicitPolicy}, 1)
	if err != nil {
		t.Fatal(err)
	}
	m, err := c.Next()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), subject, []byte("2")); err != nil {
		t.Fatal(err)
	}
	s, err := js.Stream(t.Context(), streams.WorkStream)
	if err != nil || s.CachedInfo().State.Msgs != 2 {
		t.Fatalf("%d messages, %v", s.CachedInfo().State.Msgs, err)
	}
	if err := m.DoubleAck(t.Context()); err != nil {
		t.Fatal(err)
	}
	if m, err = c.Next(); err != nil || string(m.Data()) != "2" {
		t.Fatalf("next: %v, %v", m, err)
	}
}
