package kv

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// position is what the leader says of a bucket.
type position struct {
	last     uint64 // revision of the last write
	messages uint64 // values and markers
	created  time.Time
}

// position asks the leader how far the bucket is. The answer is small, whatever the records are.
func (s *store) position(ctx context.Context) (p position, err error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	err = ask(ctx, func(ctx context.Context) error {
		p, err = s.askPosition(ctx)
		return err
	})
	return p, storeError(ctx, "ask for the position of", s.cfg.Name, "", err)
}

// askPosition reads of the stream's information only what is needed: the rest is long, and this is
// asked at every read.
func (s *store) askPosition(ctx context.Context) (position, error) {
	m, err := s.js.Conn().RequestWithContext(ctx, jetstream.DefaultAPIPrefix+"STREAM.INFO."+s.name, nil)
	if err != nil {
		return position{}, err
	}
	var info struct {
		Error   *jetstream.APIError `json:"error"`
		Created time.Time           `json:"created"`
		State   struct {
			Messages uint64 `json:"messages"`
			Last     uint64 `json:"last_seq"`
		} `json:"state"`
	}
	if err := json.Unmarshal(m.Data, &info); err != nil {
		return position{}, fmt.Errorf("read the answer: %w", err)
	}
	if info.Error != nil {
		return position{}, info.Error
	}
	return position{last: info.State.Last, messages: info.State.Messages, created: info.Created}, nil
}

// positionAsk shares one question between all who come before it is sent: an answer says nothing about
// what was written after its question.
type positionAsk struct {
	newest atomic.Uint64 // last revision that an answer had

	mu      sync.Mutex
	running bool
	next    *question // not sent yet; nil when nobody waits for one
}

type question struct {
	done chan struct{}
	p    position
	err  error
}

// get returns a position that is at least as new as the call.
func (a *positionAsk) get(ctx context.Context, ask func(context.Context) (position, error)) (position, error) {
	a.mu.Lock()
	if a.next == nil {
		a.next = &question{done: make(chan struct{})}
	}
	q := a.next
	if !a.running {
		a.running = true
		go a.run(ask)
	}
	a.mu.Unlock()
	select {
	case <-q.done:
		return q.p, q.err
	case <-ctx.Done():
		return position{}, fmt.Errorf("kv: ask for a bucket's position: %w", ctx.Err())
	}
}

// run asks until nobody waits. The questions belong to no caller in particular; each is bounded.
func (a *positionAsk) run(ask func(context.Context) (position, error)) {
	for {
		a.mu.Lock()
		q := a.next
		a.next = nil
		if q == nil {
			a.running = false
			a.mu.Unlock()
			return
		}
		a.mu.Unlock()
		q.p, q.err = ask(context.Background())
		if q.err == nil {
			a.newest.Store(q.p.last)
		}
		close(q.done)
	}
}
