package stream

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// A cluster's leader may not have heard yet of a stream that another of its servers just made: what is set up on it
// waits for that, and says so in the end where there is no such stream.
func TestSettled_aStreamIsUnknownForAWhile(t *testing.T) {
	unknown := fmt.Errorf("create: %w", &jetstream.APIError{Code: 404, ErrorCode: jetstream.JSErrCodeStreamNotFound})
	for _, c := range []struct {
		known time.Duration
		err   error
		most  time.Duration
	}{{0, nil, 0}, {3 * time.Second, nil, 3*time.Second + 2*unknownMaxWait}, {time.Hour, jetstream.ErrStreamNotFound, unknownTimeout + 2*unknownMaxWait}} {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			_, err := settled(t.Context(), func(context.Context) (int, error) {
				if time.Since(began) < c.known {
					return 0, unknown
				}
				return 1, nil
			})
			if took := time.Since(began); !errors.Is(err, c.err) || took > c.most {
				t.Errorf("known after %v: after %v: %v", c.known, took, err)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := settled(ctx, func(context.Context) (int, error) { return 0, unknown }); err == nil {
		t.Error("who has gone is told of no error")
	}
}
