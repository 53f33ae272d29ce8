package inbox_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/engine"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
	"devpilot.io/bitbucket/services/webhook/internal/inbox"
)

// fakeStream keeps what is published. While block is set, publishing waits for it; while down is
// set, it fails.
type fakeStream struct {
	mu    sync.Mutex
	down  error
	limit int
	packs [][]string // ids of deliveries
	tries [][]string
	gate  chan struct{}
}

func (f *fakeStream) publish(_ context.Context, msg *nats.Msg, _ ...jetstream.PublishOpt) (*jetstream.PubAck, error) {
	f.mu.Lock()
	gate := f.gate
	f.mu.Unlock()
	if gate != nil {
		<-gate
	}
	var pack storev1.InboxPack
	if err := proto.Unmarshal(msg.Data, &pack); err != nil {
		return nil, err
	}
	var ids []string
	for _, d := range pack.GetDeliveries() {
		ids = append(ids, d.GetId())
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tries = append(f.tries, ids)
	switch {
	case f.limit > 0 && len(msg.Data) > f.limit:
		return nil, nats.ErrMaxPayload
	case f.down != nil:
		return nil, f.down
	}
	f.packs = append(f.packs, ids)
	return &jetstream.PubAck{}, nil
}

func (f *fakeStream) set(change func(*fakeStream)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

func (f *fakeStream) stored() (packs [][]string, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.packs {
		n += len(p)
	}
	return f.packs, n
}

func startWriter(t *testing.T, publish inbox.Publish) *inbox.Writer {
	t.Helper()
	w := inbox.NewWriter(inbox.Config{Publish: publish, Logger: logs.Discard()})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := w.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		select {
		case <-done:
		case <-time.After(time.Minute):
			t.Error("Run did not return")
		}
	})
	return w
}

func delivery(id string, size int) *storev1.InboxDelivery {
	return &storev1.InboxDelivery{Id: id, Body: make([]byte, size)}
}

// allWait returns once n deliveries are in the writer's hands and none was answered.
func allWait(t *testing.T, w *inbox.Writer, n int) {
	t.Helper()
	testkit.Eventually(t, 5*time.Second, func() error {
		if waiting := w.Waiting(); waiting < n {
			return fmt.Errorf("%d of %d wait", waiting, n)
		}
		return nil
	})
}

func TestWriter_packsWhatWaits(t *testing.T) {
	f := &fakeStream{gate: make(chan struct{})}
	w := startWriter(t, f.publish)
	const n = 200
	results := make(chan error, n)
	for i := range n {
		go func() { results <- w.Store(delivery(fmt.Sprint(i), 100), time.Minute) }()
	}
	allWait(t, w, n)
	close(f.gate)
	for range n {
		if err := <-results; err != nil {
			t.Fatalf("Store: %v", err)
		}
	}
	packs, stored := f.stored()
	if stored != n {
		t.Errorf("%d of %d stored", stored, n)
	}
	seen := map[string]bool{}
	largest := 0
	for _, p := range packs {
		largest = max(largest, len(p))
		for _, id := range p {
			if seen[id] {
				t.Errorf("%s was stored twice", id)
			}
			seen[id] = true
		}
	}
	if largest > inbox.MaxDeliveries || len(packs) > n/8 {
		t.Errorf("%d messages, the largest of %d deliveries", len(packs), largest)
	}
}

// closedLoop has senders send one delivery after the other, each a moment after the answer to the one
// before, and returns how many messages they took. In a bubble time passes only while all wait, so
// that the count is the same on every machine.
func closedLoop(t *testing.T, senders, each int, write, pause time.Duration) (messages int) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeStream{}
		w := inbox.NewWriter(inbox.Config{Logger: logs.Discard(), Publish: func(ctx context.Context, msg *nats.Msg, opts ...jetstream.PublishOpt) (*jetstream.PubAck, error) {
			<-time.After(write)
			return f.publish(ctx, msg, opts...)
		}})
		ctx, cancel := context.WithCancel(t.Context())
		var running, sending sync.WaitGroup
		running.Go(func() { _ = w.Run(ctx) }) // ends without an error
		for s := range senders {
			sending.Go(func() {
				<-time.After(time.Duration(s) * write / time.Duration(senders)) // not all at once
				for i := range each {
					if err := w.Store(delivery(fmt.Sprint(s, "/", i), 100), time.Minute); err != nil {
						t.Errorf("Store: %v", err)
					}
					<-time.After(pause)
				}
			})
		}
		sending.Wait()
		cancel()
		running.Wait()
		packs, stored := f.stored()
		if stored != senders*each {
			t.Errorf("%d of %d stored", stored, senders*each)
		}
		messages = len(packs)
	})
	return messages
}

// TestWriter_thoseWhoComeBackShareAWrite: half of the senders would else come while the other half is
// being written, for ever.
func TestWriter_thoseWhoComeBackShareAWrite(t *testing.T) {
	const each = 100
	for _, senders := range []int{2, 8, 16, 64} {
		for _, write := range []time.Duration{100 * time.Microsecond, time.Millisecond} {
			for _, pause := range []time.Duration{100 * time.Microsecond, 3 * time.Millisecond} {
				if n := closedLoop(t, senders, each, write, pause); n > each+5 {
					t.Errorf("%d messages for %d deliveries of each of %d senders, a write takes %v and they %v", n, each, senders, write, pause)
				}
			}
		}
	}
}

// TestWriter_aLoneDeliveryWaitsForNobody: neither the only sender, nor one after others have gone.
func TestWriter_aLoneDeliveryWaitsForNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const write = time.Millisecond
		w := startWriter(t, func(context.Context, *nats.Msg, ...jetstream.PublishOpt) (*jetstream.PubAck, error) {
			<-time.After(write)
			return &jetstream.PubAck{}, nil
		})
		store := func(id string) time.Duration {
			began := time.Now()
			if err := w.Store(delivery(id, 100), time.Minute); err != nil {
				t.Errorf("Store: %v", err)
			}
			return time.Since(began) // by the bubble's clock
		}
		for i := range 10 {
			if took := store(fmt.Sprint("alone", i)); took != write {
				t.Errorf("delivery %d took %v, one write takes %v", i, took, write)
			}
		}
		var others sync.WaitGroup
		for i := range 8 {
			others.Go(func() { store(fmt.Sprint("together", i)) })
		}
		others.Wait()
		<-time.After(10 * time.Millisecond)
		if took := store("after the others"); took != write {
			t.Errorf("after the others have gone it took %v, one write takes %v", took, write)
		}
	})
}

func TestWriter_keepsMessagesSmall(t *testing.T) {
	f := &fakeStream{gate: make(chan struct{})}
	w := startWriter(t, f.publish)
	const n = 12
	results := make(chan error, n)
	for i := range n {
		go func() { results <- w.Store(delivery(fmt.Sprint(i), 200<<10), time.Minute) }()
	}
	allWait(t, w, n)
	close(f.gate)
	for range n {
		if err := <-results; err != nil {
			t.Fatalf("Store: %v", err)
		}
	}
	packs, stored := f.stored()
	if stored != n {
		t.Errorf("%d of %d stored", stored, n)
	}
	for _, p := range packs {
		if len(p) > 2 {
			t.Errorf("a message of %d deliveries of 200 KiB", len(p))
		}
	}
}

func TestWriter_splitsForAServerThatTakesLess(t *testing.T) {
	f := &fakeStream{gate: make(chan struct{}), limit: 3000}
	w := startWriter(t, f.publish)
	results := make(chan error, 16)
	for i := range 15 {
		go func() { results <- w.Store(delivery(fmt.Sprint(i), 500), time.Minute) }()
	}
	go func() { results <- w.Store(delivery("large", 4000), time.Minute) }()
	allWait(t, w, 16)
	close(f.gate)
	refused := 0
	for range 16 {
		if err := <-results; errors.Is(err, inbox.ErrNotStored) {
			refused++
		} else if err != nil {
			t.Errorf("Store: %v", err)
		}
	}
	if _, stored := f.stored(); refused != 1 || stored != 15 {
		t.Errorf("%d refused, %d stored", refused, stored)
	}
}

func TestWriter_triesTheSameMessageAgain(t *testing.T) {
	f := &fakeStream{down: errors.New("away")}
	w := startWriter(t, f.publish)
	results := make(chan error, 1)
	go func() { results <- w.Store(delivery("a", 10), time.Minute) }()
	testkit.Eventually(t, 5*time.Second, func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		if len(f.tries) < 3 {
			return fmt.Errorf("%d tries", len(f.tries))
		}
		return nil
	})
	f.set(func(f *fakeStream) { f.down = nil })
	if err := <-results; err != nil {
		t.Fatalf("Store: %v", err)
	}
	for _, ids := range f.tries {
		if len(ids) != 1 || ids[0] != "a" {
			t.Errorf("tried %v", ids)
		}
	}
}

func TestWriter_refusesEachAtItsTimeout(t *testing.T) {
	f := &fakeStream{down: errors.New("away")}
	w := startWriter(t, f.publish)
	type result struct {
		err  error
		took time.Duration
	}
	short, long := make(chan result, 1), make(chan result, 1)
	store := func(id string, timeout time.Duration, to chan result) {
		start := time.Now()
		err := w.Store(delivery(id, 10), timeout)
		to <- result{err, time.Since(start)}
	}
	go store("long", 2*time.Minute, long)
	testkit.Eventually(t, 5*time.Second, func() error { // it is first, and its message is tried
		f.mu.Lock()
		defer f.mu.Unlock()
		if len(f.tries) == 0 {
			return errors.New("not tried yet")
		}
		return nil
	})
	go store("short", 300*time.Millisecond, short)
	if got := <-short; !errors.Is(got.err, inbox.ErrNotStored) || got.took < 300*time.Millisecond || got.took > time.Minute {
		t.Errorf("short: %v after %v", got.err, got.took)
	}
	f.set(func(f *fakeStream) { f.down = nil })
	if got := <-long; got.err != nil {
		t.Errorf("long: %v", got.err)
	}
	packs, _ := f.stored()
	for _, p := range packs {
		for _, id := range p {
			if id == "short" {
				t.Error("what was refused is stored")
			}
		}
	}
}

func TestWriter_finishesWhatWaitsBeforeItEnds(t *testing.T) {
	f := &fakeStream{gate: make(chan struct{})}
	w := inbox.NewWriter(inbox.Config{Publish: f.publish, Logger: logs.Discard()})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	results := make(chan error, 5)
	for i := range cap(results) {
		go func() { results <- w.Store(delivery(fmt.Sprint(i), 10), time.Minute) }()
	}
	allWait(t, w, cap(results))
	cancel()
	close(f.gate)
	for range cap(results) {
		if err := <-results; err != nil {
			t.Errorf("Store: %v", err)
		}
	}
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
	if err := w.Store(delivery("late", 10), time.Minute); !errors.Is(err, inbox.ErrClosed) {
		t.Errorf("Store after the end: %v", err)
	}
}

func TestCodec_keepsEveryByte(t *testing.T) {
	c, err := inbox.NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range [][]byte{nil, []byte("{}"), []byte(strings.Repeat(`{"name":"main"},`, 4000)), bytes.Repeat([]byte{0, 1, 2, 250}, 300)} {
		var d storev1.InboxDelivery
		c.Pack(&d, body)
		if len(body) > 10_000 && len(d.GetBody()) > len(body)/4 {
			t.Errorf("%d bytes are stored as %d", len(body), len(d.GetBody()))
		}
		got, err := c.Body(&d)
		if err != nil || !bytes.Equal(got, body) {
			t.Errorf("%d bytes came back as %d, %v", len(body), len(got), err)
		}
	}
	var d storev1.InboxDelivery
	c.Pack(&d, []byte(strings.Repeat("x", 1000)))
	d.Body = d.GetBody()[:len(d.GetBody())-1]
	if _, err := c.Body(&d); !errors.Is(err, inbox.ErrDamaged) {
		t.Errorf("a damaged body: %v", err)
	}
	d.BodyBytes--
	d.Encoding = 9
	if _, err := c.Body(&d); !errors.Is(err, inbox.ErrDamaged) {
		t.Errorf("an unknown encoding: %v", err)
	}
}

// BenchmarkStore compares one write per delivery with packed ones, on an embedded server that syncs
// every write to disk, with 64 deliveries of 2 KiB at a time.
func BenchmarkStore(b *testing.B) {
	for name, most := range map[string]int{"packed": inbox.MaxDeliveries, "one_by_one": 1} {
		b.Run(name, func(b *testing.B) {
			server := testkit.NATSWith(b, engine.NATSConfig{CanaryInterval: -1, StoreDir: b.TempDir()})
			_, js := server.Connect()
			if _, err := stream.Ensure(b.Context(), js, inbox.Definition, stream.Options{}); err != nil {
				b.Fatal(err)
			}
			w := inbox.NewWriter(inbox.Config{Publish: stream.Publisher{JS: js}.Publish, Logger: logs.Discard(), MaxDeliveries: most})
			ctx, cancel := context.WithCancel(b.Context())
			done := make(chan error, 1)
			go func() { done <- w.Run(ctx) }()
			b.SetBytes(2048)
			b.SetParallelism(32) // times 2 CPUs
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := w.Store(delivery("0123456789abcdef", 2048), time.Minute); err != nil {
						b.Error(err)
					}
				}
			})
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "deliveries/s")
			cancel()
			if err := <-done; err != nil {
				b.Error(err)
			}
		})
	}
}
