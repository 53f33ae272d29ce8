package webhook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace/noop"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/bitbucket/hook"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/redisx"
	"devpilot.io/bitbucket/pkg/seal/pagetoken"
	"devpilot.io/bitbucket/pkg/stream"
	webhookv1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/v1"
	"devpilot.io/bitbucket/services/webhook/internal/authclient"
	"devpilot.io/bitbucket/services/webhook/internal/cache"
	"devpilot.io/bitbucket/services/webhook/internal/changes"
	"devpilot.io/bitbucket/services/webhook/internal/delivery"
	"devpilot.io/bitbucket/services/webhook/internal/inbox"
	"devpilot.io/bitbucket/services/webhook/internal/ingress"
	"devpilot.io/bitbucket/services/webhook/internal/natsstore"
	"devpilot.io/bitbucket/services/webhook/internal/refusals"
	"devpilot.io/bitbucket/services/webhook/internal/registry"
	"devpilot.io/bitbucket/services/webhook/internal/router"
	"devpilot.io/bitbucket/services/webhook/internal/server"
)

// Service is the webhook service. New, Run, Ready, Register and Handler are all there is to it.
type Service struct {
	log      *slog.Logger
	store    *natsstore.Store
	cache    *cache.Webhooks
	registry *registry.Registry
	writer   *inbox.Writer
	ring     *refusals.Ring
	router   *router.Router
	handler  *ingress.Handler
	server   *server.Server
	changes  changes.Config
	examined examined
}

// New builds the service; it does no I/O.
func New(cfg Config, d Deps) (*Service, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.TracerProvider == nil {
		d.TracerProvider = noop.NewTracerProvider()
	}
	site, err := bitbucket.NewSite(cfg.Site.SiteURL, cfg.Site.APIURL)
	if err != nil {
		return nil, fmt.Errorf("webhook: %w", err)
	}
	address, err := registry.NewAddress(cfg.PublicURL, site)
	if err != nil {
		return nil, fmt.Errorf("webhook: %w", err)
	}
	tokens, err := pagetoken.New(d.Keyset)
	if err != nil {
		return nil, fmt.Errorf("webhook: %w", err)
	}
	codec, err := inbox.NewCodec()
	if err != nil {
		return nil, fmt.Errorf("webhook: %w", err)
	}
	var metrics *stream.Metrics
	var copies *kv.Metrics
	if d.Registerer != nil {
		if metrics, err = stream.NewMetrics(d.Registerer); err != nil {
			return nil, fmt.Errorf("webhook: %w", err)
		}
		if copies, err = kv.NewMetrics(d.Registerer); err != nil {
			return nil, fmt.Errorf("webhook: %w", err)
		}
	}
	s := &Service{
		log: d.Logger, store: natsstore.New(d.JS, d.Logger, copies),
		changes: changes.Config{JS: d.JS, Logger: d.Logger, Metrics: metrics},

		examined: examined{publicURL: cfg.PublicURL, siteURL: site.SiteURL, keyset: d.Keyset},
	}
	s.cache = cache.New(s.store)
	s.changes.Position = s.store.Position
	auth := authclient.New(d.Auth, site, d.Logger, d.Now)
	vault := registry.NewVault(d.Keyset)
	s.registry = registry.New(registry.Config{
		Store: s.store, Cache: s.cache, Vault: vault, View: registry.View{Site: site, Address: address},
		Account: accounts(cfg, site, auth, d), Connections: auth,
		Logger: d.Logger, Registerer: d.Registerer, Now: d.Now, Timing: cfg.Timing,
	})
	s.writer = inbox.NewWriter(inbox.Config{Publish: stream.Publisher{JS: d.JS}.Publish, Logger: d.Logger, Registerer: d.Registerer})
	s.ring = refusals.New(refusals.Config{Store: s.store, Refused: s.registry.Refused, Logger: d.Logger, Registerer: d.Registerer, Now: d.Now})
	s.router = router.New(router.Config{
		JS: d.JS, Store: s.store, Registry: s.registry, Codec: codec,
		Logger: d.Logger, Metrics: metrics, Registerer: d.Registerer, Now: d.Now,
		Tracer: d.TracerProvider.Tracer("devpilot.io/bitbucket/services/webhook/internal/router"),
	})
	installation, err := hook.InstallationSecret(d.Keyset)
	if err != nil {
		return nil, fmt.Errorf("webhook: %w", err)
	}
	s.handler = ingress.New(ingress.Config{
		Installation: installation, Cache: s.cache, Leader: s.store, Secrets: vault, Inbox: s.writer, Codec: codec, Refusals: s.ring,
		Logger: d.Logger, Registerer: d.Registerer, TracerProvider: d.TracerProvider, Now: d.Now, Hold: cfg.Hold,
	})
	s.server = server.New(server.Config{
		Registry: s.registry, Tokens: tokens, Logger: d.Logger, Now: d.Now,
		Log: delivery.New(delivery.Config{JS: d.JS, Store: s.store, Codec: codec, Tokens: tokens, Missed: s.registry.Missed, Doubted: s.registry.Doubted, Now: d.Now}),
	})
	return s, nil
}

// accounts makes the way to Bitbucket: one client for all, and for each piece of work the tokens of
// its workspace.
func accounts(cfg Config, site bitbucket.Site, auth *authclient.Client, d Deps) registry.Account {
	opts := bitbucket.ClientOptions{Logger: d.Logger, Registerer: d.Registerer, TracerProvider: d.TracerProvider, Timeout: 10 * time.Second, Now: d.Now}
	if d.Redis != nil {
		opts.Budget = redisx.NewBudget(redisx.BudgetConfig{Client: d.Redis, Consumer: cfg.ClientID, Service: "webhook", Registerer: d.Registerer, Logger: d.Logger})
	}
	client := bitbucket.NewClient(site, opts)
	return func(workspace, place string, background bool) registry.Hooks {
		account := client.As(auth.Tokens(workspace, place)).Of(workspace)
		if background {
			return account.Background()
		}
		return account
	}
}

// Register registers devpilot.webhook.v1 on a gRPC server.
func (s *Service) Register(r grpc.ServiceRegistrar) {
	webhookv1.RegisterWebhookServiceServer(r, s.server)
}

// Handler serves the webhooks' path, ingress.PathPrefix, and answers 404 on any other.
func (s *Service) Handler() http.Handler { return s.handler }

// Ready is nil once all webhooks are known: from then on a delivery gets its true answer. Records
// that were found lost are its error too.
func (s *Service) Ready(ctx context.Context) error {
	return errors.Join(s.cache.Ready(ctx), s.store.Intact())
}

// Run opens the store and works until ctx is done. The caller stops the HTTP server first: then no
// delivery waits for the writer any more when it ends.
func (s *Service) Run(ctx context.Context) error {
	// The writer outlives the others, for a delivery that is late in the shutdown.
	writing, stopWriting := context.WithCancel(context.WithoutCancel(ctx))
	var writer sync.WaitGroup
	writer.Go(func() { _ = s.writer.Run(writing) }) // ends without an error
	defer writer.Wait()
	defer stopWriting()

	if err := s.open(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.store.RunCopies(ctx) })
	g.Go(func() error { return s.registry.Run(ctx) })
	g.Go(func() error { return s.ring.Run(ctx) })
	g.Go(func() error { return s.router.Run(ctx) })
	g.Go(func() error { return changes.Publish(ctx, s.changes) })
	g.Go(func() error { return changes.Follow(ctx, s.changes, s.registry.ConnectionChanged) })
	return g.Wait()
}

// open opens the store, as often as it takes: NATS may come after us. It is nil when ctx ended
// first; what waiting does not mend is its error.
func (s *Service) open(ctx context.Context) error {
	err := stream.UntilOpen(ctx, s.log, s.store.Open)
	if ctx.Err() != nil && !errors.Is(err, stream.ErrPermanent) {
		return nil
	}
	return err
}
