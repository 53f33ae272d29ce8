package backup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// readPause is how long no message comes before it is asked whether there is another one at all.
	readPause = time.Second
	// readStall is how long none comes, although there is one, before a backup gives up.
	readStall = time.Minute
	// answerTimeout bounds one question to JetStream.
	answerTimeout = 10 * time.Second
)

// errStalled says that NATS has messages and does not hand them out.
var errStalled = errors.New("NATS does not hand out the messages of the stream: look whether its servers are well, and try again")

// reading is a stream that is being read.
type reading struct {
	js     jetstream.JetStream
	stream jetstream.Stream
	to     *spool
	told   func(messages uint64) // hears of progress
	count  uint64
}

func (r *reading) add(m *message) error {
	r.count++
	if r.count%1000 == 0 {
		r.told(r.count)
	}
	return r.to.add(m)
}

// all reads the stream up to a moment after the call, at which the spool has all that was in it and nothing newer: of
// a subject that is replaced meanwhile, the value of that moment.
func (r *reading) all(ctx context.Context) error {
	if r.stream.CachedInfo().Config.Retention != jetstream.LimitsPolicy {
		return r.queue(ctx)
	}
	if r.stream.CachedInfo().State.Msgs == 0 {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	consumer, err := r.js.OrderedConsumer(ctx, r.stream.CachedInfo().Config.Name, jetstream.OrderedConsumerConfig{})
	if err != nil {
		return err
	}
	messages, err := consumer.Messages()
	if err != nil {
		return err
	}
	defer messages.Stop()
	for heard := time.Now(); ; {
		m, err := messages.Next(jetstream.NextMaxWait(readPause))
		if errors.Is(err, nats.ErrTimeout) || errors.Is(err, jetstream.ErrNoHeartbeat) {
			if done, err := r.reached(ctx); done || err != nil {
				return err
			}
			if time.Since(heard) > readStall {
				return errStalled
			}
			continue
		}
		if err != nil {
			return err
		}
		heard = time.Now()
		if done, err := r.next(ctx, m); done || err != nil {
			return err
		}
	}
}

// next takes a message, and tells whether it was the last one.
func (r *reading) next(ctx context.Context, m jetstream.Msg) (done bool, err error) {
	meta, err := m.Metadata()
	if err != nil {
		return false, err
	}
	if err := r.add(&message{m.Subject(), meta.Sequence.Stream, meta.Timestamp, m.Headers(), m.Data()}); err != nil {
		return false, err
	}
	switch {
	case ctx.Err() != nil:
		return false, ctx.Err()
	case meta.NumPending > 0:
		return false, nil
	case r.to.used >= r.stream.CachedInfo().State.LastSeq:
		return true, nil
	}
	return r.reached(ctx) // a replica that is behind its leader knows of no more
}

// reached asks the leader whether the stream has nothing newer than what was read.
func (r *reading) reached(ctx context.Context) (bool, error) {
	_, err := r.after(ctx, r.to.used)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return true, nil
	}
	return false, err
}

// after is the stream's first message after a sequence.
func (r *reading) after(ctx context.Context, sequence uint64) (*jetstream.RawStreamMsg, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	return r.stream.GetMsg(ctx, sequence+1, jetstream.WithGetMsgSubject(">"))
}

// queue reads a stream whose messages leave it when they were handled. It has room for no consumer but its own, so
// that they are asked for one by one; there are few.
func (r *reading) queue(ctx context.Context) error {
	for {
		m, err := r.after(ctx, r.to.used)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := r.add(&message{m.Subject, m.Sequence, m.Time, m.Header, m.Data}); err != nil {
			return err
		}
	}
}

// lasting are the consumers of a stream that are kept on disk. Those in memory are made again by whoever uses
// them, from positions in a bucket.
func lasting(ctx context.Context, s jetstream.Stream) (all []*jetstream.ConsumerInfo, err error) {
	list := s.ListConsumers(ctx)
	for c := range list.Info() {
		if c.Config.Durable != "" && !c.Config.MemoryStorage {
			all = append(all, c)
		}
	}
	if err := list.Err(); err != nil {
		return nil, fmt.Errorf("list its consumers: %w", err)
	}
	return all, nil
}
