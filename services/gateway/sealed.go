package gateway

import (
	"devpilot.io/bitbucket/pkg/sealed"
	"devpilot.io/bitbucket/services/gateway/internal/notify"
	"devpilot.io/bitbucket/services/gateway/internal/session"
	"devpilot.io/bitbucket/services/gateway/internal/tenant"
)

// Sealed is what the service keeps sealed in NATS: URLs and secrets of notification targets, what identity providers gave it
// for a session, and for a day what a request's answer told. Cookies of sessions are in browsers: one that an earlier key sealed
// is replaced when it is next used.
func Sealed() []sealed.Place {
	return []sealed.Place{notify.Sealed(), tenant.Sealed(session.Bound), session.Sealed()}
}
