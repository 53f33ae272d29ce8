package deploylog

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/stream"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// last is the last message of a subject; nil at sequence 0 when there is none.
func (s *Sink) last(ctx context.Context, subject string) (*storev1.LogBatch, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, stream.PublishTimeout)
	defer cancel()
	m, err := s.Logs.GetLastMsgForSubject(ctx, stream.InstallationOf(s.JS).Subject(subject))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("%w: deploylog: find the end of the log: %w", kv.ErrUnavailable, err)
	}
	b := &storev1.LogBatch{}
	if err := proto.Unmarshal(m.Data, b); err != nil {
		return nil, m.Sequence, nil // a damaged message ends nothing: the log goes on after it
	}
	return b, m.Sequence, nil
}

// publish stores one message after the last one. When another is there meanwhile, it is either our
// own, whose acknowledgement was lost, or that of an attempt that replaced us.
func (w *Writer) publish(ctx context.Context, records []*deployerv1.LogRecord) error {
	b := &storev1.LogBatch{Generation: w.name.Generation, Epoch: w.name.Epoch, TotalBytes: w.total}
	line := w.line
	for _, r := range records {
		line++
		r.Line = line
		b.TotalBytes += int64(len(r.GetText()))
	}
	w.mu.Lock()
	b.Cut = w.cut
	w.mu.Unlock()
	b.Records, b.LastLine = records, line
	data, err := proto.Marshal(b)
	if err != nil {
		return fmt.Errorf("deploylog: encode: %w", err)
	}
	ack, err := stream.Publisher{JS: w.sink.JS}.Publish(ctx, &nats.Msg{Subject: w.subject, Data: data}, jetstream.WithExpectLastSequencePerSubject(w.seq))
	if err == nil {
		w.seq, w.line, w.total = ack.Sequence, line, b.GetTotalBytes()
		return nil
	}
	var api *jetstream.APIError
	if !errors.As(err, &api) || (api.ErrorCode != jetstream.JSErrCodeStreamWrongLastSequence && api.ErrorCode != jetstream.JSErrCodeStreamWrongLastSequenceConstant) {
		return err
	}
	last, seq, lerr := w.sink.last(ctx, w.subject)
	if lerr != nil {
		return lerr
	}
	switch {
	case last.GetGeneration() > w.name.Generation, last.GetGeneration() == w.name.Generation && last.GetEpoch() > w.name.Epoch:
		w.stale = true
		return nil
	case last.GetGeneration() == w.name.Generation && last.GetEpoch() == w.name.Epoch && last.GetLastLine() >= line:
		w.seq, w.line, w.total = seq, last.GetLastLine(), last.GetTotalBytes()
		return nil
	}
	w.seq = seq
	if last.GetGeneration() == w.name.Generation {
		w.line, w.total = last.GetLastLine(), last.GetTotalBytes()
	}
	return fmt.Errorf("deploylog: the log grew meanwhile: %w", err)
}
