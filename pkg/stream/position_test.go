package stream_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"
)

// place keeps a position in memory, by the rules of stream.Position.
type place struct {
	mu   sync.Mutex
	made time.Time
	at   uint64
}

func (p *place) Load(_ context.Context, made time.Time) (uint64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.made.Equal(made) {
		return 0, nil
	}
	return p.at, nil
}

func (p *place) Save(_ context.Context, made time.Time, sequence uint64, cutBack bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.made.Equal(made) || sequence > p.at || cutBack {
		p.made, p.at = made, sequence
	}
	return nil
}

func (p *place) sequence() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.at
}

// kept makes a stream Q that keeps its messages, and publishes n of them.
func kept(t *testing.T, js jetstream.JetStream, n int) time.Time {
	t.Helper()
	s, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "Q", Subjects: []string{"q.>"}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		publish(t, js, i+1)
	}
	return s.CachedInfo().Created
}

// untilSeen waits until so many messages came, and until the position says the same.
func untilSeen(t *testing.T, got *seen, n int) {
	t.Helper()
	testkit.Eventually(t, wait, func() error {
		if have := len(got.data()); have < n {
			return fmt.Errorf("%d of %d messages came", have, n)
		}
		return nil
	})
}

func numbered(from, to int) []string {
	var all []string
	for i := from; i <= to; i++ {
		all = append(all, fmt.Sprint(i))
	}
	return all
}

// A consumer on disk, as earlier versions made it, gives way to one in memory that goes on where it stood.
func TestConsume_fromAConsumerOnDiskNothingIsLostOrDoubled(t *testing.T) {
	js := testkit.JS(t)
	kept(t, js, 10)
	var before, after seen
	old := consume(t, stream.ConsumeConfig{JS: js, Handle: func(_ context.Context, m stream.Msg) error {
		before.add(m)
		return nil
	}})
	untilSeen(t, &before, 10)
	old.stop(t)
	have, err := js.Consumer(t.Context(), "Q", "c")
	if err != nil || have.CachedInfo().Config.MemoryStorage || have.CachedInfo().AckFloor.Stream != 10 {
		t.Fatalf("the consumer of before: %v, %+v", err, have)
	}
	for i := range 5 {
		publish(t, js, 11+i)
	}
	p := &place{}
	consume(t, stream.ConsumeConfig{JS: js, Position: p, Handle: func(_ context.Context, m stream.Msg) error {
		after.add(m)
		return nil
	}})
	untilSeen(t, &after, 5)
	publish(t, js, 16)
	untilSeen(t, &after, 6)
	if got := after.data(); !slices.Equal(got, numbered(11, 16)) {
		t.Errorf("after the move came %v", got)
	}
	have, err = js.Consumer(t.Context(), "Q", "c")
	if err != nil || !have.CachedInfo().Config.MemoryStorage {
		t.Errorf("the consumer of now: %v, %+v", err, have.CachedInfo().Config)
	}
}

// A kill after the position was saved, and one after the old consumer was gone too, changes nothing.
func TestConsume_aMoveThatWasCutOffGoesOn(t *testing.T) {
	for name, gone := range map[string]bool{"position saved": false, "consumer deleted": true} {
		t.Run(name, func(t *testing.T) {
			js := testkit.JS(t)
			made := kept(t, js, 10)
			var before, after seen
			old := consume(t, stream.ConsumeConfig{JS: js, Handle: func(_ context.Context, m stream.Msg) error {
				before.add(m)
				return nil
			}})
			untilSeen(t, &before, 10)
			old.stop(t)
			p := &place{made: made, at: 10}
			if gone {
				if err := js.DeleteConsumer(t.Context(), "Q", "c"); err != nil {
					t.Fatal(err)
				}
			}
			publish(t, js, 11)
			consume(t, stream.ConsumeConfig{JS: js, Position: p, Handle: func(_ context.Context, m stream.Msg) error {
				after.add(m)
				return nil
			}})
			untilSeen(t, &after, 1)
			if got := after.data(); !slices.Equal(got, numbered(11, 11)) {
				t.Errorf("after the move came %v", got)
			}
		})
	}
}

// A stream that was restored from before ends sooner than the saved position: what comes from then on is new.
func TestConsume_aPositionBeyondTheStreamsEndIsCutBack(t *testing.T) {
	js := testkit.JS(t)
	made := kept(t, js, 10)
	p := &place{made: made, at: 500}
	var got seen
	running := consume(t, stream.ConsumeConfig{JS: js, Position: p, Handle: func(_ context.Context, m stream.Msg) error {
		got.add(m)
		return nil
	}})
	testkit.Eventually(t, wait, func() error {
		if at := p.sequence(); at != 10 {
			return fmt.Errorf("the position is %d, the stream ends at 10", at)
		}
		return nil
	})
	for i := range 3 {
		publish(t, js, 11+i)
	}
	untilSeen(t, &got, 3)
	if have := got.data(); !slices.Equal(have, numbered(11, 13)) {
		t.Errorf("came %v", have)
	}
	running.stop(t)
	if at := p.sequence(); at != 13 {
		t.Errorf("the position is %d at the end", at)
	}
}

// A stream that was deleted and made again is read from its start.
func TestConsume_aPositionOfAnotherStreamCountsForNothing(t *testing.T) {
	js := testkit.JS(t)
	kept(t, js, 3)
	p := &place{made: time.Unix(1, 0), at: 2}
	var got seen
	consume(t, stream.ConsumeConfig{JS: js, Position: p, Handle: func(_ context.Context, m stream.Msg) error {
		got.add(m)
		return nil
	}})
	untilSeen(t, &got, 3)
	if have := got.data(); !slices.Equal(have, numbered(1, 3)) {
		t.Errorf("came %v", have)
	}
}

// What was handled and acknowledged does not come again after the server has lost its consumer.
func TestConsume_aLostConsumerInMemoryGoesOnAtItsPosition(t *testing.T) {
	js := testkit.JS(t)
	kept(t, js, 5)
	p := &place{}
	var got seen
	handle := func(_ context.Context, m stream.Msg) error {
		got.add(m)
		return nil
	}
	first := consume(t, stream.ConsumeConfig{JS: js, Position: p, Handle: handle})
	untilSeen(t, &got, 5)
	first.stop(t)
	if err := js.DeleteConsumer(t.Context(), "Q", "c"); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		t.Fatal(err)
	}
	publish(t, js, 6)
	consume(t, stream.ConsumeConfig{JS: js, Position: p, Handle: handle})
	untilSeen(t, &got, 6)
	if have := got.data(); !slices.Equal(have, numbered(1, 6)) {
		t.Errorf("came %v", have)
	}
}

// A consumer that began at the stream's end and is lost before anything was handled goes on from there.
func TestConsume_aConsumerOfNewMessagesKeepsItsBeginning(t *testing.T) {
	js := testkit.JS(t)
	made := kept(t, js, 3)
	p := &place{}
	handling := make(chan struct{}, 1)
	cfg := stream.ConsumeConfig{JS: js, Position: p, DeliverNew: true}
	cfg.Handle = func(context.Context, stream.Msg) error {
		handling <- struct{}{}
		return stream.ErrLeave
	}
	first := consume(t, cfg)
	testkit.Eventually(t, wait, func() error {
		_, err := js.Consumer(t.Context(), "Q", "c")
		return err
	})
	publish(t, js, 4)
	<-handling
	left := &place{made: made, at: p.sequence()} // as a kill leaves it
	first.stop(t)
	if err := js.DeleteConsumer(t.Context(), "Q", "c"); err != nil {
		t.Fatal(err)
	}
	var got seen
	cfg.Position = left
	cfg.Handle = func(_ context.Context, m stream.Msg) error {
		got.add(m)
		return nil
	}
	consume(t, cfg)
	publish(t, js, 5)
	untilSeen(t, &got, 2)
	if have := got.data(); !slices.Equal(have, numbered(4, 5)) {
		t.Errorf("came %v", have)
	}
}

// A work queue's consumer lives in memory. When it is lost, what was acknowledged does not come again, and
// what a handler has in hand is not handed to another of the same process.
func TestConsume_aLostConsumerOfAQueueGoesOnWithWhatIsLeft(t *testing.T) {
	js := testkit.JS(t)
	queue(t, js, 2)
	var got seen
	held, release := make(chan struct{}), make(chan struct{})
	log := testkit.Logger(t)
	consume(t, stream.ConsumeConfig{JS: js, Position: stream.Queued, AckWait: time.Second, Slots: 2, DoubleAck: true, Logger: log.Logger, Handle: func(_ context.Context, m stream.Msg) error {
		got.add(m)
		if string(m.Data) == "2" {
			close(held)
			<-release
		}
		return nil
	}})
	<-held
	testkit.Eventually(t, wait, func() error {
		s, err := js.Stream(t.Context(), "Q")
		if err == nil && s.CachedInfo().State.Msgs != 1 {
			err = errors.New("the first is not acknowledged yet")
		}
		return err
	})
	c, err := js.Consumer(t.Context(), "Q", "c")
	if err != nil || !c.CachedInfo().Config.MemoryStorage {
		t.Fatalf("the consumer: %v, %+v", err, c.CachedInfo().Config)
	}
	if err := js.DeleteConsumer(t.Context(), "Q", "c"); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, wait, func() error {
		if !log.Contains("message came again while in hand") {
			return errors.New("not delivered again yet")
		}
		return nil
	})
	close(release)
	testkit.Eventually(t, wait, left(t, js))
	if have := slices.Sorted(slices.Values(got.data())); !slices.Equal(have, numbered(1, 2)) {
		t.Errorf("came %v", have)
	}
}
