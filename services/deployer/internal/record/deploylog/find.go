package deploylog

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/stream"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

// near is how many sequences before the line that is looked for a reader may begin: to read a few
// messages too many costs less than to find the very one.
const near = 8

// from finds the message at which a reader of the lines after one begins, or one shortly before it; 0
// for the first there is. The messages of a log hold rising line numbers, so that it is found by
// bisection: a few reads however long the log is. It begins at the end, where most readers want to be.
func (s *Sink) from(ctx context.Context, subject string, last *storev1.LogBatch, end uint64, generation int64, after int32) (uint64, error) {
	if after <= 0 || end == 0 {
		return 0, nil
	}
	if reaches(last, generation, after) {
		return end, nil
	}
	// Reading from lo misses nothing; reading from hi would, and the log has no message from hi to end.
	lo, hi := uint64(0), end
	for step := uint64(near); lo == 0 && step < end; step *= 2 {
		b, seq, err := s.next(ctx, subject, end-step)
		switch {
		case err != nil:
			return 0, err
		case reaches(b, generation, after):
			lo = seq
		default:
			hi = min(hi, end-step)
		}
	}
	for hi-lo > near {
		mid := lo + (hi-lo)/2
		b, seq, err := s.next(ctx, subject, mid)
		if err != nil {
			return 0, err
		}
		if seq != 0 && seq < hi && reaches(b, generation, after) {
			lo = seq
		} else {
			hi = mid
		}
	}
	return lo, nil
}

// reaches tells whether no line after the given one stands before this message. A message that cannot
// be read tells nothing.
func reaches(b *storev1.LogBatch, generation int64, after int32) bool {
	switch {
	case b == nil:
		return false
	case b.GetGeneration() != generation:
		return b.GetGeneration() < generation // of an app that had the name before
	case len(b.GetRecords()) == 0:
		return b.GetLastLine() <= after
	}
	return b.GetRecords()[0].GetLine() <= after+1
}

// next is the first message of a subject at or after a sequence; its batch is nil where it cannot be
// read, its sequence 0 where there is none.
func (s *Sink) next(ctx context.Context, subject string, at uint64) (*storev1.LogBatch, uint64, error) {
	m, err := s.Logs.GetMsg(ctx, max(at, 1), jetstream.WithGetMsgSubject(stream.InstallationOf(s.JS).Subject(subject)))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("%w: deploylog: find a line: %w", kv.ErrUnavailable, err)
	}
	b := &storev1.LogBatch{}
	if proto.Unmarshal(m.Data, b) != nil {
		return nil, m.Sequence, nil //nolint:nilerr // a damaged message is passed over
	}
	return b, m.Sequence, nil
}
