package deployer

import (
	"devpilot.io/bitbucket/pkg/sealed"
	"devpilot.io/bitbucket/services/deployer/internal/control/app"
)

// Sealed is what the service keeps sealed in NATS: secret variables, and links of badges, which stay as they are.
func Sealed() []sealed.Place { return []sealed.Place{app.Sealed()} }
