package kv

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/stream"
)

// entry is one message of a bucket: a value, or the marker of a key that is gone.
type entry struct {
	key     string
	data    []byte
	rev     uint64
	time    time.Time
	deleted bool
}

// startTimeout bounds the start of a watch: a request that was on its way when the connection broke
// is never answered.
const startTimeout = 2 * time.Second

const (
	rewatchFirst = 50 * time.Millisecond // before a watch that broke starts again
	rewatchMost  = 2 * time.Second       // between two such starts at most; a watch that lasted as long is none that failed
)

// A pass is complete when nothing came for quietTimes times quietTime and nothing is pending.
const (
	quietTime  = time.Second
	quietTimes = 2
	// silentTimes is how often in a row nothing may come although something is pending: what was asked for went down with
	// who was asked, as when a consumer's leader changes, and the library notices only after a longer silence than we let pass at a time.
	silentTimes = 5
)

// errSilent says that nothing comes of what is pending.
var errSilent = errors.New("kv: records are pending and none comes")

// errRewatch says that a pass over the bucket is to start again from scratch.
var errRewatch = errors.New("kv: watch again")

// scan is one watch from scratch: newest message of each key, then, unless follow is false, every
// change.
type scan struct {
	filter  string
	headers bool // no values
	follow  bool
	// onStart, where it is set, gets the bucket's position before the scan begins.
	onStart func(position)
	// onEntry gets each message; onPassed is called once, when all that existed at the start
	// has been seen.
	onEntry  func(entry) error
	onPassed func()
	// again, where it is set, ends the scan with errRewatch.
	again <-chan struct{}
}

// run returns nil when a scan that does not follow is complete, the error of onEntry, ctx's error,
// or errRewatch with the trouble.
func (s *store) run(ctx context.Context, sc scan) error {
	nc := s.js.Conn()
	back := nc.StatusChanged(nats.DISCONNECTED, nats.RECONNECTING, nats.CONNECTED, nats.CLOSED)
	defer nc.RemoveStatusListener(back)
	startCtx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if sc.onStart != nil {
		p, err := s.askPosition(startCtx)
		if err != nil {
			return fmt.Errorf("%w: %w", errRewatch, err)
		}
		sc.onStart(p)
	}
	cons, err := s.stream.OrderedConsumer(startCtx, jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{s.prefix + sc.filter},
		DeliverPolicy:  jetstream.DeliverLastPerSubjectPolicy,
		HeadersOnly:    sc.headers,
	})
	if err != nil {
		return fmt.Errorf("%w: %w", errRewatch, err)
	}
	left := cons.CachedInfo().NumPending
	if left == 0 {
		sc.onPassed()
		if !sc.follow {
			return nil
		}
	}
	it, err := cons.Messages(jetstream.PullHeartbeat(5 * time.Second))
	if err != nil {
		return fmt.Errorf("%w: %w", errRewatch, err)
	}
	stopped := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-ctx.Done():
		case <-back: // whatever happened on the way, start from what the server has now
		case <-sc.again:
		case <-stopped:
		}
		it.Stop()
	}()
	defer func() {
		close(stopped)
		<-ended
	}()
	return s.receive(ctx, cons, it, left, sc)
}

// receive hands messages to the scan. left is how many belong to the pass.
func (s *store) receive(ctx context.Context, cons jetstream.Consumer, it jetstream.MessagesContext, left uint64, sc scan) error {
	quiet, silent := 0, 0
	for {
		var wait []jetstream.NextOpt
		if left > 0 {
			wait = append(wait, jetstream.NextMaxWait(quietTime))
		}
		m, err := it.Next(wait...)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if left > 0 && errors.Is(err, nats.ErrTimeout) {
			if quiet, err = s.quietAgain(ctx, cons, quiet); err != nil {
				return err
			}
			if silent++; quiet == 0 && silent >= silentTimes {
				return fmt.Errorf("%w: %w", errRewatch, errSilent)
			}
			if quiet < quietTimes {
				continue
			}
			left = 0
			s.cfg.Logger.ErrorContext(ctx, "some records of a bucket cannot be read: its files are damaged", logs.KeyBucket, s.cfg.Name)
			sc.onPassed()
			if !sc.follow {
				return nil
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("%w: %w", errRewatch, err)
		}
		quiet, silent = 0, 0
		e, err := s.entry(m)
		if err != nil {
			return err
		}
		if err := sc.onEntry(e); err != nil {
			return err
		}
		if left > 0 {
			if left--; left == 0 {
				sc.onPassed()
				if !sc.follow {
					return nil
				}
			}
		}
	}
}

// quietAgain counts the times in a row that nothing came although the server has nothing more to
// send. A message that is damaged on disk is counted and never sent: a pass would wait for it for
// ever.
func (s *store) quietAgain(ctx context.Context, cons jetstream.Consumer, quiet int) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	info, err := cons.Info(ctx)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errRewatch, err)
	}
	if info.NumPending > 0 {
		return 0, nil
	}
	return quiet + 1, nil
}

func (s *store) entry(m jetstream.Msg) (entry, error) {
	md, err := m.Metadata()
	if err != nil {
		return entry{}, fmt.Errorf("kv: message without metadata: %w", err)
	}
	return entry{
		key: m.Subject()[len(s.prefix):], data: m.Data(), rev: md.Sequence.Stream, time: md.Timestamp,
		deleted: isMarker(m.Headers()),
	}, nil
}

// follow runs scans from scratch, one after the other, until ctx is done or onEntry fails. sc is
// made afresh for each.
func (s *store) follow(ctx context.Context, fresh func() scan) error {
	pauses := stream.Pauses(rewatchFirst, rewatchMost)
	for {
		start := time.Now()
		err := s.run(ctx, fresh())
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !errors.Is(err, errRewatch) {
			return err
		}
		if time.Since(start) > rewatchMost {
			pauses.Reset()
		}
		s.cfg.Logger.DebugContext(ctx, "watching a bucket again", slog.String(logs.KeyBucket, s.cfg.Name), logs.Err(err))
		if sleep(ctx, pauses.NextBackOff()) != nil {
			return ctx.Err()
		}
	}
}

// pass calls fn once for the newest message of every key that matches filter, from the start again
// when the connection breaks: fn may see a key twice.
func (s *store) pass(ctx context.Context, filter string, headers bool, fn func(entry) error) error {
	pauses := stream.Pauses(rewatchFirst, rewatchMost)
	for {
		err := s.run(ctx, scan{filter: filter, headers: headers, onEntry: fn, onPassed: func() {}})
		if !errors.Is(err, errRewatch) {
			return storeError(ctx, "list", s.cfg.Name, filter, err)
		}
		if sleep(ctx, pauses.NextBackOff()) != nil {
			return storeError(ctx, "list", s.cfg.Name, filter, err)
		}
	}
}

// Watch calls fn for every key that matches filter (a key, or a pattern with '*' for one part and
// a final '>' for the rest): once for each that exists, then for every change, with a nil value
// for a key that is gone. After a break in the connection it starts again with all that exists, so
// that fn sees revisions again but misses none that last (a deletion during the break is seen for
// as long as its marker is kept, 7 days). It returns when ctx is done or fn fails, with that error.
// Calls come one at a time. A value that cannot be decoded ends the watch.
func (b *Bucket[T, P]) Watch(ctx context.Context, filter string, fn func(key string, v P, rev uint64) error) error {
	if err := checkFilter(filter); err != nil {
		return err
	}
	return b.s.follow(ctx, func() scan {
		return scan{filter: filter, follow: true, onPassed: func() {}, onEntry: func(e entry) error {
			if e.deleted {
				return fn(e.key, nil, e.rev)
			}
			v, rev, err := b.decode(e.key, e.data, e.rev)
			if err != nil {
				return err
			}
			return fn(e.key, v, rev)
		}}
	})
}

// Each calls fn once for every key that matches filter and holds a value, as it is when it is met, and returns fn's first error. A break of the connection
// begins the walk anew, so that fn may see a key twice. Like Keys it is for slow sweeps only.
func (b *Bucket[T, P]) Each(ctx context.Context, filter string, fn func(key string, v P, rev uint64) error) error {
	if err := checkFilter(filter); err != nil {
		return err
	}
	return b.s.pass(ctx, filter, false, func(e entry) error {
		if e.deleted {
			return nil
		}
		v, rev, err := b.decode(e.key, e.data, e.rev)
		if err != nil {
			return err
		}
		return fn(e.key, v, rev)
	})
}

// Keys yields the keys that match filter, without their values. It walks the bucket: for slow
// sweeps only, never for a request (DESIGN.md#jetstream). A listing that cannot be completed ends
// with an error; until then nothing may be concluded from a key that was not seen.
func (b *Bucket[T, P]) Keys(ctx context.Context, filter string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		if err := checkFilter(filter); err != nil {
			yield("", err)
			return
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		enough := errors.New("enough")
		err := b.s.run(ctx, scan{filter: filter, headers: true, onPassed: func() {}, onEntry: func(e entry) error {
			if !e.deleted && !yield(e.key, nil) {
				return enough
			}
			return nil
		}})
		if err != nil && !errors.Is(err, enough) {
			yield("", storeError(ctx, "list", b.s.cfg.Name, filter, err))
		}
	}
}
