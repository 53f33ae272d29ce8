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
	backlog  backlogGauges
}

// backlogGauges tell how far each consumer is behind; see watchLag.
type backlogGauges struct{ pending, unacknowledged, age, dead *prometheus.GaugeVec }

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
	m.backlog = backlogGauges{
		pending: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "devpilot_stream_consumer_pending_messages",
			Help: "Messages that wait for a consumer and that no replica has taken yet; all replicas tell the same.",
		}, []string{"stream", "consumer"}),
		unacknowledged: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "devpilot_stream_consumer_unacknowledged_messages",
			Help: "Messages that replicas have taken and not answered yet; all replicas tell the same.",
		}, []string{"stream", "consumer"}),
		age: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "devpilot_stream_consumer_lag_seconds",
			Help: "Age of the oldest message that a consumer has not acknowledged, 0 where there is none; all replicas tell the same.",
		}, []string{"stream", "consumer"}),
		dead: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "devpilot_stream_dead_letters",
			Help: "Messages that a consumer gave up on and that are still kept; all replicas tell the same.",
		}, []string{"stream", "consumer"}),
	}
	var err error
	for _, g := range []**prometheus.GaugeVec{&m.backlog.pending, &m.backlog.unacknowledged, &m.backlog.age, &m.backlog.dead} {
		if *g, err = register(reg, *g); err != nil {
			return nil, err
		}
	}
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

func (m *Metrics) lag(stream, consumer string, b backlog) {
	m.backlog.pending.WithLabelValues(stream, consumer).Set(float64(b.pending))
	m.backlog.unacknowledged.WithLabelValues(stream, consumer).Set(float64(b.unacknowledged))
	m.backlog.age.WithLabelValues(stream, consumer).Set(b.age.Seconds())
	m.backlog.dead.WithLabelValues(stream, consumer).Set(float64(b.dead))
}

// known makes the series of a consumer, so that what never happened to it reads 0 and is not absent.
func (m *Metrics) known(stream, consumer string) {
	if m == nil {
		return
	}
	for _, outcome := range []string{outcomeDone, outcomeRetried, outcomeParked, outcomeLeft, outcomeInterrupted} {
		m.messages.WithLabelValues(stream, consumer, outcome)
	}
	m.duration.WithLabelValues(stream, consumer)
}
