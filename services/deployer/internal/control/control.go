// Package control is the role api: it serves devpilot.deployer.v1, routes push events to lanes,
// reconciles, and looks after what is due. It keeps nothing on disk.
//
// Depends on its own packages, internal/record and internal/client; never on internal/worker.
package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/services/deployer/internal/client"
	"devpilot.io/bitbucket/services/deployer/internal/control/app"
	"devpilot.io/bitbucket/services/deployer/internal/control/connection"
	"devpilot.io/bitbucket/services/deployer/internal/control/janitor"
	"devpilot.io/bitbucket/services/deployer/internal/control/reconcile"
	"devpilot.io/bitbucket/services/deployer/internal/control/router"
	"devpilot.io/bitbucket/services/deployer/internal/control/schedule"
	"devpilot.io/bitbucket/services/deployer/internal/control/server"
	"devpilot.io/bitbucket/services/deployer/internal/control/status"
	"devpilot.io/bitbucket/services/deployer/internal/metrics"
	"devpilot.io/bitbucket/services/deployer/internal/metrics/verdict"
	"devpilot.io/bitbucket/services/deployer/internal/record"
	"devpilot.io/bitbucket/services/deployer/internal/record/dryrun"
	"devpilot.io/bitbucket/services/deployer/internal/record/outcome"
	"devpilot.io/bitbucket/services/deployer/internal/record/reminder"
	"devpilot.io/bitbucket/services/deployer/internal/record/store"
)

// Config is what Control needs.
type Config struct {
	Records *record.Records
	Clients client.Clients
	JS      jetstream.JetStream
	Keyset  *seal.Keyset
	Heads   reconcile.Heads
	// Distances counts how far branches are behind; nil: nobody does.
	Distances reconcile.Distances
	Site      bitbucket.Site
	// Live says where releases are served; nil where they are not.
	Live func(workspace, app string, number int32) string
	// PublicURL is where people reach the console; empty: no commit statuses are sent.
	PublicURL string
	// ClientID is the OAuth consumer's, whose budget of calls Redis shares; no budget when Redis is nil.
	ClientID string
	Redis    redis.UniversalClient
	// Interval, Grace and Doubt are reconcile.Config's.
	Interval, Grace, Doubt time.Duration

	Logger     *slog.Logger
	Registerer prometheus.Registerer
	Metrics    *stream.Metrics
	Pushes     *metrics.Metrics // may be nil: then pushes are not counted
	// TracerProvider records decisions and statuses; nil: nothing does.
	TracerProvider trace.TracerProvider
	Now            func() time.Time
}

// Control is the role api of one process.
type Control struct {
	cfg         Config
	schedule    *schedule.List
	connections *connection.Connections
	apps        *app.Service
	statuses    *status.Sender // nil where no public URL is known
	reconciler  *reconcile.Reconciler
	router      *router.Router
	uses        *server.Uses
}

// New wires the role's parts, in the order in which they depend on each other.
func New(cfg Config) (*Control, error) {
	r, clients, log := cfg.Records, cfg.Clients, cfg.Logger
	c := &Control{cfg: cfg, schedule: schedule.New(r.Store.Due, log, cfg.Now)}
	c.connections = connection.New(connection.Config{
		Bucket: r.Store.Connections, Copy: r.Copies.Connections, Integrations: clients.Auth, Repositories: clients.Repo, Due: r.Reminders, Dispatcher: r.Dispatcher, Logger: log, Now: cfg.Now,
	})
	var err error
	if c.statuses, err = c.newStatuses(); err != nil {
		return nil, err
	}
	c.apps = app.New(app.Config{
		Records: r.Apps, Store: r.Store, Copies: r.Copies, Dispatcher: r.Dispatcher, Reminders: r.Reminders, Repositories: clients.Repo, Webhooks: &client.SharedWebhooks{Webhook: clients.Webhook}, Connections: c.connections,
		Servers: r.Fleet, Workers: dryrun.Client{JS: cfg.JS}, Keyset: cfg.Keyset, Live: cfg.Live, Statuses: c.noStatuses,
		Deliveries: clients.Webhook, Told: c.told, FindsWithin: c.findsWithin, PollsWithin: c.pollsWithin, Logger: log, Now: cfg.Now,
	})
	c.reconciler = reconcile.New(reconcile.Config{
		Repositories: r.Store.Repositories, States: r.Store.Reconcile, Copies: r.Copies, Apps: r.Apps, Connections: c.connections, Heads: cfg.Heads, Distances: cfg.Distances, Witness: clients.Witness, Webhooks: clients.Webhook, Servers: r.Fleet,
		Outcomes: outcome.Stored{Outbox: r.Outcomes}, Dispatcher: r.Dispatcher, SiteURL: cfg.Site.SiteURL, Logger: log, Now: cfg.Now, Interval: cfg.Interval, Grace: cfg.Grace, Doubt: cfg.Doubt,
		Learn: r.Apps.Learn, Found: cfg.count(verdict.Poll),
	})
	if err := c.register(); err != nil {
		return nil, fmt.Errorf("control: register metrics: %w", err)
	}
	c.router = &router.Router{
		Apps: r.Apps, Connections: c.connections, Poller: c.reconciler, Outcomes: r.Outcomes, Servers: r.Fleet, Dispatcher: r.Dispatcher, SiteURL: cfg.Site.SiteURL,
		Logger: log, Metrics: cfg.Metrics, Now: cfg.Now, Heads: cfg.Heads, Deployments: c.apps, Count: cfg.count(verdict.Delivery), Tracer: cfg.tracer(),
	}
	lanes := &janitor.Janitor{
		Names:      stream.InstallationOf(cfg.JS),
		Dispatcher: r.Dispatcher, Work: r.Store.Work, Logs: r.Store.Logs, Deployments: r.Store.Deployments, Apps: c.apps, Bitbucket: c.reconciler, Outcomes: r.Outcomes, Servers: r.Fleet, Logger: log, Now: cfg.Now,
	}
	c.schedule.Handle(reminder.Lane, lanes.Handle)
	c.schedule.Handle(reminder.Watches, c.apps.HandOver)
	c.schedule.Handle(reminder.Reach, c.connections.Resume(c.apps, c.reconciler))
	c.uses = &server.Uses{Apps: c.apps, Servers: r.Fleet, Deliveries: clients.Webhook, Logs: r.Logs, Deployments: r.Store.Deployments, Heads: cfg.Heads, Statuses: proofs{c}}
	return c, nil
}

// findsWithin is the reconciler's, which is made after the apps.
func (c *Control) findsWithin(workspace, repository string) time.Duration {
	return c.reconciler.FindsWithin(workspace, repository)
}

// pollsWithin is the reconciler's too.
func (c *Control) pollsWithin(workspace, repository string) time.Duration {
	return c.reconciler.PollsWithin(workspace, repository)
}

// Uses are the use cases that the RPCs call.
func (c *Control) Uses() *server.Uses { return c.uses }

// Ready is nil once what is served from memory is known.
func (c *Control) Ready(ctx context.Context) error {
	return errors.Join(c.schedule.Ready(ctx), c.reconciler.Ready(ctx))
}

// Run runs all parts until ctx is done. A part that ends early with an error ends them all.
func (c *Control) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	part := func(name string, fn func(context.Context) error) {
		g.Go(func() error {
			if err := fn(ctx); err != nil && ctx.Err() == nil {
				return fmt.Errorf("control: %s: %w", name, err)
			}
			return nil
		})
	}
	js := c.cfg.JS
	part("copies", c.cfg.Records.Copies.Run)
	part("schedule", c.schedule.Run)
	part("router", func(ctx context.Context) error {
		return c.router.Run(ctx, js, c.cfg.Records.Store.Position(router.Durable))
	})
	part("outcomes", c.cfg.Records.Outcomes.Run)
	part("connections", func(ctx context.Context) error { return c.connections.Run(ctx, js, c.cfg.Metrics) })
	part("reconciler", c.reconciler.Run)
	part("sweep", c.apps.Sweep)
	if c.statuses != nil {
		part("commit statuses", func(ctx context.Context) error { return c.statuses.Run(ctx, js) })
	}
	part("app changes", func(ctx context.Context) error { return c.relay(ctx, store.AppsBucket, "app") })
	part("deployment changes", func(ctx context.Context) error { return c.relay(ctx, store.DeploymentsBucket, "deployment") })
	part("branch changes", func(ctx context.Context) error { return c.relayValues(ctx, store.LanesBucket, c.describeLane(ctx)) })
	part("repository changes", func(ctx context.Context) error {
		return c.relayValues(ctx, store.RepositoriesBucket, describeRepository)
	})
	return g.Wait()
}
