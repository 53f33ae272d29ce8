package installation_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/installation"
	"devpilot.io/bitbucket/pkg/logs"
)

// losing is a JetStream whose first answer is lost, as that of a server that is killed while it is asked.
type losing struct {
	jetstream.JetStream
	asked int
}

func (l *losing) Stream(ctx context.Context, _ string) (jetstream.Stream, error) {
	if l.asked++; l.asked == 1 {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return restored{}, nil
}

// restored is the stream of a restore that is not whole.
type restored struct{ jetstream.Stream }

func (restored) CachedInfo() *jetstream.StreamInfo { return &jetstream.StreamInfo{} }

// A start waits an hour for a JetStream that is not there yet, and not for one answer.
func TestOpen_asksAgainWhenAnAnswerIsLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		js, began := &losing{}, time.Now()
		_, err := installation.Open(ctx, installation.Config{JS: js, Logger: logs.Discard()})
		if !errors.Is(err, installation.ErrRestoring) || js.asked != 2 {
			t.Fatalf("asked %d times: %v", js.asked, err)
		}
		if took := time.Since(began); took > time.Minute {
			t.Errorf("asked again after %v", took)
		}
	})
}
