package stream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"
)

const (
	pulseEvery  = time.Second // between two rounds of questions
	pulseAnswer = time.Second // how long an answer may take
	// pulseGrace is how long a stream may go without an answer: while a leader hands over, nobody
	// answers for it, and it takes writes again before anybody has given up on one.
	pulseGrace = 4 * time.Second
	// pulseSilence is how long the leader may not have heard of a replica. It hears of each every
	// second, and needs ten to see itself that the majority is gone: what is written meanwhile is
	// acknowledged by nobody.
	pulseSilence = 4 * time.Second
)

// Opened is what a JetStream may offer that wants to know which streams are used over it.
type Opened interface{ Opened(stream string) }

// opened tells js that a stream is used over it.
func opened(js jetstream.JetStream, name string) {
	if o, ok := js.(Opened); ok {
		o.Opened(name)
	}
}

// Pulse knows whether the streams that a process uses take writes: whether each has a leader that
// hears of most replicas. A connection says nothing about that: what is left of a cluster takes
// connections too. It reads, and writes nothing. Nodes fail, and not streams, so that it asks about one stream
// in turn, and about those that did not answer well. It is safe for concurrent use.
type Pulse struct {
	js jetstream.JetStream

	mu    sync.Mutex
	names []string
	next  int
	ill   map[string]illness
}

// illness is what is wrong with a stream, and since when.
type illness struct {
	err   error
	since time.Time
}

// errNoQuorum is believed at once: the leader has waited already.
var errNoQuorum = errors.New("has no majority of its replicas")

// NewPulse makes a pulse that knows of no stream.
func NewPulse(js jetstream.JetStream) *Pulse {
	return &Pulse{js: js, ill: map[string]illness{}}
}

// Opened adds a stream to those that are asked about.
func (p *Pulse) Opened(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !slices.Contains(p.names, name) {
		p.names = append(p.names, name)
	}
}

// Ready is nil while all streams take writes, as far as is known. It asks nobody.
func (p *Pulse) Ready(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for _, name := range p.names {
		if i, ok := p.ill[name]; ok && (errors.Is(i.err, errNoQuorum) || time.Since(i.since) >= pulseGrace) {
			errs = append(errs, fmt.Errorf("stream %s %w", name, i.err))
		}
	}
	return errors.Join(errs...)
}

// Run asks until ctx is done.
func (p *Pulse) Run(ctx context.Context) {
	tick := time.NewTicker(pulseEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			p.round(ctx)
		}
	}
}

// round asks about the next stream and those that were ill.
func (p *Pulse) round(ctx context.Context) {
	p.mu.Lock()
	var names []string
	for name := range p.ill {
		names = append(names, name)
	}
	if len(p.names) > 0 {
		p.next = (p.next + 1) % len(p.names)
		if name := p.names[p.next]; !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	p.mu.Unlock()
	var g errgroup.Group
	for _, name := range names {
		g.Go(func() error {
			err := p.ask(ctx, name)
			if ctx.Err() == nil {
				p.note(name, err)
			}
			return nil
		})
	}
	_ = g.Wait() // what is wrong was noted
}

func (p *Pulse) note(name string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		delete(p.ill, name)
		return
	}
	i, was := p.ill[name]
	if !was {
		i.since = time.Now()
	}
	i.err = err
	p.ill[name] = i
}

// ask asks the leader of a stream.
func (p *Pulse) ask(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, pulseAnswer)
	defer cancel()
	s, err := p.js.Stream(ctx, name)
	if err != nil {
		return fmt.Errorf("does not answer: %w", err)
	}
	return Majority(s.CachedInfo())
}

// Majority tells from what a leader says whether it hears of most of the stream's replicas.
func Majority(info *jetstream.StreamInfo) error {
	if info.Cluster == nil { // a server of its own
		return nil
	}
	if info.Cluster.Leader == "" {
		return errors.New("has no leader")
	}
	all, heard := max(info.Config.Replicas, len(info.Cluster.Replicas)+1), 1
	for _, r := range info.Cluster.Replicas {
		if !r.Offline && r.Active < pulseSilence {
			heard++
		}
	}
	if 2*heard <= all {
		return fmt.Errorf("%w: its leader hears of %d of %d", errNoQuorum, heard, all)
	}
	return nil
}
