package webhook

import (
	"devpilot.io/bitbucket/pkg/sealed"
	"devpilot.io/bitbucket/services/webhook/internal/registry"
)

// Sealed is what the service keeps sealed in NATS: secrets of webhooks.
func Sealed() []sealed.Place { return []sealed.Place{registry.Sealed()} }
