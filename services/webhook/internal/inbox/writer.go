package inbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/logs"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
)

// The limits of one message (DESIGN.md#a-delivery). 512 KiB of deliveries fit well
// into the 1 MiB that a NATS server takes.
const (
	MaxDeliveries = 64
	MaxBytes      = 512 << 10
)

const (
	// queueLength is how many deliveries may wait for the writer; the ingress bounds their bytes.
	queueLength = 8192
	firstPause  = 20 * time.Millisecond  // before the second try of a write
	longPause   = 250 * time.Millisecond // between two tries of a write at most
	// shareWait is how long, from the end of a write, the next one waits at most for as many deliveries
	// as are to be expected. A sender that sends again when it was answered is back within that time.
	shareWait = 5 * time.Millisecond
)

// The reasons for which a delivery was not stored.
var (
	// ErrNotStored says that the store had trouble for as long as the delivery could wait.
	ErrNotStored = errors.New("inbox: not stored in time")
	// ErrBusy says that too many deliveries wait already.
	ErrBusy = errors.New("inbox: too many deliveries wait")
	// ErrClosed says that the writer has ended.
	ErrClosed = errors.New("inbox: closed")
)

// Publish stores one message; stream.Publisher.Publish is one.
type Publish func(ctx context.Context, msg *nats.Msg, opts ...jetstream.PublishOpt) (*jetstream.PubAck, error)

// Config is what a Writer needs.
type Config struct {
	Publish    Publish
	Logger     *slog.Logger
	Registerer prometheus.Registerer // nil: no metrics
	// MaxDeliveries replaces the limit of the package when it is not zero: 1 writes one by one.
	MaxDeliveries int
}

// Writer packs waiting deliveries and stores them. Store is safe for concurrent use; Run is called
// once.
type Writer struct {
	cfg     Config
	in      chan *waiting
	waiting atomic.Int64  // not answered yet
	done    chan struct{} // closed when Run has ended
	next    expected      // of Run alone
	batches *prometheus.HistogramVec
	writes  *prometheus.CounterVec
}

// waiting is a delivery on its way. The writer alone decides about it, and answers once.
type waiting struct {
	delivery *storev1.InboxDelivery
	size     int
	deadline time.Time
	answer   chan error
}

// expected is how many deliveries the next write waits for, and until when: as many as the last one stored
// or left waiting. One that comes later, or alone, is written at once.
type expected struct {
	deliveries int
	until      time.Time
}

// NewWriter makes a writer; it stores nothing before Run.
func NewWriter(cfg Config) *Writer {
	if cfg.MaxDeliveries == 0 {
		cfg.MaxDeliveries = MaxDeliveries
	}
	w := &Writer{
		cfg: cfg, in: make(chan *waiting, queueLength), done: make(chan struct{}),
		batches: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "devpilot_webhook_inbox_batch_deliveries", Help: "Deliveries per message written to the inbox.",
			Buckets: []float64{1, 2, 4, 8, 16, 32, 64},
		}, nil),
		writes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "devpilot_webhook_inbox_writes_total", Help: "Attempts to write a message to the inbox, by result.",
		}, []string{"result"}),
	}
	if cfg.Registerer != nil {
		cfg.Registerer.MustRegister(w.batches, w.writes)
	}
	return w
}

// Store waits until the delivery is stored (nil), or until it is certain that it will not be: the
// timeout is over (ErrNotStored) or the queue is full (ErrBusy). No attempt begins after the
// timeout is over; one that began before is waited for, which takes stream.PublishTimeout at most.
// The caller's going away changes nothing: a verified delivery is stored even when nobody waits for
// the answer any more.
func (w *Writer) Store(d *storev1.InboxDelivery, timeout time.Duration) error {
	it := &waiting{delivery: d, size: proto.Size(d), deadline: time.Now().Add(timeout), answer: make(chan error, 1)}
	select {
	case w.in <- it:
	default:
		return ErrBusy
	}
	w.waiting.Add(1)
	defer w.waiting.Add(-1)
	select {
	case err := <-it.answer:
		return err
	case <-w.done:
	}
	select { // answered before the end
	case err := <-it.answer:
		return err
	default:
		return ErrClosed
	}
}

// Run writes until ctx is done and nothing waits any more. Stop the intake first.
func (w *Writer) Run(ctx context.Context) error {
	defer close(w.done)
	var queue []*waiting // oldest first
	for {
		if len(queue) == 0 {
			select {
			case it := <-w.in:
				queue = append(queue, it)
			default:
				select {
				case it := <-w.in:
					queue = append(queue, it)
				case <-ctx.Done():
					return nil
				}
			}
		}
		queue = w.write(ctx, w.gather(queue))
	}
}

// gather lets deliveries that are about to come share the next write: each write costs the disk and
// us the same, whatever it holds.
func (w *Writer) gather(queue []*waiting) []*waiting {
	left := time.Until(w.next.until)
	if left <= 0 || len(queue) >= w.next.deliveries {
		return queue
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	for len(queue) < w.next.deliveries {
		select {
		case it := <-w.in:
			queue = append(queue, it)
		case <-timer.C:
			return queue
		}
	}
	return queue
}

// expect notes what a write lets expect of the next one. How long the write took says nothing of when the
// senders are back: many who were answered at once take longer for that than a quick disk for a write.
func (w *Writer) expect(stored, waiting int) {
	w.next = expected{deliveries: min(stored+waiting+len(w.in), w.cfg.MaxDeliveries), until: time.Now().Add(shareWait)}
}

// take moves what has come meanwhile into the queue, and answers what can wait no longer.
func (w *Writer) take(queue []*waiting) []*waiting {
	for len(queue) < queueLength {
		select {
		case it := <-w.in:
			queue = append(queue, it)
			continue
		default:
		}
		break
	}
	now := time.Now()
	return slices.DeleteFunc(queue, func(it *waiting) bool {
		late := !it.deadline.After(now)
		if late {
			it.answer <- ErrNotStored
		}
		return late
	})
}

// first is how much of the queue one message holds.
func (w *Writer) first(queue []*waiting) int {
	size := 0
	for n, it := range queue {
		if size += it.size; n == w.cfg.MaxDeliveries || n > 0 && size > MaxBytes {
			return n
		}
	}
	return len(queue)
}

// write stores the front of the queue, trying again until that is done or nobody waits any more, and
// returns the rest. The message keeps its id over the attempts while its content stays the same.
func (w *Writer) write(ctx context.Context, queue []*waiting) []*waiting {
	var pack []*waiting
	var msg *nats.Msg
	var id string
	most := w.cfg.MaxDeliveries
	for pause := firstPause; ; pause = min(2*pause, longPause) {
		queue = w.take(queue)
		if len(queue) == 0 {
			return nil
		}
		// What is in the message already stays together, as long as none of it was answered.
		if msg == nil || len(queue) < len(pack) || !slices.Equal(queue[:len(pack)], pack) {
			pack = slices.Clone(queue[:min(w.first(queue), most)])
			data, err := proto.Marshal(&storev1.InboxPack{Deliveries: deliveries(pack)})
			if err != nil {
				answer(pack, fmt.Errorf("inbox: encode: %w", err))
				return queue[len(pack):]
			}
			msg, id = &nats.Msg{Subject: Subject, Data: data}, nuid.Next()
		}
		err := w.attempt(ctx, msg, id)
		switch {
		case err == nil:
			w.expect(len(pack), len(queue)-len(pack))
			w.batches.WithLabelValues().Observe(float64(len(pack)))
			answer(pack, nil)
			return queue[len(pack):]
		case errors.Is(err, nats.ErrMaxPayload) && len(pack) > 1: // a server set to less than 1 MiB
			most, msg = len(pack)/2, nil
			continue
		case errors.Is(err, nats.ErrMaxPayload):
			answer(pack, fmt.Errorf("%w: %w", ErrNotStored, err))
			return queue[len(pack):]
		}
		w.cfg.Logger.Warn("inbox not written, trying again", slog.Int(logs.KeyCount, len(pack)), logs.Err(err))
		w.rest(pause, queue)
	}
}

func (w *Writer) attempt(ctx context.Context, msg *nats.Msg, id string) error {
	// A stop of the process must not cut a write short: what became of it would be unknown.
	_, err := w.cfg.Publish(context.WithoutCancel(ctx), msg, jetstream.WithMsgID(id), jetstream.WithRetryAttempts(0))
	result := "ok"
	if err != nil {
		result = "failed"
	}
	w.writes.WithLabelValues(result).Inc()
	return err
}

// rest pauses before the next attempt, at most until a delivery has to be answered.
func (w *Writer) rest(pause time.Duration, queue []*waiting) {
	for _, it := range queue {
		pause = min(pause, time.Until(it.deadline))
	}
	if pause > 0 {
		<-time.After(pause)
	}
}

func deliveries(pack []*waiting) []*storev1.InboxDelivery {
	ds := make([]*storev1.InboxDelivery, len(pack))
	for i, it := range pack {
		ds[i] = it.delivery
	}
	return ds
}

func answer(pack []*waiting, err error) {
	for _, it := range pack {
		it.answer <- err
	}
}

// Waiting is how many deliveries wait for their answer now.
func (w *Writer) Waiting() int { return int(w.waiting.Load()) }
