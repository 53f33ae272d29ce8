package auth

import (
	"devpilot.io/bitbucket/pkg/sealed"
	"devpilot.io/bitbucket/services/auth/internal/store"
)

// Sealed is what the service keeps sealed in NATS: tokens. A handshake in Redis ends after ten minutes.
func Sealed() []sealed.Place { return []sealed.Place{store.Sealed()} }
