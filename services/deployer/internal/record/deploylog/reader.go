package deploylog

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/stream"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
	"devpilot.io/bitbucket/services/deployer/internal/record/streams"
)

// Heartbeat is how often a quiet follower hears that the log is still there.
const Heartbeat = 15 * time.Second

// Request says what to read.
type Request struct {
	Workspace, App string
	Number         int32
	Generation     int64
	After          int32 // only lines after this one
	Tail           int32 // only the last so many lines; 0: all
	// Ended is closed when the deployment has ended and its last line is written; nil for a
	// reader that does not follow.
	Ended <-chan struct{}
	// Every replaces Heartbeat when it is not zero.
	Every time.Duration
}

// message is one message of the log, or the end of reading.
type message struct {
	batch *storev1.LogBatch
	seq   uint64
	err   error
}

// Read sends the log's lines in order, and a nil slice as a heartbeat while a follower waits. It
// returns nil at the end: of what is there now, or, following, of the log.
func (s *Sink) Read(ctx context.Context, req Request, send func([]*deployerv1.LogRecord) error) error {
	subject, err := streams.LogSubject(req.Workspace, req.App, req.Number)
	if err != nil {
		return fmt.Errorf("deploylog: %w", err)
	}
	last, end, err := s.last(ctx, subject)
	if err != nil {
		return err
	}
	after := req.After
	if req.Tail > 0 && last.GetGeneration() == req.Generation {
		after = max(after, last.GetLastLine()-req.Tail)
	}
	follow := req.Ended != nil
	if end == 0 && !follow {
		return nil
	}
	from, err := s.from(ctx, subject, last, end, req.Generation, after)
	if err != nil {
		return err
	}
	if from == end && !follow { // the message that was read already has all
		if records := linesAfter(last, req.Generation, after); len(records) > 0 {
			return send(records)
		}
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	msgs, err := s.messages(ctx, subject, from)
	if err != nil {
		return err
	}
	every := req.Every
	if every == 0 {
		every = Heartbeat
	}
	beat := time.NewTicker(every)
	defer beat.Stop()
	ended := req.Ended
	if !follow {
		ended = nil
	}
	for seq := uint64(0); ; {
		if (!follow || ended == nil) && seq >= end {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ended:
			// The lines came before the record of the end: what is there now is all.
			ended = nil
			if _, end, err = s.last(ctx, subject); err != nil {
				return err
			}
		case <-beat.C:
			if ended == nil { // the last message may have been dropped by the stream's limits
				if _, end, err = s.last(ctx, subject); err != nil {
					return err
				}
			}
			if err := send(nil); err != nil {
				return err
			}
		case m := <-msgs:
			if m.err != nil {
				return m.err
			}
			seq = m.seq
			if records := linesAfter(m.batch, req.Generation, after); len(records) > 0 {
				after = m.batch.GetLastLine()
				if err := send(records); err != nil {
					return err
				}
				beat.Reset(every)
			}
		}
	}
}

func linesAfter(b *storev1.LogBatch, generation int64, after int32) []*deployerv1.LogRecord {
	if b.GetGeneration() != generation || b.GetLastLine() <= after {
		return nil
	}
	for i, r := range b.GetRecords() {
		if r.GetLine() > after {
			return b.GetRecords()[i:]
		}
	}
	return nil
}

// messages reads a subject from a sequence on, or, where that is 0, from its first message; until ctx
// is done.
func (s *Sink) messages(ctx context.Context, subject string, from uint64) (<-chan message, error) {
	cfg := jetstream.OrderedConsumerConfig{FilterSubjects: []string{stream.InstallationOf(s.JS).Subject(subject)}, DeliverPolicy: jetstream.DeliverAllPolicy}
	if from > 0 {
		cfg.DeliverPolicy, cfg.OptStartSeq = jetstream.DeliverByStartSequencePolicy, from
	}
	cons, err := s.Logs.OrderedConsumer(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("%w: deploylog: read: %w", kv.ErrUnavailable, err)
	}
	it, err := cons.Messages(jetstream.PullHeartbeat(5 * time.Second))
	if err != nil {
		return nil, fmt.Errorf("%w: deploylog: read: %w", kv.ErrUnavailable, err)
	}
	context.AfterFunc(ctx, it.Stop)
	out := make(chan message)
	go func() {
		for {
			m, err := it.Next()
			var x message
			switch {
			case err != nil:
				if ctx.Err() != nil {
					return
				}
				x.err = fmt.Errorf("%w: deploylog: read: %w", kv.ErrUnavailable, err)
			default:
				x.batch = &storev1.LogBatch{}
				md, merr := m.Metadata()
				if merr != nil {
					x.err = fmt.Errorf("deploylog: read: %w", merr)
					break
				}
				x.seq = md.Sequence.Stream
				if proto.Unmarshal(m.Data(), x.batch) != nil {
					x.batch = &storev1.LogBatch{} // damaged: its lines are lost, those after it are not
				}
			}
			select {
			case out <- x:
			case <-ctx.Done():
				return
			}
			if x.err != nil {
				return
			}
		}
	}()
	return out, nil
}
