package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/logs"
)

// Position keeps how far a consumer has come, for whoever consumes under its name. It is safe for
// concurrent use. A stream that is deleted and made again counts anew: made tells one from the other.
type Position interface {
	// Load returns the saved sequence of the stream made then; 0 when none was saved.
	Load(ctx context.Context, made time.Time) (uint64, error)
	// Save stores a sequence unless a higher one of the same stream is there, or in any case when the
	// stream was cut back below it.
	Save(ctx context.Context, made time.Time, sequence uint64, cutBack bool) error
}

// Queued is the position of a consumer of a work queue. The queue holds what is not acknowledged and
// nothing else, so that a consumer that is made anew begins in the right place without one. It counts
// deliveries anew, too: that Msg.Attempt is 1 is no proof that nobody holds the message.
var Queued Position = queued{}

type queued struct{}

func (queued) Load(context.Context, time.Time) (uint64, error)     { return 0, nil }
func (queued) Save(context.Context, time.Time, uint64, bool) error { return nil }

// positionEvery is how often the position is saved while messages are acknowledged: what comes again
// after a restart of the server is what was acknowledged since.
const positionEvery = 5 * time.Second

// ensure makes sure of the consumer.
func (c *consuming) ensure(ctx context.Context) (jetstream.Consumer, error) {
	if c.cfg.Position == nil {
		return EnsureConsumer(ctx, c.cfg.JS, c.cfg.Stream, c.cfg.ConsumerConfig(), c.cfg.Version)
	}
	info, err := c.source(ctx)
	if err != nil {
		return nil, err
	}
	names := InstallationOf(c.cfg.JS)
	stream, durable := names.Stream(c.cfg.Stream), names.Stream(c.cfg.Durable)
	made, last, queue := info.Created, info.State.LastSeq, info.Config.Retention == jetstream.WorkQueuePolicy
	return settled(ctx, func(ctx context.Context) (jetstream.Consumer, error) {
		have, err := c.cfg.JS.Consumer(ctx, stream, durable)
		switch {
		case err == nil && have.CachedInfo().Config.MemoryStorage:
			return have, nil
		case err == nil:
			// One that an earlier version made, on disk. Where it stood is saved before it goes.
			err = c.cfg.Position.Save(ctx, made, have.CachedInfo().AckFloor.Stream, false)
			if err == nil {
				err = c.cfg.JS.DeleteConsumer(ctx, stream, durable)
			}
			if err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
				return nil, fmt.Errorf("stream: move consumer %s of %s to memory: %w", c.cfg.Durable, c.cfg.Stream, err)
			}
		case !errors.Is(err, jetstream.ErrConsumerNotFound):
			return nil, fmt.Errorf("stream: ensure consumer %s of %s: %w", c.cfg.Durable, c.cfg.Stream, err)
		}
		at, err := c.cfg.Position.Load(ctx, made)
		if err == nil && at > last { // a stream that was restored from before
			at, err = last, c.cfg.Position.Save(ctx, made, last, true)
		}
		if err == nil && at == 0 && c.cfg.DeliverNew {
			// The end is saved as it is now, or a consumer that is lost early would begin at a later one.
			at, err = last, c.cfg.Position.Save(ctx, made, last, false)
		}
		if err != nil {
			return nil, fmt.Errorf("stream: position of consumer %s of %s: %w", c.cfg.Durable, c.cfg.Stream, err)
		}
		cfg := names.consumer(c.cfg.ConsumerConfig())
		cfg.MemoryStorage = true
		cfg.Metadata = versioned(cfg.Metadata, c.cfg.Version)
		// A work queue holds what is not acknowledged and nothing else, and is consumed from its start only.
		if !queue && (at > 0 || c.cfg.DeliverNew) {
			cfg.DeliverPolicy, cfg.OptStartSeq = jetstream.DeliverByStartSequencePolicy, at+1
		}
		cons, err := c.cfg.JS.CreateConsumer(ctx, stream, cfg)
		if errors.Is(err, jetstream.ErrConsumerExists) {
			err = errUnsettled // another process was faster, perhaps with an older position: that does no harm
		}
		if err != nil {
			return nil, fmt.Errorf("stream: make consumer %s of %s: %w", c.cfg.Durable, c.cfg.Stream, err)
		}
		return cons, nil
	})
}

// source tells when the stream was made and how far it reaches.
func (c *consuming) source(ctx context.Context) (*jetstream.StreamInfo, error) {
	s, err := settled(ctx, func(ctx context.Context) (jetstream.Stream, error) {
		return c.cfg.JS.Stream(ctx, InstallationOf(c.cfg.JS).Stream(c.cfg.Stream))
	})
	if err != nil {
		return nil, fmt.Errorf("stream: ask for %s: %w", c.cfg.Stream, err)
	}
	return s.CachedInfo(), nil
}

// keepPosition saves the position now and then; the function it returns saves it a last time. While
// nothing is acknowledged it asks nobody.
func (c *consuming) keepPosition(ctx context.Context) (last func()) {
	if c.cfg.Position == nil || c.cfg.Position == Queued {
		return func() {}
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		t := time.NewTicker(positionEvery)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
				c.savePosition(ctx)
			}
		}
	}()
	return func() {
		<-ended
		c.savePosition(context.WithoutCancel(ctx))
	}
}

// savePosition saves up to where the server has everything acknowledged.
func (c *consuming) savePosition(ctx context.Context) {
	c.mu.Lock()
	cons, answered := c.consumer, c.answered.Swap(0)
	c.mu.Unlock()
	if cons == nil || answered == 0 || !c.cfg.JS.Conn().IsConnected() {
		c.answered.Add(answered)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, PublishTimeout)
	defer cancel()
	source, err := c.source(ctx)
	if err == nil {
		// Asked after the stream: a stream made anew meanwhile has a consumer made anew.
		var info *jetstream.ConsumerInfo
		if info, err = cons.Info(ctx); err == nil {
			err = c.cfg.Position.Save(ctx, source.Created, info.AckFloor.Stream, false)
		}
	}
	if err != nil {
		c.answered.Add(answered)
		c.cfg.Logger.WarnContext(ctx, "position not saved, trying again", logs.Err(err))
	}
}
