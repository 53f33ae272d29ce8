package engine_test

import (
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/engine"
	"devpilot.io/bitbucket/pkg/stream"
)

// Who connects to a server without a listener by another way than ConnectOption reads its streams, and stores and deletes nothing.
func TestNATS_readersOnlyRead(t *testing.T) {
	t.Parallel()
	n, err := engine.StartNATS(t.Context(), engine.NATSConfig{StoreDir: t.TempDir(), CanaryInterval: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() }) // nothing is left to lose
	connect := func(option nats.Option) (*nats.Conn, jetstream.JetStream) {
		nc, js, err := stream.Connect(n.ClientURL(), "test", option)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(nc.Close)
		return nc, js
	}
	_, owner := connect(n.ConnectOption())
	if _, err := owner.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s.>"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := owner.Publish(t.Context(), "s.one", []byte("one")); err != nil {
		t.Fatal(err)
	}
	nc, reader := connect(nats.InProcessServer(n))
	s, err := reader.Stream(t.Context(), "S")
	if err != nil {
		t.Fatal(err)
	}
	consumer, err := s.OrderedConsumer(t.Context(), jetstream.OrderedConsumerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := consumer.Next(); err != nil || string(m.Data()) != "one" {
		t.Errorf("a reader reads %v, %v", m, err)
	}
	for what, subject := range map[string]string{"store": "s.two", "delete": "$JS.API.STREAM.DELETE.S", "purge": "$JS.API.STREAM.PURGE.S", "make": "$JS.API.STREAM.CREATE.T"} {
		if _, err := nc.Request(subject, nil, 200*time.Millisecond); !errors.Is(err, nats.ErrTimeout) && !errors.Is(err, nats.ErrPermissionViolation) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if s, err := owner.Stream(t.Context(), "S"); err != nil || s.CachedInfo().State.Msgs != 1 {
		t.Errorf("the stream after that: %v, %v", s, err)
	}
}
