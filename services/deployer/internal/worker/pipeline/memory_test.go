package pipeline_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/stream"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

// memory is a bucket in memory, with the errors and revisions of pkg/kv.
type memory[T any, P kv.Message[T]] struct {
	mu      sync.Mutex
	rev     uint64
	values  map[string]P
	revs    map[string]uint64
	changed chan struct{}
}

func newMemory[T any, P kv.Message[T]]() *memory[T, P] {
	return &memory[T, P]{values: map[string]P{}, revs: map[string]uint64{}, changed: make(chan struct{})}
}

func clone[T any, P kv.Message[T]](v P) P {
	c, ok := proto.Clone(v).(P)
	if !ok {
		panic("clone of another type")
	}
	return c
}

func (m *memory[T, P]) Get(_ context.Context, key string) (P, uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.values[key]
	if !ok {
		return nil, 0, kv.ErrNotFound
	}
	return clone[T](v), m.revs[key], nil
}

func (m *memory[T, P]) set(key string, v P) uint64 {
	m.rev++
	m.values[key], m.revs[key] = clone[T](v), m.rev
	close(m.changed)
	m.changed = make(chan struct{})
	return m.rev
}

func (m *memory[T, P]) Create(_ context.Context, key string, v P, _ ...kv.CreateOption) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.values[key]; ok {
		return 0, kv.ErrExists
	}
	return m.set(key, v), nil
}

func (m *memory[T, P]) CompareAndSet(_ context.Context, key string, v P, rev uint64) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.revs[key] != rev {
		return 0, kv.ErrConflict
	}
	return m.set(key, v), nil
}

func (m *memory[T, P]) Update(_ context.Context, key string, fn func(P) (P, error)) (P, uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var cur P
	if v, ok := m.values[key]; ok {
		cur = clone[T](v)
	}
	next, err := fn(cur)
	if errors.Is(err, kv.ErrSkip) {
		return m.values[key], m.revs[key], nil
	}
	if err != nil {
		return nil, 0, err
	}
	return next, m.set(key, next), nil
}

func (m *memory[T, P]) Delete(_ context.Context, key string, _ uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.values, key)
	delete(m.revs, key)
	return nil
}

func (m *memory[T, P]) Watch(ctx context.Context, key string, fn func(string, P, uint64) error) error {
	seen := uint64(0)
	for {
		m.mu.Lock()
		v, rev, changed := m.values[key], m.revs[key], m.changed
		m.mu.Unlock()
		if rev != seen {
			seen = rev
			if err := fn(key, clone[T](v), rev); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

func (f faultyLanes) Get(ctx context.Context, key string) (*storev1.Lane, uint64, error) {
	return f.m.lanes.Get(ctx, key)
}

func (f faultyLanes) Create(ctx context.Context, key string, l *storev1.Lane, opts ...kv.CreateOption) (uint64, error) {
	return f.m.lanes.Create(ctx, key, l, opts...)
}

func (f faultyLanes) CompareAndSet(ctx context.Context, key string, l *storev1.Lane, rev uint64) (uint64, error) {
	f.m.fault()
	rev, err := f.m.lanes.CompareAndSet(ctx, key, l, rev)
	f.m.fault()
	return rev, err
}

// queue is a work queue in memory: a message whose holder is silent for modelLease comes again.
type queue struct {
	mu       sync.Mutex
	seq      uint64
	messages map[uint64]*message
	order    []uint64
}

type message struct {
	seq     uint64
	subject string
	body    proto.Message
	visible time.Time
	stalled *atomic.Bool // of this delivery: no sign of life is given
}

func newQueue() *queue { return &queue{messages: map[uint64]*message{}} }

func (q *queue) publish(subject string, body proto.Message) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.seq++
	q.messages[q.seq] = &message{seq: q.seq, subject: subject, body: body}
	q.order = append(q.order, q.seq)
}

func (q *queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.messages)
}

// take returns a delivery of the oldest message that is nobody's.
func (q *queue) take() *message {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	kept := q.order[:0]
	var found *message
	for _, seq := range q.order {
		m, ok := q.messages[seq]
		if !ok {
			continue
		}
		kept = append(kept, seq)
		if found == nil && !m.visible.After(now) {
			m.visible = now.Add(modelLease)
			found = &message{seq: m.seq, subject: m.subject, body: m.body, stalled: &atomic.Bool{}}
		}
	}
	q.order = kept
	return found
}

func (q *queue) extend(seq uint64, d time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if m, ok := q.messages[seq]; ok {
		m.visible = time.Now().Add(d)
	}
}

func (q *queue) ack(seq uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.messages, seq)
}

// consume handles messages as stream.Consume does, until ctx is done.
func (q *queue) consume(ctx context.Context, m *model, handle func(context.Context, *message) error) {
	for ctx.Err() == nil {
		msg := q.take()
		if msg == nil {
			pause(time.Millisecond)
			continue
		}
		alive, stop := context.WithCancel(ctx)
		var wg sync.WaitGroup
		wg.Go(func() {
			for alive.Err() == nil {
				if !msg.stalled.Load() {
					q.extend(msg.seq, modelLease)
				}
				pause(modelLease / 5)
			}
		})
		err, died := m.survive(func() error { return handle(ctx, msg) })
		stop()
		wg.Wait()
		switch {
		case died, errors.Is(err, stream.ErrLeave):
		case err == nil:
			m.fault2(func() { q.ack(msg.seq) })
		default:
			q.extend(msg.seq, time.Millisecond)
		}
	}
}

// fault2 does fn, unless the process dies before.
func (m *model) fault2(fn func()) {
	_, _ = m.survive(func() error {
		m.fault()
		fn()
		return nil
	})
}

// GetMsg and GetLastMsgForSubject let the janitor look for wake-ups.
func (q *queue) GetMsg(_ context.Context, seq uint64, _ ...jetstream.GetMsgOpt) (*jetstream.RawStreamMsg, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, ok := q.messages[seq]; !ok {
		return nil, jetstream.ErrMsgNotFound
	}
	return &jetstream.RawStreamMsg{Sequence: seq}, nil
}

func (q *queue) GetLastMsgForSubject(_ context.Context, subject string) (*jetstream.RawStreamMsg, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, m := range q.messages {
		if strings.HasSuffix(subject, "."+m.subject) {
			return &jetstream.RawStreamMsg{Sequence: m.seq}, nil
		}
	}
	return nil, jetstream.ErrMsgNotFound
}

func (q *queue) Purge(context.Context, ...jetstream.StreamPurgeOpt) error { return nil }
