package kv

import (
	"context"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"devpilot.io/bitbucket/pkg/stream"
)

// Session is a JetStream that knows the inventories of the buckets that were opened over it. Who opens a
// connection makes one of it, hands it on in the place of its JetStream, and flushes it before the
// connection is closed: they know no bucket. Over a bare JetStream, buckets work as well, and what their
// inventories have in memory when the process ends is not written.
type Session struct {
	jetstream.JetStream

	settings stream.Settings

	mu          sync.Mutex
	inventories []*inventory
}

// NewSession makes a session of a connection's JetStream, with what holds for all that is opened over it.
func NewSession(js jetstream.JetStream, settings stream.Settings) *Session {
	return &Session{JetStream: js, settings: settings}
}

// StreamSettings are the settings that the session was made with.
func (s *Session) StreamSettings() stream.Settings { return s.settings }

// flushTimeout bounds Flush: a process that stops does not wait for a NATS that does not answer.
const flushTimeout = 5 * time.Second

// Flush writes what the inventories of the session's buckets still have in memory: a loss of what was
// written in the last seconds would else go unnoticed. It gives up after five seconds or when ctx ends,
// with an error; nothing that was stored depends on it.
func (s *Session) Flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	s.mu.Lock()
	list := s.inventories
	s.inventories = nil
	s.mu.Unlock()
	if !s.Conn().IsConnected() {
		return nil
	}
	var flushing errgroup.Group
	for _, i := range list {
		flushing.Go(func() error { return i.flush(ctx, true) })
	}
	return flushing.Wait()
}

// keep has the session of a bucket, if it was opened over one, know its inventory.
func (i *inventory) keep() {
	s, ok := i.of.js.(*Session)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inventories = append(s.inventories, i)
}
