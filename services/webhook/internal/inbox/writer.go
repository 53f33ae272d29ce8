package inbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/stream"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
)

// The limits of one message (design.md section 5, "A delivery"). 512 KiB of deliveries fit well
// into the 1 MiB that a NATS server takes.
const (
	MaxDeliveries = 64
	MaxBytes      = 512 << 10
)

const (
	// queueLength is how many deliveries may wait for the writer; the ingress bounds their bytes.
	queueLength = 8192
	firstPause  = 20 * time.Millisecond
	longPause   = 250 * time.Millisecond
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
	done    chan struct{} // closed when Run has ended
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
// patience is over (ErrNotStored) or the queue is full (ErrBusy). No attempt begins after the
// patience is over; one that began before is waited for, which takes stream.PublishTimeout at most.
// The caller's going away changes nothing: a verified delivery is stored even when nobody waits for
// the answer any more.
func (w *Writer) Store(d *storev1.InboxDelivery, patience time.Duration) error {
	it := &waiting{delivery: d, size: proto.Size(d), deadline: time.Now().Add(patience), answer: make(chan error, 1)}
	select {
	case w.in <- it:
	default:
		return ErrBusy
	}
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
	var held *waiting // did not fit into the last message
	for {
		first := held
		if held = nil; first == nil {
			select {
			case first = <-w.in:
			default:
				select {
				case first = <-w.in:
				case <-ctx.Done():
					return nil
				}
			}
		}
		var pack []*waiting
		pack, held = w.collect(first)
		w.write(ctx, pack)
	}
}

// collect takes what is waiting now, as much as one message holds.
func (w *Writer) collect(first *waiting) (pack []*waiting, held *waiting) {
	pack, size := []*waiting{first}, first.size
	for len(pack) < w.cfg.MaxDeliveries {
		select {
		case next := <-w.in:
			if size+next.size > MaxBytes {
				return pack, next
			}
			pack, size = append(pack, next), size+next.size
		default:
			return pack, nil
		}
	}
	return pack, nil
}

// write stores a pack, trying again until the last delivery in it has run out of patience. The
// message keeps its id over the attempts while its content stays the same.
func (w *Writer) write(ctx context.Context, pack []*waiting) {
	var msg *nats.Msg
	var id string
	for pause := firstPause; ; pause = min(2*pause, longPause) {
		var late []*waiting
		if pack, late = split(pack, time.Now()); len(late) > 0 {
			answer(late, ErrNotStored)
			msg = nil
		}
		if len(pack) == 0 {
			return
		}
		if msg == nil {
			data, err := proto.Marshal(&storev1.InboxPack{Deliveries: deliveries(pack)})
			if err != nil {
				answer(pack, fmt.Errorf("inbox: encode: %w", err))
				return
			}
			msg, id = &nats.Msg{Subject: stream.InboxSubject(), Data: data}, nuid.Next()
		}
		err := w.attempt(ctx, msg, id)
		switch {
		case err == nil:
			w.batches.WithLabelValues().Observe(float64(len(pack)))
			answer(pack, nil)
			return
		case errors.Is(err, nats.ErrMaxPayload) && len(pack) > 1: // a server set to less than 1 MiB
			w.write(ctx, pack[:len(pack)/2])
			w.write(ctx, pack[len(pack)/2:])
			return
		case errors.Is(err, nats.ErrMaxPayload):
			answer(pack, fmt.Errorf("%w: %w", ErrNotStored, err))
			return
		}
		w.cfg.Logger.Warn("inbox not written, trying again", slog.Int(logs.KeyCount, len(pack)), logs.Err(err))
		rest(pause, pack)
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

// split parts those that may wait on from those that may not.
func split(pack []*waiting, now time.Time) (inTime, late []*waiting) {
	for _, it := range pack {
		if it.deadline.After(now) {
			inTime = append(inTime, it)
		} else {
			late = append(late, it)
		}
	}
	return inTime, late
}

// rest pauses before the next attempt, at most until a delivery of the pack has to be answered.
func rest(pause time.Duration, pack []*waiting) {
	for _, it := range pack {
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

// Waiting is how many deliveries wait for the writer now.
func (w *Writer) Waiting() int { return len(w.in) }
