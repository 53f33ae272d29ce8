package hosting

import (
	"errors"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	requests *prometheus.CounterVec
	bytes    *prometheus.CounterVec
}

// newMetrics registers the metrics; reg may be nil.
func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "devpilot_deployer_live_requests_total", Help: "Requests to served releases, by kind of site (live, numbered, none) and HTTP status.",
		}, []string{"site", "status"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "devpilot_deployer_live_sent_bytes_total", Help: "Bytes of bodies sent by served releases, by content coding.",
		}, []string{"coding"}),
	}
	if reg == nil {
		return m, nil
	}
	return m, errors.Join(reg.Register(m.requests), reg.Register(m.bytes))
}

func (m *metrics) request(site string, coding string, status int, bytes int64) {
	m.requests.WithLabelValues(site, strconv.Itoa(status)).Inc()
	if coding == "" {
		coding = "identity"
	}
	m.bytes.WithLabelValues(coding).Add(float64(bytes))
}
