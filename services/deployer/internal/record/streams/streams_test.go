package streams_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/deployer/internal/record/streams"
)

func TestDefinitions_areWhatTheDesignSays(t *testing.T) {
	day := 24 * time.Hour
	testkit.StreamIs(t, streams.Work, "DEVPILOT_WORK", jetstream.WorkQueuePolicy, 0)
	testkit.StreamIs(t, streams.Logs, "DEVPILOT_LOGS", jetstream.LimitsPolicy, 30*day)
	testkit.StreamIs(t, streams.Outcomes, "DEVPILOT_OUTCOMES", jetstream.WorkQueuePolicy, 7*day)
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
