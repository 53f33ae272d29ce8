package webhook

import (
	"devpilot.io/bitbucket/pkg/installation"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/services/webhook/internal/changes"
	"devpilot.io/bitbucket/services/webhook/internal/inbox"
	"devpilot.io/bitbucket/services/webhook/internal/natsstore"
	"devpilot.io/bitbucket/services/webhook/internal/router"
)

// access is what the service does in NATS.
func access() stream.Access {
	return stream.Access{
		Buckets: natsstore.Buckets(),
		Streams: []stream.Usage{
			{Stream: inbox.Stream, Publishes: []string{inbox.Subject}, Consumers: []string{router.Durable}, Reads: true, Purges: true},
			// Pushes of one repository are read again to be told of.
			{Stream: stream.PushesStream, Publishes: []string{stream.AllPushes}, Consumers: []string{"*"}, Reads: true},
			{Stream: stream.EventsStream, Publishes: []string{stream.EventsBy("webhook")}, Consumers: []string{changes.Durable}},
		},
	}.And(installation.Access())
}
