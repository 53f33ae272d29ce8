package stream_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"
)

func definition(version int, maxAge time.Duration) stream.Definition {
	return stream.Definition{Version: version, Config: jetstream.StreamConfig{Name: "S", Subjects: []string{"s.>"}, MaxAge: maxAge, Discard: jetstream.DiscardOld}}
}

// DESIGN.md#jetstream: an older replica's CreateOrUpdate reverts newer settings.
func TestEnsure_lowerVersionNeverOverwritesHigher(t *testing.T) {
	js := testkit.JS(t)
	for _, step := range []struct {
		def  stream.Definition
		want time.Duration
	}{
		{definition(1, time.Hour), time.Hour},
		{definition(2, 2*time.Hour), 2 * time.Hour},
		{definition(1, time.Hour), 2 * time.Hour}, // the old replica restarts
		{definition(3, 3*time.Hour), 3 * time.Hour},
		{definition(2, 2*time.Hour), 3 * time.Hour},
	} {
		s, err := stream.Ensure(t.Context(), js, step.def, stream.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if got := s.CachedInfo().Config.MaxAge; got != step.want {
			t.Fatalf("after version %d: MaxAge %v, want %v", step.def.Version, got, step.want)
		}
	}
}

func TestEnsureConsumer_lowerVersionNeverOverwritesHigher(t *testing.T) {
	js := testkit.JS(t)
	if _, err := stream.Ensure(t.Context(), js, definition(1, 0), stream.Options{}); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		version       int
		ackWait, want time.Duration
	}{
		{1, time.Second, time.Second},
		{2, 2 * time.Second, 2 * time.Second},
		{1, time.Second, 2 * time.Second},
	} {
		cfg := jetstream.ConsumerConfig{Durable: "c", AckPolicy: jetstream.AckExplicitPolicy, AckWait: step.ackWait}
		c, err := stream.EnsureConsumer(t.Context(), js, "S", cfg, step.version)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.CachedInfo().Config.AckWait; got != step.want {
			t.Fatalf("after version %d: AckWait %v, want %v", step.version, got, step.want)
		}
	}
}

func TestEnsure_manyReplicasAtOnce(t *testing.T) {
	s := testkit.NATS(t)
	js := s.JS()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			v := i%2 + 1
			if _, err := stream.Ensure(t.Context(), js, definition(v, time.Duration(v)*time.Hour), stream.Options{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	// Whatever the order: once a replica of version 2 has looked again, version 2 it is.
	st, err := stream.Ensure(t.Context(), js, definition(2, 2*time.Hour), stream.Options{})
	if err != nil || st.CachedInfo().Config.MaxAge != 2*time.Hour {
		t.Fatalf("%v, %v", st.CachedInfo().Config.MaxAge, err)
	}
}

func TestEnsure_putsRightWhatSomebodyElseTurned(t *testing.T) {
	js := testkit.JS(t)
	s, err := stream.Ensure(t.Context(), js, definition(1, time.Hour), stream.Options{})
	if err != nil {
		t.Fatal(err)
	}
	cfg := s.CachedInfo().Config
	cfg.AllowDirect, cfg.MaxAge = true, 0
	if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if s, err = stream.Ensure(t.Context(), js, definition(1, time.Hour), stream.Options{}); err != nil {
		t.Fatal(err)
	}
	if got := s.CachedInfo().Config; got.AllowDirect || got.MaxAge != time.Hour {
		t.Fatalf("direct %v, age %v", got.AllowDirect, got.MaxAge)
	}
}

func TestDefinitions_areWhatTheDesignSays(t *testing.T) {
	day := 24 * time.Hour
	testkit.StreamIs(t, stream.Pushes, "DEVPILOT_PUSHES", jetstream.LimitsPolicy, 7*day)
	testkit.StreamIs(t, stream.Events, "DEVPILOT_EVENTS", jetstream.LimitsPolicy, 7*day)
	testkit.StreamIs(t, stream.DeadLetters, "DEVPILOT_DEAD_LETTERS", jetstream.LimitsPolicy, 90*day)
}

func TestEnsure_unreachableStreamIsAnError(t *testing.T) {
	s := testkit.NATS(t)
	js := s.JS()
	s.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, err := stream.Ensure(ctx, js, definition(1, 0), stream.Options{}); err == nil {
		t.Fatal("ensured without a server")
	} else if errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Fatalf("an outage looks like a missing stream: %v", err)
	}
}

// lossy is a JetStream whose first answers about what is made are lost, after it was made or before.
type lossy struct {
	jetstream.JetStream
	made bool
	lose int
}

func (l *lossy) lost(ctx context.Context) bool {
	if l.lose == 0 {
		return false
	}
	l.lose--
	<-ctx.Done()
	return true
}

func (l *lossy) CreateStream(ctx context.Context, cfg jetstream.StreamConfig) (s jetstream.Stream, err error) {
	if l.made {
		s, err = l.JetStream.CreateStream(ctx, cfg)
	}
	if l.lost(ctx) {
		return nil, ctx.Err()
	}
	if !l.made {
		s, err = l.JetStream.CreateStream(ctx, cfg)
	}
	return s, err
}

func (l *lossy) CreateConsumer(ctx context.Context, stream string, cfg jetstream.ConsumerConfig) (c jetstream.Consumer, err error) {
	if l.made {
		c, err = l.JetStream.CreateConsumer(ctx, stream, cfg)
	}
	if l.lost(ctx) {
		return nil, ctx.Err()
	}
	if !l.made {
		c, err = l.JetStream.CreateConsumer(ctx, stream, cfg)
	}
	return c, err
}

// A cluster whose leaders change loses answers. One lost answer is no lost start.
func TestEnsure_asksAgainWhenAnAnswerIsLost(t *testing.T) {
	for name, made := range map[string]bool{"after it was made": true, "before it was made": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			js := testkit.JS(t)
			s, err := stream.Ensure(t.Context(), &lossy{JetStream: js, made: made, lose: 1}, definition(1, time.Hour), stream.Options{})
			if err != nil || s.CachedInfo().Config.MaxAge != time.Hour {
				t.Fatalf("the stream: %v", err)
			}
			cfg := jetstream.ConsumerConfig{Durable: "c", AckPolicy: jetstream.AckExplicitPolicy, AckWait: time.Minute}
			c, err := stream.EnsureConsumer(t.Context(), &lossy{JetStream: js, made: made, lose: 1}, "S", cfg, 1)
			if err != nil || c.CachedInfo().Config.AckWait != time.Minute {
				t.Fatalf("the consumer: %v", err)
			}
		})
	}
}
