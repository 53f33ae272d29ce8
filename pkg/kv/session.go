package kv

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"devpilot.io/bitbucket/pkg/stream"
)

// Session is a JetStream that knows what was written and noted over it. Who opens a connection makes one of
// it, hands it on in the place of its JetStream, and flushes it before the connection is closed: they know
// no bucket. Over a bare JetStream, buckets work as well, and what their inventories have in memory when the
// process ends is not written.
//
// It also knows whether the streams that were opened over it take writes: see stream.Pulse.
type Session struct {
	jetstream.JetStream
	*stream.Pulse

	settings stream.Settings
	sole     bool

	mu          sync.Mutex
	inventories []*inventory
	wrote       map[string]*atomic.Uint64 // by bucket
}

// NewSession makes a session of a connection's JetStream, with what holds for all that is opened over it.
func NewSession(js jetstream.JetStream, settings stream.Settings) *Session {
	return &Session{JetStream: js, Pulse: stream.NewPulse(js), settings: settings, wrote: map[string]*atomic.Uint64{}}
}

// StreamSettings are the settings that the session was made with.
func (s *Session) StreamSettings() stream.Settings { return s.settings }

// NewSoleSession is NewSession for a NATS that nobody else can reach. What was written to a bucket is then
// what this session wrote, so that a copy which has that is new enough, and nobody has to be asked.
func NewSoleSession(js jetstream.JetStream, settings stream.Settings) *Session {
	s := NewSession(js, settings)
	s.sole = true
	return s
}

// wroteTo is the newest revision that was written to a bucket over js by this process: through whichever
// of its handles, where js is a session.
func wroteTo(js jetstream.JetStream, bucket string) *atomic.Uint64 {
	s, ok := js.(*Session)
	if !ok {
		return new(atomic.Uint64)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wrote[bucket] == nil {
		s.wrote[bucket] = new(atomic.Uint64)
	}
	return s.wrote[bucket]
}

// soleLife numbers the life of the connection to a NATS that nobody else can reach. It is not ok where
// others can, or while there is no connection: a store that is away is not answered for.
func (s *store) soleLife() (life uint64, ok bool) {
	session, ok := s.js.(*Session)
	if !ok || !session.sole || !session.Conn().IsConnected() {
		return 0, false
	}
	return session.Conn().Stats().Reconnects, true
}

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
