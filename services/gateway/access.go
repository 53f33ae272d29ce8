package gateway

import (
	"slices"

	"devpilot.io/bitbucket/pkg/installation"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/services/gateway/internal/activity"
	"devpilot.io/bitbucket/services/gateway/internal/notify"
	"devpilot.io/bitbucket/services/gateway/internal/session"
	"devpilot.io/bitbucket/services/gateway/internal/tenant"
)

// access is what the service does in NATS.
func access() stream.Access {
	return stream.Access{
		Buckets: slices.Concat(tenant.Buckets(), activity.Buckets(), notify.Buckets(), session.Buckets()),
		Streams: []stream.Usage{
			// It tells of its workspaces, and each replica follows the events of all by a consumer of its own.
			{Stream: stream.EventsStream, Publishes: []string{stream.EventsBy("gateway")}, Consumers: []string{"*"}, Reads: true},
		},
	}.And(installation.Access())
}
