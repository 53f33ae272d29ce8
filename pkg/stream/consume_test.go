package stream_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"
)

func TestConsume_handlesEachMessageOnce(t *testing.T) {
	leaks := goleak.IgnoreCurrent()
	t.Run("run", func(t *testing.T) {
		js := testkit.JS(t)
		queue(t, js, 50)
		var got seen
		c := consume(t, stream.ConsumeConfig{JS: js, Slots: 4, Handle: func(_ context.Context, m stream.Msg) error {
			got.add(m)
			return nil
		}})
		testkit.Eventually(t, wait, left(t, js))
		c.stop(t)
		all := got.data()
		slices.Sort(all)
		if len(all) != 50 || len(slices.Compact(all)) != 50 {
			t.Fatalf("handled %v", all)
		}
	})
	testkit.Eventually(t, wait, func() error { return goleak.Find(leaks) })
}

// DESIGN.md#jetstream: workers fetch one message per free slot; prefetch starves the others.
func TestConsume_oneMessagePerFreeSlot(t *testing.T) {
	s := testkit.NATS(t)
	js := s.JS()
	queue(t, js, 5)
	release := make(chan struct{})
	busy := make(chan string, 5)
	consume(t, stream.ConsumeConfig{JS: js, Slots: 1, Handle: func(_ context.Context, m stream.Msg) error {
		busy <- string(m.Data)
		<-release
		return nil
	}})
	first := <-busy

	var others seen
	consume(t, stream.ConsumeConfig{JS: s.JS(), Slots: 1, Handle: func(_ context.Context, m stream.Msg) error {
		others.add(m)
		return nil
	}})
	testkit.Eventually(t, wait, func() error {
		if got := others.data(); len(got) != 4 || slices.Contains(got, first) {
			return fmt.Errorf("the second worker got %v beside %s", got, first)
		}
		return nil
	})
	close(release)
	testkit.Eventually(t, wait, left(t, js))
}

// A finite MaxDeliver drops a message whose worker dies on its last try.
func TestConsume_consumerSettings(t *testing.T) {
	js := testkit.JS(t)
	queue(t, js, 1)
	done := make(chan struct{}, 1)
	consume(t, stream.ConsumeConfig{JS: js, AckWait: 7 * time.Second, Handle: func(context.Context, stream.Msg) error {
		done <- struct{}{}
		return nil
	}})
	<-done
	c, err := js.Consumer(t.Context(), "Q", "c")
	if err != nil {
		t.Fatal(err)
	}
	cfg := c.CachedInfo().Config
	if cfg.MaxDeliver != -1 || cfg.AckPolicy != jetstream.AckExplicitPolicy || cfg.AckWait != 7*time.Second || cfg.MaxAckPending != 10_000 {
		t.Fatalf("%+v", cfg)
	}
}

func TestConsume_parksPoisonAfterItsAttempts(t *testing.T) {
	js := testkit.JS(t)
	queue(t, js, 0)
	msg := &nats.Msg{Subject: "q.poison", Data: []byte("bad"), Header: nats.Header{"Kept": []string{"yes"}}}
	if _, err := (stream.Publisher{JS: js}).Publish(t.Context(), msg, jetstream.WithMsgID("id-1")); err != nil {
		t.Fatal(err)
	}
	publish(t, js, 1)
	var attempts seen
	var good atomic.Int32
	consume(t, stream.ConsumeConfig{JS: js, MaxAttempts: 3, Handle: func(_ context.Context, m stream.Msg) error {
		if m.Subject != "q.poison" {
			good.Add(1)
			return nil
		}
		attempts.add(m)
		if m.Attempt == 2 {
			panic("on the second attempt")
		}
		return errors.New("cannot\nread it")
	}})
	testkit.Eventually(t, wait, left(t, js))
	for i, m := range attempts.msgs {
		if m.Attempt != i+1 {
			t.Errorf("attempt %d counted as %d", i+1, m.Attempt)
		}
	}
	if len(attempts.msgs) != 3 || good.Load() != 1 {
		t.Fatalf("%d attempts, %d good ones", len(attempts.msgs), good.Load())
	}
	dead := deadLetters(t, js)
	if len(dead) != 1 {
		t.Fatalf("%d dead letters", len(dead))
	}
	d := dead[0]
	want := map[string]string{
		stream.HeaderDeadStream: "Q", stream.HeaderDeadConsumer: "c", stream.HeaderDeadSequence: "1", stream.HeaderDeadSubject: "q.poison",
		stream.HeaderDeadAttempts: "3", stream.HeaderDeadReason: "gave up: cannot read it", "Kept": "yes", "Nats-Msg-Id": "",
	}
	for k, v := range want {
		if got := d.Header.Get(k); got != v {
			t.Errorf("header %s is %q, want %q", k, got, v)
		}
	}
	if string(d.Data) != "bad" || d.Subject != "devpilot.dead.v1.Q.c.1" {
		t.Errorf("%q on %s", d.Data, d.Subject)
	}
}

func TestConsume_parkedTwiceIsStoredOnce(t *testing.T) {
	s := testkit.NATS(t)
	js := s.JS()
	queue(t, js, 1)
	// What a process leaves that died after storing the dead letter and before the Term.
	if _, err := stream.Ensure(t.Context(), js, stream.DeadLetters, stream.Options{}); err != nil {
		t.Fatal(err)
	}
	subject, err := stream.DeadLetterSubject("Q", "c", 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), subject, []byte("1")); err != nil {
		t.Fatal(err)
	}
	consume(t, stream.ConsumeConfig{JS: js, Handle: func(context.Context, stream.Msg) error { return stream.Park("no use") }})
	testkit.Eventually(t, wait, left(t, js))
	if n := len(deadLetters(t, js)); n != 1 {
		t.Fatalf("%d dead letters", n)
	}
}

func TestConsume_temporaryTroubleCountsNoAttempt(t *testing.T) {
	js := testkit.JS(t)
	queue(t, js, 1)
	var calls atomic.Int32
	consume(t, stream.ConsumeConfig{JS: js, MaxAttempts: 2, Handle: func(_ context.Context, m stream.Msg) error {
		if m.Attempt != 1 {
			t.Errorf("attempt %d", m.Attempt)
		}
		if calls.Add(1) < 4 {
			return fmt.Errorf("write: %w", stream.ErrTemporary)
		}
		return nil
	}})
	testkit.Eventually(t, wait, left(t, js))
	if calls.Load() != 4 || len(deadLetters(t, js)) != 0 {
		t.Fatalf("%d calls, %d dead letters", calls.Load(), len(deadLetters(t, js)))
	}
}

func TestConsume_keepsAMessageAliveWhileItsHandlerRuns(t *testing.T) {
	t.Parallel()
	js := testkit.JS(t)
	queue(t, js, 1)
	var calls atomic.Int32
	finish := make(chan struct{})
	consume(t, stream.ConsumeConfig{JS: js, Slots: 2, AckWait: 2 * time.Second, Handle: func(context.Context, stream.Msg) error {
		calls.Add(1)
		<-finish
		return nil
	}})
	// More than twice AckWait, seen on a timer of the test's own: there is no event to wait for.
	<-time.After(5 * time.Second)
	close(finish)
	testkit.Eventually(t, wait, left(t, js))
	if calls.Load() != 1 {
		t.Fatalf("handled %d times", calls.Load())
	}
}

// The server delivers a message again when it missed our signs of life, be it because it was away
// itself: the one that is being handled here is not handled twice, and is acknowledged once.
func TestConsume_aMessageInHandIsNotHandledTwice(t *testing.T) {
	t.Parallel()
	s := testkit.NATS(t)
	js := s.JS()
	queue(t, js, 1)
	var calls atomic.Int32
	started := make(chan struct{}, 2)
	finish := make(chan struct{})
	log := testkit.Logger(t)
	consume(t, stream.ConsumeConfig{JS: js, Slots: 2, Logger: log.Logger, AckWait: time.Second, Handle: func(context.Context, stream.Msg) error {
		calls.Add(1)
		started <- struct{}{}
		<-finish
		return nil
	}})
	<-started
	s.Stop()
	<-time.After(1200 * time.Millisecond) // AckWait passes while nobody can hear us
	s.Start()
	other := s.JS()
	testkit.Eventually(t, wait, func() error { // a copy that is taken later is another delivery
		if !log.Contains("message came again while in hand") {
			return errors.New("not delivered again yet")
		}
		return nil
	})
	close(finish)
	testkit.Eventually(t, wait, left(t, other))
	if calls.Load() != 1 {
		t.Fatalf("handled %d times", calls.Load())
	}
}

func TestConsume_leftMessagesComeAgain(t *testing.T) {
	js := testkit.JS(t)
	queue(t, js, 1)
	var attempts seen
	consume(t, stream.ConsumeConfig{JS: js, AckWait: time.Second, MaxAttempts: 1, Handle: func(_ context.Context, m stream.Msg) error {
		attempts.add(m)
		if m.Attempt == 1 {
			return fmt.Errorf("taken over: %w", stream.ErrLeave)
		}
		return stream.ErrDone
	}})
	testkit.Eventually(t, wait, left(t, js))
	if len(attempts.msgs) != 2 || len(deadLetters(t, js)) != 0 {
		t.Fatalf("%d attempts, %d dead letters", len(attempts.msgs), len(deadLetters(t, js)))
	}
}

func TestConsume_countsWhatBecomesOfMessages(t *testing.T) {
	js := testkit.JS(t)
	queue(t, js, 4)
	reg := prometheus.NewRegistry()
	m, err := stream.NewMetrics(reg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.NewMetrics(reg); err != nil {
		t.Fatalf("a second consumer of the process: %v", err)
	}
	consume(t, stream.ConsumeConfig{JS: js, Metrics: m, Handle: func(_ context.Context, m stream.Msg) error {
		switch {
		case string(m.Data) == "1":
			return stream.Park("for the count")
		case string(m.Data) == "2" && m.Attempt == 1:
			return errors.New("once")
		}
		return nil
	}})
	testkit.Eventually(t, wait, left(t, js))
	want := `# HELP devpilot_stream_messages_total Messages by what became of them: done, retried, parked, left or interrupted.
# TYPE devpilot_stream_messages_total counter
devpilot_stream_messages_total{consumer="c",outcome="done",stream="Q"} 3
devpilot_stream_messages_total{consumer="c",outcome="interrupted",stream="Q"} 0
devpilot_stream_messages_total{consumer="c",outcome="left",stream="Q"} 0
devpilot_stream_messages_total{consumer="c",outcome="parked",stream="Q"} 1
devpilot_stream_messages_total{consumer="c",outcome="retried",stream="Q"} 1
`
	testkit.Eventually(t, wait, func() error {
		return testutil.GatherAndCompare(reg, strings.NewReader(want), "devpilot_stream_messages_total")
	})
}

func TestConsume_stopLetsHandlersFinish(t *testing.T) {
	js := testkit.JS(t)
	queue(t, js, 3)
	started := make(chan struct{}, 3)
	finish := make(chan struct{})
	var handled atomic.Int32
	c := consume(t, stream.ConsumeConfig{JS: js, Handle: func(ctx context.Context, _ stream.Msg) error {
		started <- struct{}{}
		<-finish
		if ctx.Err() != nil {
			t.Error("the handler's context was cut within its drain time")
		}
		handled.Add(1)
		return nil
	}})
	<-started
	c.cancel()
	close(finish)
	c.stop(t)
	if handled.Load() != 1 {
		t.Fatalf("%d messages handled after the stop", handled.Load())
	}
	testkit.Eventually(t, wait, func() error {
		s, err := js.Stream(t.Context(), "Q")
		if err == nil && s.CachedInfo().State.Msgs != 2 {
			err = fmt.Errorf("%d messages left", s.CachedInfo().State.Msgs)
		}
		return err
	})
}

func TestConsume_stopCutsHandlersThatDoNotEnd(t *testing.T) {
	js := testkit.JS(t)
	queue(t, js, 1)
	started := make(chan struct{}, 1)
	c := consume(t, stream.ConsumeConfig{JS: js, DrainTimeout: 50 * time.Millisecond, AckWait: time.Minute, Handle: func(ctx context.Context, _ stream.Msg) error {
		started <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}})
	<-started
	c.stop(t)
	// The next process gets it at once, not after AckWait.
	next := make(chan stream.Msg, 1)
	consume(t, stream.ConsumeConfig{JS: js, Handle: func(_ context.Context, m stream.Msg) error {
		next <- m
		return nil
	}})
	select {
	case m := <-next:
		if m.Attempt != 2 {
			t.Fatalf("attempt %d", m.Attempt)
		}
	case <-time.After(wait):
		t.Fatal("an interrupted message does not come again")
	}
}

func TestConsume_survivesARestartOfNATS(t *testing.T) {
	t.Parallel()
	s := testkit.NATS(t)
	js := s.JS()
	queue(t, js, 3)
	var got seen
	consume(t, stream.ConsumeConfig{JS: js, AckWait: 2 * time.Second, Handle: func(_ context.Context, m stream.Msg) error {
		got.add(m)
		return nil
	}})
	testkit.Eventually(t, wait, left(t, js))
	s.Restart()
	testkit.Eventually(t, wait, func() error {
		_, err := js.Publish(t.Context(), "q.after", []byte("after"), jetstream.WithMsgID("after"))
		return err
	})
	published := time.Now()
	testkit.Eventually(t, wait, func() error {
		if !slices.Contains(got.data(), "after") {
			return errors.New("nothing came after the restart")
		}
		return nil
	})
	// A pull that the server of before has taken with it would end after 30 s.
	if d := time.Since(published); d > 20*time.Second {
		t.Fatalf("the first message after a restart took %v", d)
	}
	testkit.Eventually(t, wait, left(t, js))
}

func TestConsume_survivesTheLossOfItsConsumer(t *testing.T) {
	js := testkit.JS(t)
	queue(t, js, 1)
	var got seen
	consume(t, stream.ConsumeConfig{JS: js, Handle: func(_ context.Context, m stream.Msg) error {
		got.add(m)
		return nil
	}})
	testkit.Eventually(t, wait, left(t, js))
	if err := js.DeleteConsumer(t.Context(), "Q", "c"); err != nil {
		t.Fatal(err)
	}
	publish(t, js, 2)
	testkit.Eventually(t, wait, left(t, js))
}

func TestConsume_waitsForItsStream(t *testing.T) {
	js := testkit.JS(t)
	var got seen
	consume(t, stream.ConsumeConfig{JS: js, Handle: func(_ context.Context, m stream.Msg) error {
		got.add(m)
		return nil
	}})
	queue(t, js, 1)
	testkit.Eventually(t, wait, left(t, js))
}

func TestConsume_refusesAConfigurationThatCannotWork(t *testing.T) {
	log := testkit.Logger(t).Logger
	js := testkit.JS(t)
	handle := func(context.Context, stream.Msg) error { return nil }
	for name, cfg := range map[string]stream.ConsumeConfig{
		"no handler":   {JS: js, Stream: "Q", Durable: "c", Logger: log},
		"two handlers": {JS: js, Stream: "Q", Durable: "c", Logger: log, Handle: handle, HandleBatch: func(context.Context, []stream.Msg) error { return nil }},
		"no durable":   {JS: js, Stream: "Q", Logger: log, Handle: handle},
		"no logger":    {JS: js, Stream: "Q", Durable: "c", Handle: handle},
	} {
		if err := stream.Consume(t.Context(), cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
