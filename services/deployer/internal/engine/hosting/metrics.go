package hosting

import (
	"errors"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// How a request for a release of another server ended; label values of the metrics.
const (
	forwardedOK          = "ok"
	forwardedAway        = "away"        // no worker of it answers, or told an address
	forwardedStranger    = "stranger"    // something else answers there
	forwardedMisdirected = "misdirected" // it does not have the release either
	forwardedBroken      = "broken"      // the answer broke off, or the visitor left
)

type metrics struct {
	requests *prometheus.CounterVec
	bytes    *prometheus.CounterVec
	forwards *prometheus.CounterVec
}

// newMetrics registers the metrics; reg may be nil.
func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "devpilot_deployer_live_requests_total", Help: "Requests to served releases, by kind of site (live, numbered, elsewhere, none) and HTTP status.",
		}, []string{"site", "status"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "devpilot_deployer_live_sent_bytes_total", Help: "Bytes of bodies sent by served releases, by content coding.",
		}, []string{"coding"}),
		forwards: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "devpilot_deployer_live_forwarded_total",
			Help: "Requests for releases of another server that were forwarded to it, by result: ok, away, stranger, misdirected, broken.",
		}, []string{"result"}),
	}
	for _, result := range []string{forwardedOK, forwardedAway, forwardedStranger, forwardedMisdirected, forwardedBroken} {
		m.forwards.WithLabelValues(result) // there from the start, at 0
	}
	if reg == nil {
		return m, nil
	}
	return m, errors.Join(reg.Register(m.requests), reg.Register(m.bytes), reg.Register(m.forwards))
}

func (m *metrics) request(site string, coding string, status int, bytes int64) {
	m.requests.WithLabelValues(site, strconv.Itoa(status)).Inc()
	if coding == "" {
		coding = "identity"
	}
	m.bytes.WithLabelValues(coding).Add(float64(bytes))
}

func (m *metrics) forwarded(result string) { m.forwards.WithLabelValues(result).Inc() }
