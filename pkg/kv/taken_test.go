package kv

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A request that changed nothing is made again while a server starts or a leader changes; any other is not.
func TestUntilTaken(t *testing.T) {
	notYet := fmt.Errorf("get: %w", &jetstream.APIError{Code: 503, ErrorCode: 10008, Description: "JetStream system temporarily unavailable"})
	for name, c := range map[string]struct {
		err   error
		after time.Duration // it is taken
		most  time.Duration // it is tried for, and a pause, which varies; 0: once
	}{
		"a leader changes":              {notYet, 3 * time.Second, leaderTimeout},
		"there is no leader":            {notYet, time.Hour, leaderTimeout},
		"not the leader":                {&jetstream.APIError{Code: 500, ErrorCode: 10009}, 3 * time.Second, leaderTimeout},
		"the last revision is not read": {&jetstream.APIError{Code: 503, ErrorCode: 10163}, time.Second, leaderTimeout},
		"the bucket is just made":       {fmt.Errorf("get: %w", &jetstream.APIError{Code: 404, ErrorCode: 10059, Description: "stream not found"}), time.Second, leaderTimeout},
		"there is no such bucket":       {&jetstream.APIError{Code: 404, ErrorCode: 10059}, time.Hour, leaderTimeout},
		"the server starts":             {nats.ErrNoResponders, time.Second, unsentTimeout},
		"the server is away":            {nats.ErrReconnectBufExceeded, time.Hour, unsentTimeout},
		"a lost compare-and-set":        {&jetstream.APIError{Code: 400, ErrorCode: jetstream.JSErrCodeStreamWrongLastSequence}, time.Hour, 0},
		"nobody knows":                  {nats.ErrTimeout, time.Hour, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				err := untilTaken(t.Context(), func() error {
					if time.Since(began) < c.after {
						return c.err
					}
					return nil
				})
				took := time.Since(began)
				if taken := c.after < c.most; taken != (err == nil) || !taken && !errors.Is(err, c.err) {
					t.Errorf("after %v: %v", took, err)
				}
				if took > c.most+2*unsentMaxWait || c.after > c.most && took < c.most {
					t.Errorf("it was tried for %v", took)
				}
			})
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := untilTaken(ctx, func() error { return notYet }); !errors.Is(err, notYet) {
		t.Errorf("for a caller who has gone: %v", err)
	}
}
