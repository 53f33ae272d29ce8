package rpc

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// mostTries is how often an idempotent call is made where replicas turn out to be frozen.
const mostTries = 3

type tryKey struct{}

// try is one try of a call; the balancer says which replica it went to.
type try struct{ node atomic.Pointer[node] }

// invoke makes a call to a replica.
func (c *client) invoke(ctx context.Context, method string, call func(context.Context) error) error {
	if !c.replicas {
		return call(ctx)
	}
	return elsewhere(ctx, c.idempotent[method], call)
}

// elsewhere makes a call, and where it is idempotent makes it again at another replica once the one that
// has it turns out to be frozen. Other calls wait on, since nobody knows whether they were done: but the next
// ones keep away.
func elsewhere(ctx context.Context, idempotent bool, invoke func(context.Context) error) error {
	for i := 1; ; i++ {
		frozen, err := once(ctx, idempotent && i < mostTries, invoke)
		if !frozen {
			return err
		}
	}
}

// once makes one try, and tells whether it was given up because its replica is frozen.
func once(ctx context.Context, giveUp bool, invoke func(context.Context) error) (frozen bool, err error) {
	t := &try{}
	ctx, cancel := context.WithCancelCause(context.WithValue(ctx, tryKey{}, t))
	defer cancel(nil)
	ended := make(chan struct{})
	defer close(ended)
	watch := time.AfterFunc(slowCall, func() { t.watch(ended, giveUp, cancel) })
	defer watch.Stop()
	err = invoke(ctx)
	return status.Code(err) == codes.Canceled && errors.Is(context.Cause(ctx), errFrozen), err
}

// watch asks again and again for a sign of life of the replica that has a try.
func (t *try) watch(ended <-chan struct{}, giveUp bool, cancel context.CancelCauseFunc) {
	pause := time.NewTicker(slowCall)
	defer pause.Stop()
	for {
		if n := t.node.Load(); n != nil && !n.alive() && giveUp {
			cancel(errFrozen)
			return
		}
		select {
		case <-ended:
			return
		case <-pause.C:
		}
	}
}
