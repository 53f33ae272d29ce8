package stream_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"
)

// value is that of the series of stream Q and consumer c.
func value(t *testing.T, reg prometheus.Gatherer, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	return -1
}

func TestConsume_tellsHowFarTheConsumerIsBehind(t *testing.T) {
	js := testkit.JS(t)
	queue(t, js, 4)
	reg := prometheus.NewPedanticRegistry()
	metrics, err := stream.NewMetrics(reg)
	if err != nil {
		t.Fatal(err)
	}
	release := make(chan struct{})
	consume(t, stream.ConsumeConfig{JS: js, Metrics: metrics, LagInterval: 20 * time.Millisecond, Handle: func(_ context.Context, m stream.Msg) error {
		<-release
		if string(m.Data) == "2" {
			return stream.Park("bad")
		}
		return nil
	}})
	tells := func(pending, unacknowledged, dead float64, behind bool) func() error {
		return func() error {
			p, u, d := value(t, reg, "devpilot_stream_consumer_pending_messages"), value(t, reg, "devpilot_stream_consumer_unacknowledged_messages"), value(t, reg, "devpilot_stream_dead_letters")
			lag := value(t, reg, "devpilot_stream_consumer_lag_seconds")
			if p != pending || u != unacknowledged || d != dead || lag < 0 || (lag > 0) != behind {
				return fmt.Errorf("pending %v, unacknowledged %v, dead letters %v, lag %v s", p, u, d, lag)
			}
			return nil
		}
	}
	testkit.Eventually(t, wait, tells(3, 1, 0, true))
	first := value(t, reg, "devpilot_stream_consumer_lag_seconds")
	testkit.Eventually(t, wait, func() error { // it grows while nothing is acknowledged
		if now := value(t, reg, "devpilot_stream_consumer_lag_seconds"); now <= first {
			return fmt.Errorf("the lag is %v s, and was %v s", now, first)
		}
		return nil
	})
	close(release)
	testkit.Eventually(t, wait, tells(0, 0, 1, false))
}
