package auth

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"google.golang.org/grpc"

	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/checkup"
	"devpilot.io/bitbucket/pkg/redisx"
	"devpilot.io/bitbucket/pkg/rpc"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/stream"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	"devpilot.io/bitbucket/services/auth/internal/connect"
	"devpilot.io/bitbucket/services/auth/internal/handshake"
	"devpilot.io/bitbucket/services/auth/internal/server"
	"devpilot.io/bitbucket/services/auth/internal/store"
	"devpilot.io/bitbucket/services/auth/internal/token"
)

// Policy says who may call what.
var Policy rpc.Policy = server.Policy

// Service is the auth service. Make it with New, register it on a server made with Policy, and run
// it. RPCs that come before Run has opened the stores answer STORAGE_UNAVAILABLE.
type Service struct {
	logger       *slog.Logger
	integrations *store.Integrations
	schedules    *store.Schedules
	narrowings   *store.Narrowings
	index        *token.Index
	tokens       *token.Manager
	keeper       *token.Keeper
	server       *server.Server
	consumer     checkup.Consumer
}

// New puts the service together. It does no I/O.
func New(cfg Config, d Deps) (*Service, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	public, err := cfg.public()
	if err != nil {
		return nil, err
	}
	if cfg.Site, err = bitbucket.NewSite(cfg.Site.SiteURL, cfg.Site.APIURL); err != nil {
		return nil, fmt.Errorf("auth: Config.Site: %w", err)
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.HTTPClient == nil {
		d.HTTPClient = &http.Client{Transport: bitbucket.NewTransport()}
	}
	s := &Service{
		logger:       d.Logger,
		integrations: store.NewIntegrations(d.JS, d.Logger),
		schedules:    store.NewSchedules(d.JS, d.Logger),
		narrowings:   store.NewNarrowings(d.JS, d.Logger),
	}
	s.index = token.NewIndex(func() bool { return s.schedules.Ready(context.Background()) == nil })
	callback := public.JoinPath(connect.CallbackPath).String()
	oauth := bitbucket.NewOAuth(cfg.Site, cfg.ClientID, cfg.ClientSecret, callback,
		bitbucket.WithHTTPClient(d.HTTPClient), bitbucket.WithNow(d.Now), bitbucket.WithRegisterer(d.Registerer))
	budget := newBudget(cfg, d)
	if err := s.buildTokens(cfg, d, oauth, budget); err != nil {
		return nil, err
	}
	handshakes, err := handshake.NewStore(d.Redis, d.Keyset, d.Now)
	if err != nil {
		return nil, fmt.Errorf("auth: %w", err)
	}
	connects, err := connect.NewMetrics(d.Registerer)
	if err != nil {
		return nil, fmt.Errorf("auth: %w", err)
	}
	flow := connect.NewFlow(connect.Config{
		Handshakes: handshakes, OAuth: oauth, Integrations: s.integrations, Tokens: store.NewTokens(d.Keyset), Changed: s.tokens.Changed,
		Accounts: connect.NewRESTAccounts(cfg.Site, bitbucket.ClientOptions{
			HTTPClient: d.HTTPClient, Logger: d.Logger, Registerer: d.Registerer, TracerProvider: d.TracerProvider, Now: d.Now, Budget: unheld(budget),
		}),
		Site: cfg.Site, Consumer: cfg.consumer(), PublicURL: public, Logger: d.Logger, Metrics: connects, Now: d.Now,
	})
	s.consumer = checkup.Consumer{ClientID: cfg.ClientID, Secret: cfg.ClientSecret, SiteURL: cfg.Site.SiteURL, APIURL: cfg.Site.APIURL, Callback: callback}
	s.server = server.New(server.Config{
		Flow: flow, Handshakes: handshakes, Tokens: s.tokens, Integrations: s.integrations, Narrowings: s.narrowings,
		Site: cfg.Site, CallbackURL: callback, Budget: budget, Logger: d.Logger, Now: d.Now,
	})
	return s, nil
}

func (s *Service) buildTokens(cfg Config, d Deps, oauth *bitbucket.OAuth, budget *redisx.Budget) error {
	metrics, err := token.NewMetrics(d.Registerer, s.index)
	if err != nil {
		return fmt.Errorf("auth: %w", err)
	}
	s.tokens = token.NewManager(token.Config{
		Self: newProcessName(), Integrations: s.integrations, Schedules: s.schedules, Index: s.index,
		Bitbucket: oauth, Prober: newProber(cfg, d, budget), Tokens: store.NewTokens(d.Keyset), Consumer: cfg.consumer(),
		Logger: d.Logger, Metrics: metrics, Timing: cfg.Timing.internal(), Now: d.Now,
	})
	s.keeper = token.NewKeeper(s.tokens, token.Walkers{Integrations: s.integrations.Workspaces, Schedules: s.schedules.Workspaces})
	return nil
}

// newBudget shares the consumer's calls with the other services.
func newBudget(cfg Config, d Deps) *redisx.Budget {
	return redisx.NewBudget(redisx.BudgetConfig{Client: d.Redis, Consumer: cfg.ClientID, Service: "auth", Registerer: d.Registerer, Logger: d.Logger})
}

// unheld is a budget that counts calls and holds none back: a connect has spent its code by then.
func unheld(b *redisx.Budget) bitbucket.Budget { return counted{b} }

type counted struct{ *redisx.Budget }

// Take spends a call where there is one.
func (c counted) Take(ctx context.Context, call bitbucket.Call, p bitbucket.Priority, workspace string) time.Duration {
	c.Budget.Take(ctx, call, p, workspace)
	return 0
}

// prober asks for the owner of a token, out of the share of the budget that is not kept for people: a
// storm of 401s must not spend it.
type prober struct{ client *bitbucket.Client }

func newProber(cfg Config, d Deps, budget *redisx.Budget) prober {
	opts := bitbucket.ClientOptions{HTTPClient: d.HTTPClient, Logger: d.Logger, Registerer: d.Registerer, TracerProvider: d.TracerProvider, Now: d.Now}
	if cfg.ClientID != "" {
		opts.Budget = budget
	}
	return prober{client: bitbucket.NewClient(cfg.Site, opts)}
}

// Probe implements token.Prober.
func (p prober) Probe(ctx context.Context, token seal.Secret) error {
	_, err := p.client.As(bitbucket.StaticToken(token)).Background().User(ctx)
	return err
}

// newProcessName is new for every process, so that the lease of one that died is nobody's.
func newProcessName() string {
	var b [12]byte
	_, _ = rand.Read(b[:]) // crypto/rand.Read never fails
	return hex.EncodeToString(b[:])
}

// Register puts the service on a server.
func (s *Service) Register(r grpc.ServiceRegistrar) { authv1.RegisterAuthServiceServer(r, s.server) }

// Run opens the stores, keeps tokens fresh and tells the world of changes, until ctx is done; then it
// waits for the refreshes under way, because an answer that is not stored is a lost connection.
func (s *Service) Run(ctx context.Context) error {
	if err := stream.UntilOpen(ctx, s.logger, s.open); err != nil {
		if ctx.Err() != nil {
			err = nil // asked to end
		}
		return errors.Join(err, s.tokens.Close())
	}
	background, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	errs := make(chan error, 5)
	for _, part := range []func(context.Context) error{
		func(ctx context.Context) error { return s.schedules.Watch(ctx, s.index.Set) },
		func(ctx context.Context) error { return s.integrations.RelayChanges(ctx, s.logger) },
		func(ctx context.Context) error { return s.narrowings.RelayChanges(ctx, s.logger) },
		s.narrowings.RunCopy,
		s.keeper.Run,
	} {
		wg.Go(func() {
			if err := part(background); err != nil && background.Err() == nil {
				errs <- err
			}
			stop() // one part that ends takes the others with it
		})
	}
	wg.Wait()
	err := s.tokens.Close()
	close(errs)
	for e := range errs {
		err = errors.Join(e, err)
	}
	return err
}

func (s *Service) open(ctx context.Context) error {
	return errors.Join(s.integrations.Open(ctx), s.schedules.Open(ctx), s.narrowings.Open(ctx))
}

// Ready is nil once the stores are open and all schedules are known.
func (s *Service) Ready(ctx context.Context) error {
	if err := s.integrations.Ready(); err != nil {
		return fmt.Errorf("auth: %w", err)
	}
	if err := s.schedules.Ready(ctx); err != nil {
		return fmt.Errorf("auth: %w", err)
	}
	return nil
}
