package outcome

import (
	"context"
	"sync/atomic"
	"time"

	"devpilot.io/bitbucket/pkg/logs"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
)

// Direct brings outcomes to webhook at once, without storing them, for whoever decides anew and says
// the same again should it die before Put has returned. What webhook does not take is stored.
type Direct struct {
	Outbox *Outbox
	// again is when webhook is called again after it did not answer, in Unix nanoseconds.
	again atomic.Int64
}

const (
	// directTimeout bounds one call of webhook before its outcomes are stored.
	directTimeout = 2 * time.Second
	// directPause is how long all are stored after webhook did not answer.
	directPause = 5 * time.Second
)

// Put brings outcomes, or stores them.
func (d *Direct) Put(ctx context.Context, outcomes ...*webhookv1.RecordedOutcome) error {
	if len(outcomes) == 0 {
		return nil
	}
	if time.Now().UnixNano() < d.again.Load() {
		return d.Outbox.Put(ctx, outcomes...)
	}
	call, cancel := context.WithTimeout(ctx, directTimeout)
	defer cancel()
	err := d.Outbox.record(call, outcomes)
	if err == nil {
		return nil
	}
	d.again.Store(time.Now().Add(directPause).UnixNano())
	d.Outbox.Logger.InfoContext(ctx, "webhook takes no outcomes now; they are kept for it", logs.Err(err))
	return d.Outbox.Put(ctx, outcomes...)
}
