package kv

import (
	"errors"
	"fmt"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics counts how copies are read. One value serves all copies of a process; the nil value counts
// nothing.
type Metrics struct {
	hits      *prometheus.CounterVec
	fallbacks *prometheus.CounterVec

	mu     sync.Mutex
	copies map[string]gauges // by bucket
}

type gauges struct {
	revision func() (at, lag uint64)
	bytes    func() int64
}

var (
	lagDesc   = prometheus.NewDesc("devpilot_kv_copy_lag_revisions", "How many revisions a copy is behind what is known of its bucket.", []string{"bucket"}, nil)
	bytesDesc = prometheus.NewDesc("devpilot_kv_copy_bytes", "Memory that a copy of a bucket takes.", []string{"bucket"}, nil)
)

// NewMetrics registers the metrics, or finds them when another service of the process has.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		hits: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "devpilot_kv_copy_hits_total", Help: "Reads answered by a copy in memory.",
		}, []string{"bucket"}),
		fallbacks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "devpilot_kv_copy_fallbacks_total", Help: "Reads that the leader answered instead of a copy, by reason: cold, behind, changed, full, evicted or missing.",
		}, []string{"bucket", "reason"}),
		copies: map[string]gauges{},
	}
	err := reg.Register(m)
	var already prometheus.AlreadyRegisteredError
	if errors.As(err, &already) {
		if existing, ok := already.ExistingCollector.(*Metrics); ok {
			return existing, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("kv: register metrics: %w", err)
	}
	return m, nil
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	m.hits.Describe(ch)
	m.fallbacks.Describe(ch)
	ch <- lagDesc
	ch <- bytesDesc
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	m.hits.Collect(ch)
	m.fallbacks.Collect(ch)
	m.mu.Lock()
	defer m.mu.Unlock()
	for bucket, g := range m.copies {
		_, lag := g.revision()
		ch <- prometheus.MustNewConstMetric(lagDesc, prometheus.GaugeValue, float64(lag), bucket)
		ch <- prometheus.MustNewConstMetric(bytesDesc, prometheus.GaugeValue, float64(g.bytes()), bucket)
	}
}

// watch has a copy's gauges collected until the returned function is called.
func (m *Metrics) watch(bucket string, revision func() (at, lag uint64), bytes func() int64) (leave func()) {
	if m == nil {
		return func() {}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.copies[bucket] = gauges{revision, bytes}
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.copies, bucket)
	}
}

func (m *Metrics) hit(bucket string) {
	if m != nil {
		m.hits.WithLabelValues(bucket).Inc()
	}
}

func (m *Metrics) fallback(bucket, reason string) {
	if m != nil {
		m.fallbacks.WithLabelValues(bucket, reason).Inc()
	}
}
