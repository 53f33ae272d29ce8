package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/logs"
)

const (
	// CanaryStream is written to in order to see whether the store takes writes; it holds nothing to be kept.
	CanaryStream  = "DEVPILOT_CANARY"
	canarySubject = "devpilot.canary.v1"
	// canaryStrikes is how many failed checks in a row, over CanaryTimeout at least, call for a
	// restart: one may be a disk that was busy. A stream that reports a write error needs no
	// second look.
	canaryStrikes = 2
	maxRestartGap = time.Minute // between two restarts of the embedded server at most
	// firstCanaryLimit bounds the wait for the first canary write of a start.
	firstCanaryLimit = 30 * time.Second
)

// errStreamBlocked says that a stream met a write error. It stays blocked until a restart, even
// when the disk has room again (DESIGN.md#jetstream).
var errStreamBlocked = errors.New("a stream is blocked by a write error")

var errUnhealthy = errors.New("the server is not well")

// canary proves every few seconds that a write reaches the disk and that no stream is blocked.
type canary struct {
	n        *NATS
	strikes  int
	since    time.Time // of the first strike
	gap      time.Duration
	notUntil time.Time
}

func newCanary(n *NATS) *canary { return &canary{n: n, gap: n.cfg.CanaryInterval} }

func (c *canary) run(ctx context.Context) {
	tick := time.NewTicker(c.n.cfg.CanaryInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			c.step(ctx)
		}
	}
}

// first waits for the first check that passes: a busy disk makes a start slow, not impossible.
func (c *canary) first(ctx context.Context) error {
	giveUp := time.Now().Add(firstCanaryLimit)
	for {
		err := c.check(ctx)
		if err == nil || outOfLimits(err) || ctx.Err() != nil || time.Now().After(giveUp) {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// step checks once and, when the server needs it, restarts it in place. Restarts that do not help
// come at growing gaps.
func (c *canary) step(ctx context.Context) {
	err := c.check(ctx)
	if ctx.Err() != nil {
		return
	}
	if err == nil {
		c.strikes, c.gap = 0, c.n.cfg.CanaryInterval
		c.n.setHealth(nil)
		return
	}
	c.n.setHealth(err)
	if c.n.isHeld() {
		c.strikes = 0
		return
	}
	if c.strikes++; c.strikes == 1 {
		c.since = time.Now()
	}
	if !errors.Is(err, errStreamBlocked) && (c.strikes < canaryStrikes || time.Since(c.since) < c.n.cfg.CanaryTimeout) {
		c.n.cfg.Logger.Warn("nats canary failed", logs.Err(err))
		return
	}
	if outOfLimits(err) || time.Now().Before(c.notUntil) {
		return
	}
	c.n.cfg.Logger.Error("nats canary failed, restarting the embedded server", logs.Err(err), slog.Any(logs.KeyAttempt, c.n.Restarts()+1))
	c.gap = min(2*c.gap, maxRestartGap) // of its own: nobody waits for it, the next restart is only not before
	c.notUntil = time.Now().Add(c.gap)
	if err := c.n.mend(ctx); err != nil {
		c.n.setHealth(err)
		c.n.cfg.Logger.Error("embedded nats server did not restart", logs.Err(err))
		return
	}
	c.strikes = 0
	c.step(ctx)
}

// outOfLimits tells a store that has reached MaxStore, which a restart does not mend.
func outOfLimits(err error) bool {
	var api *jetstream.APIError
	const insufficientResources, storageExceeded = 10023, 10047
	return errors.As(err, &api) && (api.ErrorCode == insufficientResources || api.ErrorCode == storageExceeded)
}

// check writes one synced message and asks the server whether any stream met a write error.
func (c *canary) check(ctx context.Context) error {
	srv, err := c.n.server()
	if err != nil {
		return err
	}
	if err := health(srv); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.n.cfg.CanaryTimeout)
	defer cancel()
	return c.write(ctx, srv)
}

// health asks the server about its streams. A stream that is just being made or deleted looks for a
// moment like one that could not be recovered: that is worth a strike and not yet a restart.
func health(srv *server.Server) error {
	var troubles error
	for _, e := range srv.Healthz(&server.HealthzOptions{Details: true}).Errors {
		kind := errUnhealthy
		if e.Type == server.HealthzErrorStream && strings.Contains(e.Error, "write error") {
			kind = errStreamBlocked
		}
		troubles = errors.Join(troubles, fmt.Errorf("%w: %s", kind, e.Error))
	}
	return troubles
}

func (c *canary) write(ctx context.Context, srv *server.Server) error {
	// A connection of its own each time costs microseconds in process and never carries
	// state over a restart.
	nc, err := nats.Connect("", c.n.connect(srv), nats.Name("devpilot-canary"), nats.NoReconnect())
	if err != nil {
		return fmt.Errorf("connect the canary: %w", err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return fmt.Errorf("connect the canary: %w", err)
	}
	stamp := []byte(time.Now().UTC().Format(time.RFC3339Nano))
	_, err = js.Publish(ctx, canarySubject, stamp, jetstream.WithRetryAttempts(0))
	if errors.Is(err, jetstream.ErrNoStreamResponse) || errors.Is(err, nats.ErrNoResponders) {
		_, err = js.CreateStream(ctx, jetstream.StreamConfig{
			Name: CanaryStream, Subjects: []string{canarySubject}, Description: "proves that writes reach the disk",
			Storage: jetstream.FileStorage, MaxMsgs: 1, Discard: jetstream.DiscardOld,
		})
		if err != nil {
			return fmt.Errorf("create the canary's stream: %w", err)
		}
		_, err = js.Publish(ctx, canarySubject, stamp, jetstream.WithRetryAttempts(0))
	}
	if err != nil {
		return fmt.Errorf("write the canary: %w", err)
	}
	return nil
}
