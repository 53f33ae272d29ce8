package notify

import (
	"github.com/prometheus/client_golang/prometheus"

	gatewayv1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/v1"
)

// What came of a message, for metrics.
const (
	resultSent    = "sent"
	resultFailed  = "failed"  // an attempt; it is tried again for a day
	resultDropped = "dropped" // only counted in a message: too many waited for the target
)

func newCounter(reg prometheus.Registerer) (*prometheus.CounterVec, error) {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "devpilot_notifications_total",
		Help: "Attempts to send a notification by the target's kind: sent, failed (tried again); and notifications that were dropped because too many waited.",
	}, []string{"kind", "result"})
	for kind := range gatewayv1.NotificationTarget_Kind_name {
		if k := gatewayv1.NotificationTarget_Kind(kind); k != gatewayv1.NotificationTarget_KIND_UNSPECIFIED {
			for _, result := range []string{resultSent, resultFailed, resultDropped} {
				c.WithLabelValues(k.String(), result) // there from the start, at 0
			}
		}
	}
	if reg == nil {
		return c, nil
	}
	return c, reg.Register(c)
}

// count counts what came of a message.
func (s *Store) count(kind gatewayv1.NotificationTarget_Kind, result string) {
	s.counted.WithLabelValues(kind.String(), result).Inc()
}
