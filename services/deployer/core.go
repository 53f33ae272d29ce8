package deployer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/services/deployer/internal/client"
	"devpilot.io/bitbucket/services/deployer/internal/client/witness"
	"devpilot.io/bitbucket/services/deployer/internal/control/app"
	"devpilot.io/bitbucket/services/deployer/internal/control/connection"
	"devpilot.io/bitbucket/services/deployer/internal/control/janitor"
	"devpilot.io/bitbucket/services/deployer/internal/control/outcome"
	"devpilot.io/bitbucket/services/deployer/internal/control/reconcile"
	"devpilot.io/bitbucket/services/deployer/internal/control/router"
	"devpilot.io/bitbucket/services/deployer/internal/control/schedule"
	"devpilot.io/bitbucket/services/deployer/internal/control/server"
	"devpilot.io/bitbucket/services/deployer/internal/control/status"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/mirror"
	"devpilot.io/bitbucket/services/deployer/internal/engine/release"
	"devpilot.io/bitbucket/services/deployer/internal/engine/sandbox"
	"devpilot.io/bitbucket/services/deployer/internal/record/deploylog"
	"devpilot.io/bitbucket/services/deployer/internal/record/fleet"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
	"devpilot.io/bitbucket/services/deployer/internal/record/policy"
	"devpilot.io/bitbucket/services/deployer/internal/record/store"
	"devpilot.io/bitbucket/services/deployer/internal/worker/pipeline"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

// core is what exists once the stores are open.
type core struct {
	s        *Service
	store    *store.Store
	due      *schedule.List
	fleet    *fleet.Registry
	apps     *app.Service
	links    *connection.Connections
	keeper   *lane.Keeper
	logs     *deploylog.Sink
	uses     *server.Uses
	router   *router.Router
	recon    *reconcile.Reconciler
	outcomes *outcome.Outbox

	workspaces *kv.Mirror[storev1.WorkspaceIndex, *storev1.WorkspaceIndex] // that have apps

	statuses *status.Sender // nil where no public URL is known

	releases *release.Store // workers only
	hooks    sandbox.Runner // workers only; nil where they run none
	witness  *witness.Witness
	gate     *policy.Gate
	worker   *pipeline.Worker // workers only
	workerID string
}

// tokenLife is how long a token that was handed out is kept out of logs.
const tokenLife = 3 * time.Hour

// assemble wires the parts of both roles, in the order in which they depend on each other.
func (s *Service) assemble(ctx context.Context, st *store.Store) (*core, error) {
	d, log := s.deps, s.deps.Logger
	c := &core{s: s, store: st}
	secrets := deploylog.NewSecrets()
	auth := client.Auth{Client: d.Auth, SiteURL: s.site.SiteURL, Hide: func(t seal.Secret) { secrets.Hide(tokenLife, mirror.Forms(t)...) }}
	repo := client.Repo{Client: d.Repo}
	hooks := client.Webhook{Client: d.Webhook}

	c.witness = &witness.Witness{Repositories: repo, Now: d.Now}
	c.due = schedule.New(st.Due, log, d.Now)
	alarm := janitor.Alarm{List: c.due, Now: d.Now}
	c.outcomes = &outcome.Outbox{JS: d.JS, Recorder: hooks, Logger: log, Metrics: s.stream, Now: d.Now}
	c.keeper = &lane.Keeper{Lanes: st.Lanes, Records: st.Deployments, Alarm: alarm, Waker: waker{stream.Publisher{JS: d.JS}}, Seen: st.Seen, Teller: c.outcomes}
	c.fleet = fleet.New(st.Servers, st.Workers, log, d.Now)
	c.links = connection.New(connection.Config{
		Bucket: st.Connections, Integrations: auth, Repositories: repo, Due: c.due, Keeper: c.keeper, Logger: log, Now: d.Now,
	})
	mirrors, err := mirror.Open(mirror.Config{
		Dir: s.cfg.CacheDir, Site: s.gitSite, Tokens: auth, Limits: s.cfg.Limits, Logger: log, Observe: s.metrics.Git, FreeDisk: release.FreeBytes,
		CacheBytes: s.cfg.CacheBytes,
	})
	if err != nil {
		return nil, fmt.Errorf("deployer: %w", err)
	}
	names := &repositoryNames{}
	decider := &policy.Gate{Git: files{mirrors}, Names: names, Logger: log}
	c.gate = decider
	c.apps = app.New(app.Config{
		Store: st, Keeper: c.keeper, Due: c.due, Repositories: repo, Webhooks: hooks, Connections: c.links, Servers: c.fleet, Gate: decider,
		Keyset: d.Keyset, Live: s.liveURL, Statuses: c.noStatuses, Logger: log, Now: d.Now,
	})
	names.Service = c.apps
	c.workspaces = kv.NewMirror(st.Workspaces)
	if err := c.openStatuses(auth); err != nil {
		return nil, fmt.Errorf("deployer: %w", err)
	}
	c.logs = &deploylog.Sink{JS: d.JS, Logs: st.Logs, Secrets: secrets, Limits: s.cfg.LogLimits, Logger: log, Now: d.Now}
	c.recon = reconcile.New(reconcile.Config{
		Repositories: st.Repositories, States: st.Reconcile, Apps: c.apps, Connections: c.links, Heads: mirrors, Witness: c.witness, Gate: decider, Outcomes: c.outcomes, Keeper: c.keeper,
		SiteURL: s.site.SiteURL, Logger: log, Now: d.Now, Interval: s.cfg.ReconcileInterval, Grace: s.cfg.ReconcileGrace, Doubt: s.cfg.Doubt,
	})
	c.router = &router.Router{
		Apps: deliveredNames{c.apps}, Connections: c.links, Asker: c.recon, Outcomes: c.outcomes, Gate: decider, Keeper: c.keeper, SiteURL: s.site.SiteURL,
		Logger: log, Metrics: s.stream, Now: d.Now, Heads: mirrors, Deployments: c.apps,
	}
	tender := &janitor.Tender{
		Keeper: c.keeper, Work: st.Work, Logs: st.Logs, Deployments: st.Deployments, Apps: c.apps, Bitbucket: c.recon, Outcomes: c.outcomes, Logger: log, Now: d.Now,
	}
	c.due.Handle(janitor.Kind, tender.Look)
	c.due.Handle(app.WatchesKind, c.apps.HandOver)
	c.due.Handle(connection.Kind, c.links.Resume(c.apps, c.recon))
	c.uses = &server.Uses{Apps: c.apps, Servers: c.fleet, Deliveries: hooks, Logs: c.logs, Deployments: st.Deployments}
	if s.cfg.Worker {
		if err := c.assembleWorker(ctx, mirrors, alarm); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// assembleWorker opens the data directory, tied to the server's record.
func (c *core) assembleWorker(ctx context.Context, mirrors *mirror.Mirrors, alarm janitor.Alarm) error {
	s := c.s
	releases, err := release.Open(ctx, s.cfg.DataDir, s.cfg.Server)
	if err != nil {
		return fmt.Errorf("deployer: %w", err)
	}
	if err := c.join(ctx, releases.ID()); err != nil {
		return errors.Join(fmt.Errorf("deployer: %w", err), releases.Close())
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	c.releases = releases
	runner, noHooks, err := c.hookRunner(ctx)
	if err != nil {
		return err
	}
	c.hooks = runner
	c.workerID = fmt.Sprintf("%s-%s", strings.ToLower(filepath.Base(host)), randomSuffix())
	c.worker = pipeline.New(pipeline.Config{
		Server: s.cfg.Server, Worker: c.workerID, SiteURL: s.site.SiteURL, Slots: s.cfg.Slots, Keeper: c.keeper, Apps: c.apps, Source: source{mirrors},
		Releases: releases, Logs: logOpener{c.logs}, Records: c.store.Deployments, Lanes: c.store.Lanes, Alarm: alarm, Observe: s.metrics,
		Logger: s.deps.Logger, Now: s.deps.Now, Backoff: s.cfg.backoff(), Gate: c.gate, Witness: c.witness, Doubt: s.cfg.Doubt, Hooks: runner, NoHooks: noHooks, AppDisk: s.cfg.Hooks.AppDisk, Timeout: s.cfg.DeploymentTimeout,
	})
	return nil
}

// join ties the data directory to the server, waiting out trouble with the store.
func (c *core) join(ctx context.Context, directory string) error {
	for {
		err := c.fleet.Join(ctx, c.s.cfg.Server, directory)
		var mismatch *fleet.MismatchError
		if err == nil || errors.As(err, &mismatch) || !errors.Is(err, kv.ErrUnavailable) {
			return err
		}
		t := time.NewTimer(time.Second)
		select {
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-t.C:
		}
	}
}

func (c *core) close() {
	if c.releases != nil {
		_ = c.releases.Close()
	}
}

func (c *core) ready(ctx context.Context) error {
	err := errors.Join(c.store.Intact(), c.fleet.Ready(ctx))
	if c.s.cfg.API {
		err = errors.Join(err, c.due.Ready(ctx), c.recon.Ready(ctx))
	}
	return err
}

// run runs all parts until ctx is done. A part that ends early with an error ends the service.
func (c *core) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	part := func(name string, fn func(context.Context) error) {
		wg.Go(func() {
			if err := fn(ctx); err != nil && ctx.Err() == nil {
				err = fmt.Errorf("deployer: %s: %w", name, err)
				mu.Lock()
				errs = append(errs, err)
				mu.Unlock()
				cancel(err)
			}
		})
	}
	js, log := c.s.deps.JS, c.s.deps.Logger
	part("fleet", c.fleet.Run)
	if c.s.cfg.API {
		part("due list", c.due.Run)
		part("router", func(ctx context.Context) error { return c.router.Run(ctx, js) })
		part("outcomes", c.outcomes.Run)
		part("connections", func(ctx context.Context) error { return c.links.Run(ctx, js, c.s.stream) })
		part("reconciler", c.recon.Run)
		part("sweep", c.apps.Sweep)
		if c.statuses != nil {
			part("commit statuses", c.sendStatuses)
		}
		part("app changes", func(ctx context.Context) error { return c.relay(ctx, store.AppsBucket, "app") })
		part("deployment changes", func(ctx context.Context) error { return c.relay(ctx, store.DeploymentsBucket, "deployment") })
	}
	if c.worker != nil {
		part("workspaces", c.workspaces.Run)
		if s := c.s; s.deps.Live != nil && s.liveBase != nil {
			part("live releases", c.serveLive)
		}
		part("worker", c.work)
		part("spares", c.worker.Run)
		part("heartbeat", func(ctx context.Context) error {
			return c.fleet.Beat(ctx, fleet.Worker{
				Server: c.s.cfg.Server, ID: c.workerID, Host: c.workerID, Version: c.s.cfg.Version, Slots: c.s.cfg.Slots, Busy: c.worker.Busy,
				HookRunner: describe(c.hooks),
			})
		})
	}
	log.InfoContext(ctx, "deployer runs", slog.Bool("api", c.s.cfg.API), slog.Bool("worker", c.worker != nil), slog.String(logs.KeyServer, c.s.cfg.Server))
	wg.Wait()
	return errors.Join(errs...)
}

// work takes wake-ups of the server, one per free slot: what one worker held back another could
// run (DESIGN.md#jetstream).
func (c *core) work(ctx context.Context) error {
	filter, err := stream.WorkFilter(c.s.cfg.Server)
	if err != nil {
		return err
	}
	drain := c.s.cfg.DrainTimeout
	if drain == 0 {
		drain = 20 * time.Second
	}
	return stream.Consume(ctx, stream.ConsumeConfig{
		JS: c.s.deps.JS, Stream: stream.WorkStream, Durable: "server-" + c.s.cfg.Server, Filters: []string{filter}, Slots: c.s.cfg.Slots,
		AckWait: c.s.cfg.AckWait, MaxAttempts: 100, DrainTimeout: drain, DoubleAck: true, Logger: c.s.deps.Logger, Metrics: c.s.stream,
		Handle: func(ctx context.Context, m stream.Msg) error {
			_, workspace, name, err := stream.ParseWorkSubject(m.Subject)
			if err != nil {
				return stream.Park(err.Error())
			}
			return c.worker.Handle(ctx, lane.Key{Workspace: workspace, App: name}, m.Sequence)
		},
	})
}

// relay publishes the changes of a bucket whose keys are <workspace>.<app>[.<number>].
func (c *core) relay(ctx context.Context, bucket, kind string) error {
	return kv.RelayChanges(ctx, c.s.deps.JS, kv.RelayConfig{
		Bucket: bucket, Service: "deployer", Replicas: c.s.cfg.Replicas, Logger: c.s.deps.Logger, Metrics: c.s.stream,
		Describe: func(key string, _ bool) (workspace, k, id string, ok bool) {
			workspace, rest, found := strings.Cut(key, ".")
			return workspace, kind, strings.ReplaceAll(rest, ".", "/"), found
		},
	})
}

// waker publishes wake-ups.
type waker struct{ publisher stream.Publisher }

func (w waker) Wake(ctx context.Context, serverName string, k lane.Key) error {
	subject, err := stream.WorkSubject(serverName, k.Workspace, k.App)
	if err != nil {
		return err
	}
	if _, err = w.publisher.Publish(ctx, &nats.Msg{Subject: subject}); err != nil {
		return fmt.Errorf("%w: %w", kv.ErrUnavailable, err)
	}
	return nil
}

func describe(r sandbox.Runner) string {
	if r == nil {
		return ""
	}
	return r.Describe()
}

// repositoryNames is filled in once the apps exist: they need the gate, which needs them.
type repositoryNames struct{ *app.Service }

// deliveredNames are the apps as the router sees them: names of repositories come out of deliveries.
type deliveredNames struct{ *app.Service }

func (d deliveredNames) Named(ctx context.Context, workspace, repository, fullName string) error {
	return d.NameGiven(ctx, workspace, repository, fullName)
}

// files reads single files of commits.
type files struct{ *mirror.Mirrors }

func (f files) File(ctx context.Context, src mirror.Source, name string, most int64) ([]byte, error) {
	t, err := f.Fetch(ctx, src)
	if err != nil {
		return nil, err
	}
	defer t.Close()
	return t.ReadFile(ctx, name, most)
}

// source and logOpener give results the interfaces that pipeline declares.
type source struct{ *mirror.Mirrors }

func (s source) Fetch(ctx context.Context, src mirror.Source) (pipeline.Tree, error) {
	t, err := s.Mirrors.Fetch(ctx, src)
	if err != nil {
		return nil, err
	}
	return t, nil
}

type logOpener struct{ sink *deploylog.Sink }

func (l logOpener) Open(ctx context.Context, k lane.Key, number int32, generation, epoch int64) (pipeline.Log, error) {
	w, err := l.sink.Open(ctx, deploylog.Name{Workspace: k.Workspace, App: k.App, Number: number, Generation: generation, Epoch: epoch})
	if err != nil {
		return nil, err
	}
	return w, nil
}

var _ deployerv1.DeployerServiceServer = (*server.Server)(nil)
