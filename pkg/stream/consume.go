package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/logs"
)

// ConsumeConfig describes a durable consumer and what to do with its messages.
type ConsumeConfig struct {
	JS      jetstream.JetStream
	Stream  string
	Durable string
	// Filters are the subjects wanted; all when empty.
	Filters []string
	// Version of the consumer's settings; lower never overwrites higher. 1 when zero.
	Version int
	// DeliverNew starts a consumer that did not exist at the stream's end instead of its start.
	DeliverNew bool

	// AckWait is how long a message whose holder is silent waits before another gets it; 30 s
	// when zero. While a handler runs its message is kept alive.
	AckWait time.Duration
	// MaxAttempts parks a message that failed so often; 10 when zero, never when negative.
	MaxAttempts int
	// Backoff is the pause after a failed attempt (1, 2, …); 1 s doubling to 1 min when nil. A
	// message that waits here counts against MaxAckPending: what waits on Bitbucket is to be
	// acknowledged and kept elsewhere (DESIGN.md#jetstream).
	Backoff func(attempt int) time.Duration
	// MaxAckPending is how many messages may be unanswered over all processes; 10,000 when zero.
	MaxAckPending int

	// Handle gets one message at a time in each of Slots goroutines (1 when zero), each of
	// which holds one message and no more, so that other processes get the rest. nil or
	// ErrDone acknowledges; Park gives up; ErrLeave does neither; ErrTemporary (and
	// kv.ErrUnavailable) tries again in the same slot; any other error, or a panic, tries again
	// after Backoff.
	Handle func(ctx context.Context, m Msg) error
	Slots  int

	// HandleBatch, instead of Handle, gets what is waiting, at least one message and at most
	// Batch (100 when zero), in the stream's order. Its result holds for all of them. After an
	// error (not a temporary one) each message is handed over alone, so that one bad message
	// cannot hold up or park the others.
	HandleBatch func(ctx context.Context, ms []Msg) error
	Batch       int

	// Take, instead of Handle, is handed messages in the stream's order, one call at a time, without
	// waiting for those before: whoever queues them by owner lets no owner wait for another. It must
	// not block, and calls done once for each message, at any time, from any goroutine; the error
	// means what Handle's does, but temporary trouble is the taker's to sit out. Held messages (1024
	// when zero) and 64 MiB of them are in hand at most.
	Take func(ctx context.Context, m Msg, done func(error))
	Held int

	// Position, when it is set, keeps the consumer's place: the consumer itself then lives in the
	// server's memory, so that neither a delivery nor an acknowledgement costs a write to disk. After
	// a restart of the server it begins behind the last saved position, so that messages that were
	// acknowledged since come again: handlers must know them for as long as they are above it.
	Position Position

	// DeadLettersWithoutData keeps the data of a parked message out of its dead letter: for
	// messages whose data is kept, and erased, elsewhere.
	DeadLettersWithoutData bool

	// DoubleAck waits until the server has confirmed an acknowledgement; for work whose
	// repetition is dear. It does not make repetition impossible.
	DoubleAck bool
	// DrainTimeout is how long handlers may go on after ctx is done, before their own context
	// is cancelled; 10 s when zero.
	DrainTimeout time.Duration
	// Logger is required; Metrics may be nil. With them the server is asked every LagInterval, 15 s when
	// zero, how far the consumer is behind.
	Logger      *slog.Logger
	Metrics     *Metrics
	LagInterval time.Duration
}

const (
	defaultAckWait       = 30 * time.Second // silence after which a message comes again
	defaultMaxAttempts   = 10               // tries before a message is parked
	defaultMaxAckPending = 10_000           // messages that may be in hand at a time, over all replicas
	defaultBatch         = 100              // messages that are taken at a time
	defaultDrain         = 10 * time.Second // for handlers to end at shutdown
	defaultHeld          = 1024             // messages that a taker holds at a time
	defaultLagInterval   = 15 * time.Second // between two questions how far a consumer is behind

	// pullExpiry and pullHeartbeat bound one pull: a server that forgot it is noticed within
	// two heartbeats, even when the connection did not break.
	pullExpiry    = 30 * time.Second
	pullHeartbeat = 5 * time.Second // sign of life of the server while there is nothing
	// maxRetry is how long a message stays in its slot over temporary errors before it goes
	// back to the server after all.
	maxRetry = 15 * time.Minute
)

func (c ConsumeConfig) withDefaults() (ConsumeConfig, error) {
	switch {
	case c.JS == nil || c.Stream == "" || c.Durable == "" || c.Logger == nil:
		return c, errors.New("stream: ConsumeConfig needs JS, Stream, Durable and Logger")
	case handlers(c) != 1:
		return c, errors.New("stream: ConsumeConfig needs one of Handle, HandleBatch and Take")
	}
	if c.Held == 0 {
		c.Held = defaultHeld
	}
	c.Version = max(c.Version, 1)
	c.Slots = max(c.Slots, 1)
	c.AckWait = orDuration(c.AckWait, defaultAckWait)
	c.LagInterval = orDuration(c.LagInterval, defaultLagInterval)
	c.DrainTimeout = orDuration(c.DrainTimeout, defaultDrain)
	if c.MaxAttempts == 0 {
		c.MaxAttempts = defaultMaxAttempts
	}
	if c.MaxAckPending == 0 {
		c.MaxAckPending = defaultMaxAckPending
	}
	if c.Batch == 0 {
		c.Batch = defaultBatch
	}
	if c.Backoff == nil {
		c.Backoff = DefaultBackoff
	}
	c.Logger = c.Logger.With(logs.KeyStream, c.Stream, logs.KeyConsumer, c.Durable)
	return c, nil
}

func handlers(c ConsumeConfig) (n int) {
	for _, set := range []bool{c.Handle != nil, c.HandleBatch != nil, c.Take != nil} {
		if set {
			n++
		}
	}
	return n
}

func orDuration(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}

// DefaultBackoff is 1 s doubling to 1 min, less up to a quarter at random. It follows from the attempt
// alone: between two deliveries of a message nothing is kept, as Pauses would have to be.
func DefaultBackoff(attempt int) time.Duration {
	d := min(time.Second<<min(attempt-1, 6), time.Minute)
	return d - rand.N(d/4)
}

// ConsumerConfig is the durable consumer that Consume uses: explicit acknowledgement, and
// MaxDeliver -1, because a finite one drops a message whose worker dies on its last try and leaves
// no dead letter (DESIGN.md#jetstream).
func (c ConsumeConfig) ConsumerConfig() jetstream.ConsumerConfig {
	cfg := jetstream.ConsumerConfig{
		Durable:        c.Durable,
		AckPolicy:      jetstream.AckExplicitPolicy,
		AckWait:        c.AckWait,
		MaxDeliver:     -1,
		MaxAckPending:  c.MaxAckPending,
		FilterSubjects: c.Filters,
	}
	if c.DeliverNew {
		cfg.DeliverPolicy = jetstream.DeliverNewPolicy
	}
	return cfg
}

// Consume handles messages until ctx is done; then it fetches no more, lets handlers finish, and
// returns nil. It lives through restarts of NATS and through a consumer that was deleted. It
// returns an error only for a configuration that cannot work.
//
// Handlers must be idempotent: a message may come again at any time. Their context carries the
// trace and request id of the message; it outlives ctx by DrainTimeout.
func Consume(ctx context.Context, cfg ConsumeConfig) error {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return err
	}
	work, cancelWork := context.WithCancel(context.WithoutCancel(ctx))
	defer cancelWork()
	c := &consuming{cfg: cfg, flight: inFlight{by: map[uint64]*delivery{}}}

	done := make(chan struct{})
	go func() {
		defer close(done)
		var wg sync.WaitGroup
		if cfg.Take != nil {
			wg.Go(func() { c.take(ctx, work) })
		} else {
			for range cfg.Slots {
				wg.Go(func() { c.slot(ctx, work) })
			}
		}
		wg.Wait()
	}()
	cfg.Metrics.known(cfg.Stream, cfg.Durable)
	watching, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	var lag sync.WaitGroup
	lag.Go(func() { c.watchLag(watching) })
	saved := c.keepPosition(ctx)
	select {
	case <-done:
	case <-ctx.Done():
		drain := time.NewTimer(cfg.DrainTimeout)
		defer drain.Stop()
		select {
		case <-done:
		case <-drain.C:
			cfg.Logger.Warn("handlers still running after the drain time, cancelling them")
			cancelWork()
			<-done
		}
	}
	flush(work, cfg)
	saved()
	stopWatching()
	lag.Wait()
	return nil
}

// flush sees to it that the last answers have left, before whoever stopped us closes the connection.
func flush(ctx context.Context, cfg ConsumeConfig) {
	nc := cfg.JS.Conn()
	if !nc.IsConnected() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), PublishTimeout)
	defer cancel()
	if err := nc.FlushWithContext(ctx); err != nil {
		cfg.Logger.Warn("last acknowledgements may not have been sent", logs.Err(err))
	}
}

// consuming is one running Consume.
type consuming struct {
	cfg    ConsumeConfig
	flight inFlight

	answered atomic.Int64 // messages since the position was saved

	mu       sync.Mutex
	consumer jetstream.Consumer
}

// How often fetching is tried again that failed.
const (
	fetchFirst = 50 * time.Millisecond
	fetchMost  = 5 * time.Second
)

// slot pulls and handles, one pull at a time.
func (c *consuming) slot(ctx, work context.Context) {
	pauses := Pauses(fetchFirst, fetchMost)
	for ctx.Err() == nil {
		ds, err := c.pull(ctx, c.most())
		if len(ds) > 0 {
			c.handle(ctx, work, ds)
		}
		if err == nil || ctx.Err() != nil {
			pauses.Reset()
			continue
		}
		c.cfg.Logger.WarnContext(ctx, "cannot fetch messages", logs.Err(err))
		c.forget()
		waitFor(ctx, pauses.NextBackOff())
	}
}

// durable makes sure of the consumer once, and again after forget.
func (c *consuming) durable(ctx context.Context) (jetstream.Consumer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.consumer == nil {
		cons, err := c.ensure(ctx)
		if err != nil {
			return nil, err
		}
		c.consumer = cons
	}
	return c.consumer, nil
}

func (c *consuming) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.consumer = nil
}

// most is how many messages one handler call gets.
func (c *consuming) most() int {
	if c.cfg.HandleBatch == nil {
		return 1
	}
	return c.cfg.Batch
}

// pull waits for a message and takes what else is there, up to most.
func (c *consuming) pull(ctx context.Context, most int) ([]*delivery, error) {
	nc := c.cfg.JS.Conn()
	if !nc.IsConnected() {
		return nil, awaitConnection(ctx, nc)
	}
	cons, err := c.durable(ctx)
	if err != nil {
		return nil, err
	}
	fetchCtx, cancel := untilReconnect(ctx, nc)
	defer cancel()
	batch, err := cons.Fetch(1, jetstream.FetchContext(fetchCtx), jetstream.FetchHeartbeat(pullHeartbeat))
	if err != nil {
		return nil, ignoreEndOfPull(err)
	}
	ds := c.collect(nil, batch)
	err = ignoreEndOfPull(batch.Error())
	if most == 1 || len(ds) == 0 || ctx.Err() != nil {
		return ds, err
	}
	more, err := cons.FetchNoWait(most - 1)
	if err != nil {
		return ds, nil // what we have is handled first; the next pull reports the trouble
	}
	return c.collect(ds, more), nil
}

func (c *consuming) collect(ds []*delivery, batch jetstream.MessageBatch) []*delivery {
	for raw := range batch.Messages() {
		d, err := newDelivery(raw, InstallationOf(c.cfg.JS))
		if err != nil {
			c.cfg.Logger.Error("cannot use message", logs.Err(err))
			continue
		}
		if !c.flight.add(d) {
			c.cfg.Logger.Debug("message came again while in hand", logs.KeySequence, d.Sequence, logs.KeyAttempt, d.Attempt)
			continue
		}
		ds = append(ds, d)
	}
	return ds
}

// ignoreEndOfPull drops the errors by which a pull ends that simply found nothing, or that was
// given up because we stop or the connection is a new one.
func ignoreEndOfPull(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, nats.ErrTimeout) || errors.Is(err, jetstream.ErrNoMessages) || errors.Is(err, jetstream.ErrServerShutdown) {
		return nil
	}
	return err
}

// untilReconnect is a context that ends with ctx, after pullExpiry, or when the connection comes
// back after a loss, since the server of before has forgotten our pull.
func untilReconnect(ctx context.Context, nc *nats.Conn) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, pullExpiry)
	back := nc.StatusChanged(nats.CONNECTED)
	go func() {
		select {
		case <-ctx.Done():
		case <-back:
			cancel()
		}
	}()
	return ctx, func() {
		cancel()
		nc.RemoveStatusListener(back)
	}
}

func awaitConnection(ctx context.Context, nc *nats.Conn) error {
	if nc.IsClosed() {
		return fmt.Errorf("stream: %w", nats.ErrConnectionClosed)
	}
	back := nc.StatusChanged(nats.CONNECTED, nats.CLOSED)
	defer nc.RemoveStatusListener(back)
	if nc.IsConnected() {
		return nil
	}
	select {
	case <-ctx.Done():
	case <-back:
	}
	return nil
}

// waitFor sleeps for d, or until ctx is done.
func waitFor(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
