package stream_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"
)

// What JetStream does, and this package is built around (DESIGN.md#jetstream). A test here that
// fails after an upgrade says that a fact has changed, not that our code is wrong.

// A publisher that lost its connection still sends buffered messages later: ours do not.
func TestFact_nothingIsSentLaterThanItsRefusal(t *testing.T) {
	s := testkit.NATS(t)
	nc, js := s.Connect()
	def := stream.Definition{Version: 1, Config: jetstream.StreamConfig{Name: "Q", Subjects: []string{"q.>"}}}
	if _, err := stream.Ensure(t.Context(), js, def, stream.Options{}); err != nil {
		t.Fatal(err)
	}
	s.Stop()
	testkit.Eventually(t, wait, func() error {
		if nc.IsConnected() {
			return errors.New("still connected")
		}
		return nil
	})
	start := time.Now()
	for i := range 10 {
		_, err := (stream.Publisher{JS: js}).Publish(t.Context(), &nats.Msg{Subject: fmt.Sprintf("q.%d", i)})
		if err == nil {
			t.Fatal("published to a server that is down")
		}
	}
	if d := time.Since(start); d > 5*stream.PublishTimeout {
		t.Errorf("ten refusals took %v", d)
	}
	s.Start()
	testkit.Eventually(t, wait, func() error {
		_, err := (stream.Publisher{JS: js}).Publish(t.Context(), &nats.Msg{Subject: "q.last"}, jetstream.WithMsgID("last"))
		return err
	})
	st, err := js.Stream(t.Context(), "Q")
	if err != nil {
		t.Fatal(err)
	}
	if n := st.CachedInfo().State.Msgs; n != 1 {
		t.Fatalf("%d messages stored, of which all but one had been refused", n)
	}
}

func TestPublisher_hasADeadline(t *testing.T) {
	t.Parallel()
	s := testkit.RealNATS(t)
	_, js := s.Connect()
	queue(t, js, 0)
	s.Stop() // frozen: the connection stays, nothing answers
	defer s.Continue()
	start := time.Now()
	if _, err := (stream.Publisher{JS: js}).Publish(context.Background(), &nats.Msg{Subject: "q.x"}); err == nil {
		t.Fatal("acknowledged by a frozen server")
	}
	if d := time.Since(start); d < stream.PublishTimeout/2 || d > 10*stream.PublishTimeout {
		t.Fatalf("gave up after %v", d)
	}
}

// Delayed naks fill MaxAckPending: work that waits is acknowledged and kept elsewhere.
func TestFact_delayedNaksFillMaxAckPending(t *testing.T) {
	js := testkit.JS(t)
	queue(t, js, 3)
	c, err := stream.EnsureConsumer(t.Context(), js, "Q", jetstream.ConsumerConfig{Durable: "c", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 2}, 1)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		m, err := c.Next(jetstream.FetchMaxWait(5 * time.Second))
		if err != nil {
			t.Fatal(err)
		}
		if err := m.NakWithDelay(time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	if m, err := c.Next(jetstream.FetchMaxWait(300 * time.Millisecond)); err == nil {
		t.Fatalf("got %s: two delayed messages do not block the third any more", m.Subject())
	}
}

// Message-id windows are minutes: an optimisation, which this test shows and nothing relies on.
func TestFact_messageIDsAreAWindow(t *testing.T) {
	js := testkit.JS(t)
	s, err := stream.Ensure(t.Context(), js, stream.Pushes, stream.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if d := s.CachedInfo().Config.Duplicates; d != 2*time.Minute {
		t.Fatalf("window of %v", d)
	}
	subject, err := stream.PushSubject("acme-inc", "85d08b4e-571d-44e9-a507-fa476535aa98")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		ack, err := js.Publish(t.Context(), subject, nil, jetstream.WithMsgID("w1.1.0"))
		if err != nil || ack.Duplicate != (i == 1) {
			t.Fatalf("publish %d: duplicate %v, %v", i, ack.Duplicate, err)
		}
	}
}

// DoubleAck waits for the server's confirmation: the acknowledgement carries a reply subject.
func TestConsume_doubleAckWaitsForTheServer(t *testing.T) {
	for _, double := range []bool{false, true} {
		t.Run(fmt.Sprint(double), func(t *testing.T) {
			s := testkit.NATS(t)
			nc, js := s.Connect()
			acks, err := nc.SubscribeSync("$JS.ACK.>")
			if err != nil {
				t.Fatal(err)
			}
			queue(t, js, 1)
			consume(t, stream.ConsumeConfig{JS: js, DoubleAck: double, Handle: func(context.Context, stream.Msg) error { return nil }})
			m, err := acks.NextMsg(wait)
			if err != nil {
				t.Fatal(err)
			}
			if confirmed := m.Reply != ""; confirmed != double {
				t.Fatalf("DoubleAck %v, but the acknowledgement asks for confirmation: %v", double, confirmed)
			}
			testkit.Eventually(t, wait, left(t, js))
		})
	}
}

// After kill -9 messages come again, acknowledged ones at times too; none is lost.
func TestConsume_losesNothingOverKill(t *testing.T) {
	t.Parallel()
	s := testkit.RealNATS(t)
	_, js := s.Connect()
	const n = 60
	queue(t, js, n)
	var got seen
	var handled atomic.Int32
	half := make(chan struct{})
	consume(t, stream.ConsumeConfig{JS: js, Slots: 2, AckWait: time.Second, DoubleAck: true, Handle: func(_ context.Context, m stream.Msg) error {
		got.add(m)
		if handled.Add(1) == n/2 {
			close(half)
		}
		return nil
	}})
	<-half
	s.Restart()
	testkit.Eventually(t, wait, left(t, js))
	all := got.data()
	slices.Sort(all)
	if d := slices.Compact(all); len(d) != n {
		t.Fatalf("%d of %d messages handled", len(d), n)
	}
	t.Logf("%d messages handled, %d times", n, handled.Load())
}
