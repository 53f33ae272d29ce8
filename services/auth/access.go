package auth

import (
	"devpilot.io/bitbucket/pkg/installation"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/services/auth/internal/store"
)

// access is what the service does in NATS.
func access() stream.Access {
	return stream.Access{
		Buckets: []string{store.BucketIntegrations, store.BucketNarrowings, store.BucketSchedules, "auth-inventory"},
		Streams: []stream.Usage{{Stream: stream.EventsStream, Publishes: []string{stream.EventsBy("auth")}}},
	}.And(installation.Access())
}
