package stream_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"
)

const wait = 15 * time.Second

// queue makes a work queue Q on q.> and publishes n messages, "1" to "n", on subjects of their own.
func queue(t *testing.T, js jetstream.JetStream, n int) {
	t.Helper()
	def := stream.Definition{Version: 1, Config: jetstream.StreamConfig{Name: "Q", Subjects: []string{"q.>"}, Retention: jetstream.WorkQueuePolicy, Discard: jetstream.DiscardNew}}
	if _, err := stream.Ensure(t.Context(), js, def, stream.Options{}); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		publish(t, js, i+1)
	}
}

func publish(t *testing.T, js jetstream.JetStream, i int) {
	t.Helper()
	msg := &nats.Msg{Subject: fmt.Sprintf("q.%d", i), Data: []byte(strconv.Itoa(i))}
	if _, err := (stream.Publisher{JS: js, Timeout: wait}).Publish(t.Context(), msg); err != nil {
		t.Fatal(err)
	}
}

// consuming runs a Consume until stop is called or the test ends.
type consuming struct {
	cancel context.CancelFunc
	done   chan struct{}
}

func consume(t *testing.T, cfg stream.ConsumeConfig) *consuming {
	t.Helper()
	if cfg.Stream == "" {
		cfg.Stream = "Q"
	}
	if cfg.Durable == "" {
		cfg.Durable = "c"
	}
	if cfg.Logger == nil {
		cfg.Logger = testkit.Logger(t).Logger
	}
	if cfg.Backoff == nil {
		cfg.Backoff = func(int) time.Duration { return 10 * time.Millisecond }
	}
	ctx, cancel := context.WithCancel(t.Context())
	c := &consuming{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		if err := stream.Consume(ctx, cfg); err != nil {
			t.Errorf("consume: %v", err)
		}
	}()
	t.Cleanup(func() { c.stop(t) })
	return c
}

func (c *consuming) stop(t *testing.T) {
	t.Helper()
	c.cancel()
	select {
	case <-c.done:
	case <-time.After(wait):
		t.Error("consume does not stop")
	}
}

// seen records what handlers got.
type seen struct {
	mu   sync.Mutex
	msgs []stream.Msg
}

func (s *seen) add(m stream.Msg) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.msgs = append(s.msgs, m)
}

func (s *seen) data() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for _, m := range s.msgs {
		all = append(all, string(m.Data))
	}
	return all
}

func left(t *testing.T, js jetstream.JetStream) func() error {
	return func() error {
		s, err := js.Stream(t.Context(), "Q")
		if err != nil {
			return err
		}
		if n := s.CachedInfo().State.Msgs; n != 0 {
			return fmt.Errorf("%d messages left", n)
		}
		return nil
	}
}

func deadLetters(t *testing.T, js jetstream.JetStream) []*jetstream.RawStreamMsg {
	t.Helper()
	s, err := js.Stream(t.Context(), stream.DeadLettersStream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	var all []*jetstream.RawStreamMsg
	for seq := s.CachedInfo().State.FirstSeq; seq <= s.CachedInfo().State.LastSeq; seq++ {
		m, err := s.GetMsg(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, m)
	}
	return all
}
