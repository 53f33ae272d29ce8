package stream

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/logs"
)

// backlog is how far a consumer is behind: the same on every replica, as the consumer is shared.
type backlog struct {
	pending        uint64        // messages that were handed to nobody yet
	unacknowledged int           // messages in somebody's hands
	age            time.Duration // of the oldest message that is not acknowledged; 0 where there is none
	dead           uint64        // dead letters of the consumer
}

// watchLag keeps the metrics of the consumer's backlog until ctx is done. A scrape finds what the last answer
// said, and asks nobody.
func (c *consuming) watchLag(ctx context.Context) {
	if c.cfg.Metrics == nil {
		return
	}
	for ctx.Err() == nil {
		b, err := c.backlog(ctx)
		switch {
		case err == nil:
			c.cfg.Metrics.lag(c.cfg.Stream, c.cfg.Durable, b)
		case ctx.Err() == nil: // what was known stays; whether NATS is there has a metric of its own
			c.cfg.Logger.DebugContext(ctx, "backlog of a consumer not known", logs.Err(err))
		}
		waitFor(ctx, c.cfg.LagInterval)
	}
}

func (c *consuming) backlog(ctx context.Context) (backlog, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	cons, err := c.durable(ctx)
	if err != nil {
		return backlog{}, err
	}
	info, err := cons.Info(ctx)
	if err != nil {
		return backlog{}, err
	}
	b := backlog{pending: info.NumPending, unacknowledged: info.NumAckPending}
	if b.dead, err = c.deadLetters(ctx); err != nil {
		return backlog{}, err
	}
	if b.pending == 0 && b.unacknowledged == 0 {
		return b, nil
	}
	b.age, err = c.oldest(ctx, info)
	return b, err
}

// oldest is the age of the first message behind those that are all acknowledged. Of a consumer with several
// filters it may be that of a message which is not the consumer's: it is never too low.
func (c *consuming) oldest(ctx context.Context, info *jetstream.ConsumerInfo) (time.Duration, error) {
	s, err := c.cfg.JS.Stream(ctx, info.Stream)
	if err != nil {
		return 0, err
	}
	filter := ">"
	if len(info.Config.FilterSubjects) == 1 {
		filter = info.Config.FilterSubjects[0]
	} else if info.Config.FilterSubject != "" {
		filter = info.Config.FilterSubject
	}
	m, err := s.GetMsg(ctx, info.AckFloor.Stream+1, jetstream.WithGetMsgSubject(filter))
	if errors.Is(err, jetstream.ErrMsgNotFound) { // acknowledged meanwhile
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return max(info.TimeStamp.Sub(m.Time), 0), nil
}

// deadLetters counts the messages that this consumer gave up on and that are still kept.
func (c *consuming) deadLetters(ctx context.Context) (uint64, error) {
	names := InstallationOf(c.cfg.JS)
	one, err := DeadLetterSubject(c.cfg.Stream, c.cfg.Durable, 0)
	if err != nil {
		return 0, err
	}
	s, err := c.cfg.JS.Stream(ctx, names.Stream(DeadLettersStream))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return 0, nil // nobody gave up on anything yet
	}
	if err != nil {
		return 0, err
	}
	if s.CachedInfo().State.Msgs == 0 {
		return 0, nil
	}
	all := one[:strings.LastIndexByte(one, '.')] + ".*"
	info, err := s.Info(ctx, jetstream.WithSubjectFilter(names.Subject(all)))
	if err != nil {
		return 0, err
	}
	return uint64(len(info.State.Subjects)), nil
}
