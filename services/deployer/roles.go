package deployer

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/services/deployer/internal/client"
	"devpilot.io/bitbucket/services/deployer/internal/client/witness"
	"devpilot.io/bitbucket/services/deployer/internal/control"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/heads"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/mirror"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/program"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
	"devpilot.io/bitbucket/services/deployer/internal/engine/hosting"
	"devpilot.io/bitbucket/services/deployer/internal/engine/release"
	"devpilot.io/bitbucket/services/deployer/internal/metrics/verdict"
	"devpilot.io/bitbucket/services/deployer/internal/record"
	"devpilot.io/bitbucket/services/deployer/internal/record/deploylog"
	"devpilot.io/bitbucket/services/deployer/internal/record/store"
	"devpilot.io/bitbucket/services/deployer/internal/worker"
)

// roles are what this process does, once the stores are open.
type roles struct {
	records *record.Records
	control *control.Control // nil without the role api
	worker  *worker.Worker   // nil without the role worker
}

// tokenLife is how long a token that was handed out is kept out of logs.
const tokenLife = 3 * time.Hour

// open makes the roles that the process has.
func (s *Service) open(ctx context.Context, st *store.Store, front *worker.Front) (*roles, error) {
	d, cfg := s.deps, s.cfg
	secrets := deploylog.NewSecrets()
	places := &client.Places{Client: d.Repo, Now: d.Now}
	repo := client.Repo{Client: d.Repo, Places: places}
	clients := client.Clients{
		Auth: client.Auth{Client: d.Auth, SiteURL: s.site.SiteURL, Places: places, Hide: func(t seal.Secret) { secrets.Hide(tokenLife, remote.Forms(t)...) }},
		Repo: repo, Webhook: client.Webhook{Client: d.Webhook}, Witness: &witness.Witness{Repositories: repo, Now: d.Now},
	}
	r := &roles{records: record.New(record.Config{
		Store: st, JS: d.JS, Keyset: d.Keyset, Repositories: repo, Recorder: clients.Webhook, Secrets: secrets, LogLimits: cfg.LogLimits,
		Logger: d.Logger, Metrics: s.stream, CopyMetrics: s.copies, Now: d.Now, Learn: places.Learn, Ended: s.metrics.Ended,
	})}
	if cfg.API {
		if err := s.openControl(r, clients); err != nil {
			return nil, err
		}
	}
	if cfg.Worker {
		if err := s.openWorker(ctx, r, clients, front); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// openControl makes the role api. It asks git for branches and counts of commits alone, over kept connections, fetches nothing, and has no directory.
func (s *Service) openControl(r *roles, clients client.Clients) error {
	d, cfg := s.deps, s.cfg
	git, err := program.New(program.Config{Site: s.gitSite, StallTime: cfg.Limits.WithDefaults().StallTime, Observe: s.metrics.Git})
	if err != nil {
		return err
	}
	lister := heads.New(git, clients.Auth)
	r.control, err = control.New(control.Config{
		Records: r.records, Clients: clients, JS: d.JS, Keyset: d.Keyset, Heads: lister, Distances: lister, Site: s.site, Live: s.liveURL,
		PublicURL: cfg.PublicURL, ClientID: cfg.ClientID, Redis: d.Redis, Interval: cfg.ReconcileInterval, Grace: cfg.ReconcileGrace,
		Doubt: cfg.Doubt, Logger: d.Logger, Registerer: d.Registerer, Metrics: s.stream, Pushes: s.metrics, TracerProvider: d.TracerProvider, Now: d.Now,
	})
	return err
}

// openWorker makes the role worker, with its mirrors.
func (s *Service) openWorker(ctx context.Context, r *roles, clients client.Clients, front *worker.Front) error {
	d, cfg := s.deps, s.cfg
	mirrors, err := mirror.Open(mirror.Config{
		Dir: cfg.CacheDir, Site: s.gitSite, Tokens: clients.Auth, Limits: cfg.Limits, Logger: d.Logger, Observe: s.metrics.Git, FreeDisk: release.FreeBytes,
		CacheBytes: cfg.CacheBytes,
	})
	if err != nil {
		return err
	}
	r.worker, err = worker.New(ctx, worker.Config{
		Records: r.records, Clients: clients, JS: d.JS, Mirrors: mirrors, SiteURL: s.site.SiteURL, Server: cfg.Server, Front: front,
		Slots: cfg.Slots, Version: cfg.Version, Lease: cfg.Lease, Timeout: cfg.DeploymentTimeout, DrainTimeout: cfg.DrainTimeout, DecisionTimeout: cfg.DecisionTimeout, Backoff: cfg.backoff(),
		Doubt: cfg.Doubt, Hooks: cfg.Hooks, Observe: s.metrics, Count: s.metrics.PushBy(verdict.Worker), Logger: d.Logger, Registerer: d.Registerer,
		Metrics: s.stream, Tracer: d.TracerProvider.Tracer("devpilot.io/bitbucket/services/deployer/internal/worker"), Now: d.Now,
	})
	return err
}

// liveURL is where a release is served, 0 being the live one; empty where none are, or where its
// name is too long for a host.
func (s *Service) liveURL(workspace, app string, number int32) string {
	if s.liveBase == nil {
		return ""
	}
	u, _ := hosting.URL(s.liveBase, app, workspace, number)
	return u
}

func (r *roles) ready(ctx context.Context) error {
	err := r.records.Ready(ctx)
	if r.control != nil {
		err = errors.Join(err, r.control.Ready(ctx))
	}
	return err
}

// run runs the roles until ctx is done. One that ends early with an error ends the service.
func (r *roles) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.records.Fleet.Run(ctx) })
	if r.control != nil {
		g.Go(func() error { return r.control.Run(ctx) })
	}
	if r.worker != nil {
		g.Go(func() error { return r.worker.Run(ctx) })
		if r.control == nil {
			g.Go(func() error { return r.records.Copies.RunApps(ctx) })
		}
	}
	return g.Wait()
}
