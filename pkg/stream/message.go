package stream

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/apierr"
)

// Msg is one message as a handler sees it.
type Msg struct {
	Subject string
	Header  nats.Header
	Data    []byte
	// Stream and Sequence name the message for good.
	Stream   string
	Sequence uint64
	// Time is when the stream stored it.
	Time time.Time
	// Attempt is 1 at the first delivery. A delivery whose process died counts.
	Attempt int
}

// ErrDone is the same as nil when a handler returns it: the message is acknowledged.
var ErrDone = errors.New("stream: done")

// ErrLeave leaves the message unanswered when a handler returns it: a newer delivery of it is in
// another process's hands, and that process answers. Should it die, the message comes again.
var ErrLeave = errors.New("stream: leave to the newer delivery")

type parkError struct{ reason string }

func (e *parkError) Error() string { return "stream: park: " + e.reason }

// Park makes the error with which a handler gives up: the message is stored in
// DEVPILOT_DEAD_LETTERS with the reason and its delivery ends, without further attempts. The reason
// is read by operators: no secrets.
func Park(reason string) error { return &parkError{reason} }

// Parkf is Park with formatting.
func Parkf(format string, args ...any) error { return Park(fmt.Sprintf(format, args...)) }

// Temporary tells trouble of the store, which passes, from trouble with a message.
func Temporary(err error) bool { return isTemporary(err) }

// isTemporary tells store trouble from trouble with the message.
func isTemporary(err error) bool {
	return errors.Is(err, ErrTemporary) ||
		apierr.Has(err, apierr.ReasonStorageUnavailable) ||
		errors.Is(err, nats.ErrReconnectBufExceeded) ||
		errors.Is(err, nats.ErrConnectionReconnecting) ||
		errors.Is(err, nats.ErrNoResponders) ||
		errors.Is(err, nats.ErrTimeout) ||
		errors.Is(err, jetstream.ErrNoStreamResponse)
}

// delivery is one message in our hands. The server may deliver it again meanwhile (it missed our
// signs of life while it was away): the newest delivery is the one to answer.
type delivery struct {
	Msg

	mu  sync.Mutex
	raw jetstream.Msg
}

// newDelivery reads a message; its names are bare.
func newDelivery(raw jetstream.Msg, names Installation) (*delivery, error) {
	md, err := raw.Metadata()
	if err != nil {
		return nil, fmt.Errorf("stream: message without metadata: %w", err)
	}
	bare, _ := names.BareStream(md.Stream)
	return &delivery{raw: raw, Msg: Msg{
		Subject: names.Bare(raw.Subject()), Header: raw.Headers(), Data: raw.Data(),
		Stream: bare, Sequence: md.Sequence.Stream, Time: md.Timestamp, Attempt: int(md.NumDelivered),
	}}, nil
}

func (d *delivery) current() jetstream.Msg {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.raw
}

func (d *delivery) replace(raw jetstream.Msg) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.raw = raw
}

// inFlight are the messages in our hands, by sequence.
type inFlight struct {
	mu sync.Mutex
	by map[uint64]*delivery
}

// add takes d in, or, when its message is in our hands already, hands the newer delivery to the
// one that is being handled and returns false.
func (f *inFlight) add(d *delivery) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if old, ok := f.by[d.Sequence]; ok {
		old.replace(d.raw)
		return false
	}
	f.by[d.Sequence] = d
	return true
}

func (f *inFlight) remove(d *delivery) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.by, d.Sequence)
}

// keepAlive tells the server that the deliveries are being worked on, until stop is called.
func keepAlive(ds []*delivery, every time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		t := time.NewTicker(every)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
				for _, d := range ds {
					// A sign of life that cannot be sent is like one that is lost: the
					// message comes again, and add finds it in our hands.
					_ = d.current().InProgress()
				}
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}
