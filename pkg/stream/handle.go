package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/logs"
)

// Headers of a dead letter, beside those of the message itself.
const (
	HeaderDeadStream   = "Devpilot-Dead-Stream"
	HeaderDeadConsumer = "Devpilot-Dead-Consumer"
	HeaderDeadSequence = "Devpilot-Dead-Sequence"
	HeaderDeadSubject  = "Devpilot-Dead-Subject"
	HeaderDeadReason   = "Devpilot-Dead-Reason"
	HeaderDeadAttempts = "Devpilot-Dead-Attempts"
)

const (
	// answerTimeout bounds the answer to a message: acknowledgement, nak, or parking.
	answerTimeout = 10 * time.Second
	// confirmTimeout bounds one wait for the server's confirmation of an acknowledgement.
	confirmTimeout = 1500 * time.Millisecond
)

// handle runs the handler over ds and answers each message.
func (c *consuming) handle(ctx, work context.Context, ds []*delivery) {
	defer func() {
		for _, d := range ds {
			c.flight.remove(d)
		}
	}()
	stop := keepAlive(ds, c.cfg.AckWait/3)
	defer stop()
	if c.cfg.Handle != nil {
		c.answer(work, ds[0], c.attempt(ctx, work, ds))
		return
	}
	err := c.attempt(ctx, work, ds)
	if err == nil || len(ds) == 1 {
		c.answerAll(work, ds, err)
		return
	}
	if work.Err() != nil || isTemporary(err) {
		c.answerAll(work, ds, err)
		return
	}
	c.cfg.Logger.WarnContext(work, "batch failed, handling its messages one by one", slog.Int(logs.KeyCount, len(ds)), logs.Err(err))
	for _, d := range ds {
		one := []*delivery{d}
		c.answer(work, d, c.attempt(ctx, work, one))
	}
}

// How often a handler is called again that met temporary trouble.
const (
	retryFirst = 100 * time.Millisecond
	retryMost  = 10 * time.Second
)

// attempt calls the handler, and again while it only meets temporary trouble and we are not
// stopping.
func (c *consuming) attempt(ctx, work context.Context, ds []*delivery) error {
	pauses := Pauses(retryFirst, retryMost)
	start := time.Now()
	for {
		err := c.call(work, ds)
		if errors.Is(err, ErrLeave) {
			return err
		}
		if err == nil || errors.Is(err, ErrDone) {
			return nil
		}
		if !isTemporary(err) || ctx.Err() != nil || time.Since(start) > maxRetry {
			return err
		}
		c.cfg.Logger.WarnContext(work, "temporary trouble, trying again",
			slog.String(logs.KeyNATSSubject, ds[0].Subject), slog.Uint64(logs.KeySequence, ds[0].Sequence), logs.Err(err))
		waitFor(ctx, pauses.NextBackOff())
	}
}

// call runs the handler once and turns a panic into an error.
func (c *consuming) call(work context.Context, ds []*delivery) (err error) {
	defer c.cfg.Metrics.observe(c.cfg.Stream, c.cfg.Durable, time.Now())
	defer func() {
		if r := recover(); r != nil {
			c.cfg.Logger.ErrorContext(work, "handler panicked", logs.KeyErr, fmt.Sprint(r), logs.KeyStack, string(debug.Stack()))
			err = fmt.Errorf("stream: handler panicked: %v", r)
		}
	}()
	if c.cfg.Handle != nil {
		return c.cfg.Handle(ExtractContext(work, ds[0].Header), ds[0].Msg)
	}
	ms := make([]Msg, len(ds))
	for i, d := range ds {
		ms[i] = d.Msg
	}
	return c.cfg.HandleBatch(work, ms)
}

func (c *consuming) answerAll(work context.Context, ds []*delivery, err error) {
	for _, d := range ds {
		c.answer(work, d, err)
	}
}

// What becomes of a message, as metrics tell it.
const (
	outcomeDone        = "done"
	outcomeRetried     = "retried"
	outcomeParked      = "parked"
	outcomeLeft        = "left"
	outcomeInterrupted = "interrupted"
)

// answer answers the message according to what became of it. What cannot be answered comes again.
func (c *consuming) answer(work context.Context, d *delivery, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(work), answerTimeout)
	defer cancel()
	log := c.cfg.Logger.With(logs.KeyNATSSubject, d.Subject, logs.KeySequence, d.Sequence, logs.KeyAttempt, d.Attempt)
	var park *parkError
	var outcome string
	var answer error
	switch {
	case err == nil:
		outcome, answer = outcomeDone, c.ack(ctx, d)
	case errors.Is(err, ErrLeave):
		outcome = outcomeLeft
	case errors.As(err, &park):
		outcome, answer = outcomeParked, c.park(ctx, d, park.reason)
		log.ErrorContext(ctx, "message parked", logs.KeyReason, park.reason)
	case work.Err() != nil, errors.Is(err, errInterrupted): // cut short by our own stop: nobody's failure
		outcome, answer = outcomeInterrupted, d.current().NakWithDelay(time.Millisecond)
	case c.cfg.MaxAttempts > 0 && d.Attempt >= c.cfg.MaxAttempts && !isTemporary(err):
		outcome, answer = outcomeParked, c.park(ctx, d, "gave up: "+err.Error())
		log.ErrorContext(ctx, "message parked after its last attempt", logs.Err(err))
	default:
		delay := c.cfg.Backoff(d.Attempt)
		outcome, answer = outcomeRetried, d.current().NakWithDelay(delay)
		log.WarnContext(ctx, "handling failed, trying again", logs.Err(err), slog.Int64(logs.KeyRetryIn, delay.Milliseconds()))
	}
	c.answered.Add(1)
	c.cfg.Metrics.count(c.cfg.Stream, c.cfg.Durable, outcome)
	if answer != nil {
		log.WarnContext(ctx, "message not answered, it will come again", slog.String(logs.KeyState, outcome), logs.Err(answer))
	}
}

// ack acknowledges, trying again while the connection is away: the answer to a message stays valid
// over a reconnect.
func (c *consuming) ack(ctx context.Context, d *delivery) error {
	for {
		var err error
		if m := d.current(); c.cfg.DoubleAck {
			// An answer that was on its way when the connection broke never comes.
			ackCtx, cancel := context.WithTimeout(ctx, confirmTimeout)
			err = m.DoubleAck(ackCtx)
			cancel()
		} else {
			err = m.Ack()
		}
		if err == nil || errors.Is(err, jetstream.ErrMsgAlreadyAckd) {
			return nil
		}
		waitFor(ctx, 100*time.Millisecond)
		if ctx.Err() != nil {
			return err
		}
	}
}

// park stores the dead letter first and then ends the delivery, so that a death between the two
// repeats the first, which its subject makes harmless.
func (c *consuming) park(ctx context.Context, d *delivery, reason string) error {
	subject, err := DeadLetterSubject(c.cfg.Stream, c.cfg.Durable, d.Sequence)
	if err != nil {
		return err
	}
	if err := c.ensureDeadLetters(ctx); err != nil {
		return err
	}
	h := nats.Header{}
	for k, v := range d.Header {
		if !strings.HasPrefix(k, "Nats-") { // those steer the server
			h[k] = v
		}
	}
	h.Set(HeaderDeadStream, c.cfg.Stream)
	h.Set(HeaderDeadConsumer, c.cfg.Durable)
	h.Set(HeaderDeadSequence, strconv.FormatUint(d.Sequence, 10))
	h.Set(HeaderDeadSubject, d.Subject)
	h.Set(HeaderDeadReason, headerText(reason))
	h.Set(HeaderDeadAttempts, strconv.Itoa(d.Attempt))
	data := d.Data
	if c.cfg.DeadLettersWithoutData {
		data = nil
	}
	_, err = Publisher{JS: c.cfg.JS}.Publish(ctx, &nats.Msg{Subject: subject, Header: h, Data: data}, jetstream.WithExpectLastSequencePerSubject(0))
	var api *jetstream.APIError
	if errors.As(err, &api) && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant) {
		err = nil // parked before
	}
	if err != nil {
		return err
	}
	return d.current().TermWithReason("parked")
}

// ensureDeadLetters makes the dead letters' stream.
func (c *consuming) ensureDeadLetters(ctx context.Context) error {
	_, err := c.cfg.JS.Stream(ctx, InstallationOf(c.cfg.JS).Stream(DeadLettersStream))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		_, err = Ensure(ctx, c.cfg.JS, DeadLetters, Options{Logger: c.cfg.Logger})
	}
	return err
}

// headerText makes a text fit for a header: one line, 1 KiB at most.
func headerText(s string) string {
	const most = 1024
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "")
	}
	return s
}
