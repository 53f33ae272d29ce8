package deployer

import (
	"devpilot.io/bitbucket/pkg/installation"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/services/deployer/internal/control/connection"
	"devpilot.io/bitbucket/services/deployer/internal/control/router"
	"devpilot.io/bitbucket/services/deployer/internal/control/status"
	"devpilot.io/bitbucket/services/deployer/internal/record/outcome"
	"devpilot.io/bitbucket/services/deployer/internal/record/store"
	"devpilot.io/bitbucket/services/deployer/internal/record/streams"
)

// The roles of the service.
const (
	roleAPI    = "api"
	roleWorker = "worker"
)

// AccessOf is what a process does in NATS that has one of the service's roles alone. Both write lanes and deployments, and
// make sure of all that the service has there.
func AccessOf(role string) stream.Access {
	a := stream.Access{Buckets: store.Buckets()}
	outcomes := stream.Usage{Stream: streams.OutcomesStream, Publishes: []string{streams.OutcomeSubject}}
	work := stream.Usage{Stream: streams.WorkStream, Publishes: streams.Work.Config.Subjects, Reads: true}
	logs := stream.Usage{Stream: streams.LogsStream, Publishes: streams.Logs.Config.Subjects, Reads: true}
	pushes, events := stream.Usage{Stream: stream.PushesStream}, stream.Usage{Stream: stream.EventsStream}
	if role == roleWorker {
		work.Consumers = []string{"*"} // named by the server
		a.Answers = []string{streams.AllChecks}
	} else {
		a.Buckets = append(a.Buckets, status.Bucket)
		a.Asks = []string{streams.AllChecks}
		outcomes.Consumers = []string{outcome.Durable}
		logs.Consumers, logs.Purges = []string{"*"}, true // of those who follow a log
		pushes.Consumers = []string{router.Durable}
		events.Publishes, events.Consumers = []string{stream.EventsBy("deployer")}, []string{connection.Durable, status.Durable}
	}
	a.Streams = []stream.Usage{outcomes, work, logs, pushes, events}
	return a.And(installation.Access())
}
