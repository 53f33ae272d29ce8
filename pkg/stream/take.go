package stream

import (
	"context"
	"errors"
	"sync"
	"time"

	"devpilot.io/bitbucket/pkg/logs"
)

const (
	// maxHeldBytes bounds the data of messages that were taken and are not answered.
	maxHeldBytes = 64 << 20
	// takenAtOnce is how many messages are fetched in one go: with those in hand they must fit into
	// memory, whatever their size.
	takenAtOnce = 64
)

// held are the messages that a taker has not answered yet.
type held struct {
	mu    sync.Mutex
	by    map[*delivery]struct{}
	bytes int
	// freed tells the one that waits for room, or for the end.
	freed chan struct{}
}

func (h *held) add(d *delivery) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.by[d] = struct{}{}
	h.bytes += len(d.Data)
}

func (h *held) remove(d *delivery) {
	h.mu.Lock()
	delete(h.by, d)
	h.bytes -= len(d.Data)
	h.mu.Unlock()
	select {
	case h.freed <- struct{}{}:
	default:
	}
}

// room is how many more messages may be taken.
func (h *held) room(most int) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.bytes >= maxHeldBytes {
		return 0
	}
	return min(most-len(h.by), takenAtOnce)
}

func (h *held) all() []*delivery {
	h.mu.Lock()
	defer h.mu.Unlock()
	ds := make([]*delivery, 0, len(h.by))
	for d := range h.by {
		ds = append(ds, d)
	}
	return ds
}

// take pulls messages and hands them to the taker, as far as there is room, until ctx is done and
// all are answered.
func (c *consuming) take(ctx, work context.Context) {
	h := &held{by: map[*delivery]struct{}{}, freed: make(chan struct{}, 1)}
	alive, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	go c.keepInHand(alive, h)
	pauses := Pauses(fetchFirst, fetchMost)
	for ctx.Err() == nil {
		room := h.room(c.cfg.Held)
		if room <= 0 {
			select {
			case <-h.freed:
			case <-ctx.Done():
			}
			continue
		}
		ds, err := c.pull(ctx, room)
		for _, d := range ds {
			h.add(d)
			c.hand(ctx, work, h, d)
		}
		if err == nil || ctx.Err() != nil {
			pauses.Reset()
			continue
		}
		c.cfg.Logger.WarnContext(ctx, "cannot fetch messages", logs.Err(err))
		c.forget()
		waitFor(ctx, pauses.NextBackOff())
	}
	for len(h.all()) > 0 {
		select {
		case <-h.freed:
		case <-work.Done(): // the drain time is over: what is in hand comes again elsewhere
			return
		}
	}
}

// hand gives one message to the taker and answers it when the taker is done with it.
func (c *consuming) hand(ctx, work context.Context, h *held, d *delivery) {
	start := time.Now()
	var once sync.Once
	done := func(err error) {
		once.Do(func() {
			c.cfg.Metrics.observe(c.cfg.Stream, c.cfg.Durable, start)
			switch {
			case errors.Is(err, ErrDone):
				err = nil
			case errors.Is(err, context.Canceled) && ctx.Err() != nil:
				err = errInterrupted
			}
			c.answer(work, d, err)
			c.flight.remove(d)
			h.remove(d)
		})
	}
	c.cfg.Take(ExtractContext(work, d.Header), d.Msg, done)
}

// errInterrupted says that our own stop cut the work on a message short.
var errInterrupted = errors.New("stream: interrupted")

// keepInHand tells the server that the messages in hand are being worked on.
func (c *consuming) keepInHand(ctx context.Context, h *held) {
	t := time.NewTicker(c.cfg.AckWait / 3)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			for _, d := range h.all() {
				_ = d.current().InProgress() // lost: the message comes again, and is found in our hands
			}
		}
	}
}
