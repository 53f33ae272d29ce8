package stream

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics counts what consumers do. One value serves all consumers of a process; the nil value
// counts nothing.
type Metrics struct {
	messages *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

// NewMetrics registers the metrics, or finds them when another consumer of the process has.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		messages: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "devpilot_stream_messages_total",
			Help: "Messages by what became of them: done, retried, parked, left or interrupted.",
		}, []string{"stream", "consumer", "outcome"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "devpilot_stream_handle_seconds",
			Help:    "Duration of handler calls.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 9),
		}, []string{"stream", "consumer"}),
	}
	var err error
	if m.messages, err = register(reg, m.messages); err != nil {
		return nil, err
	}
	if m.duration, err = register(reg, m.duration); err != nil {
		return nil, err
	}
	return m, nil
}

func register[C prometheus.Collector](reg prometheus.Registerer, c C) (C, error) {
	err := reg.Register(c)
	var already prometheus.AlreadyRegisteredError
	if errors.As(err, &already) {
		if existing, ok := already.ExistingCollector.(C); ok {
			return existing, nil
		}
	}
	if err != nil {
		return c, fmt.Errorf("stream: register metrics: %w", err)
	}
	return c, nil
}

func (m *Metrics) count(stream, consumer, outcome string) {
	if m != nil {
		m.messages.WithLabelValues(stream, consumer, outcome).Inc()
	}
}

func (m *Metrics) observe(stream, consumer string, start time.Time) {
	if m != nil {
		m.duration.WithLabelValues(stream, consumer).Observe(time.Since(start).Seconds())
	}
}
