package allinone

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"

	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/pkg/bitbucket/hook"
	"devpilot.io/bitbucket/pkg/engine"
	"devpilot.io/bitbucket/pkg/httpserver"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/installation"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/lifecycle"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/ops"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/servicemain"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/transport"
	"devpilot.io/bitbucket/services/allinone/internal/scenario"
	"devpilot.io/bitbucket/services/gateway"
)

// Product is the whole product in one process. Run it once.
type Product struct {
	settings     Settings
	logger       *slog.Logger
	dir          directory
	keysets      seal.Keysets // by service
	keys         *identity.Keys
	installation stream.Installation
	admin        seal.Secret

	httpListener, opsListener, emulatorListener net.Listener
	publicURL                                   string
	certificate                                 *transport.Certificate // of HTTP; nil without one
	consumer                                    emulator.Consumer      // of the emulator

	registry  *prometheus.Registry
	readiness ops.Readiness
	health    *servicemain.Health
	tracing   trace.TracerProvider

	nats     *engine.NATS
	stopTap  func() // of the embedded NATS; see listenStores
	redis    *engine.Redis
	nc       *nats.Conn
	js       *kv.Session
	redisc   redis.UniversalClient
	emulated *emulator.Emulator
	conns    []*grpc.ClientConn
	reached  atomic.Bool // every service has heard of those it calls that they serve

	live                          servicemain.Live
	auth, repo, webhook, deployer *hosted
	gateway                       *gateway.Service
	web                           *httpserver.Server
	emulatorServer                *httpserver.Server

	// Started is called once everything serves. It may be nil.
	Started func(ctx context.Context, p *Product)
	// Out is where a scenario is told of while it is played. It may be nil.
	Out io.Writer

	story *scenario.Record // nil without a scenario
	door  *scenario.Door   // likewise
}

// New takes the addresses and loads the keys, so that what is wrong with the settings is known
// before anything runs. Close it if it is not run.
func New(ctx context.Context, settings Settings, logger *slog.Logger) (*Product, error) {
	if err := settings.CheckEmulator(); err != nil {
		return nil, err
	}
	if err := errors.Join(settings.CheckEmbedded(), settings.CheckStores(settings.StoreFlags)); err != nil {
		return nil, err
	}
	name, err := settings.Name()
	if err != nil {
		return nil, err
	}
	dir, err := openDirectory(settings.DataDir)
	if err != nil {
		return nil, err
	}
	settings.DataDir = dir.path
	if settings.CacheDir == "" {
		settings.CacheDir = filepath.Join(dir.path, "cache")
	}
	p := &Product{settings: settings, logger: logger, dir: dir, installation: name, registry: ops.NewRegistry(servicemain.Version)}
	if p.health, err = servicemain.NewHealth(p.registry, true); err != nil {
		return nil, err
	}
	if err := p.openScenario(); err != nil {
		return nil, err
	}
	err = errors.Join(p.loadSecrets(), p.openCertificate(), p.bind(ctx))
	if err == nil {
		err = p.openDoor()
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	p.hostServices()
	return p, nil
}

func (p *Product) loadSecrets() (err error) {
	if p.keysets, err = p.dir.keysets(p.settings.EncryptionKeysetFile); err != nil {
		return fmt.Errorf("the encryption keyset: %w", err)
	}
	if p.keys, err = p.dir.identityKeys(p.settings.IdentityKeyFile); err != nil {
		return fmt.Errorf("the identity keys: %w", err)
	}
	p.admin, err = p.dir.adminToken()
	return err
}

// sealers are the keysets of the services that seal what they store.
func (p *Product) sealers() seal.Keysets {
	all := seal.Keysets{}
	for _, service := range Sealers() {
		all[service] = p.keysets[service]
	}
	return all
}

func (p *Product) openCertificate() (err error) {
	p.certificate, err = p.settings.Certificate(p.logger, p.registry)
	return err
}

// bind takes all addresses and settles the URLs that follow from them.
func (p *Product) bind(ctx context.Context) (err error) {
	if p.httpListener, err = servicemain.Listen(ctx, "--listen", p.settings.Listen); err != nil {
		return err
	}
	if p.opsListener, err = servicemain.Listen(ctx, "--ops-listen", p.settings.OpsListen); err != nil {
		return err
	}
	if p.live, err = p.settings.ListenLive(ctx, p.settings.Has("worker")); err != nil {
		return err
	}
	if p.publicURL, err = p.settings.URL(p.httpListener.Addr(), p.settings.ListenCertFile != ""); err != nil {
		return err
	}
	if !p.settings.Emulator {
		return nil
	}
	if p.emulatorListener, err = servicemain.Listen(ctx, "--emulator-listen", p.settings.EmulatorListen); err != nil {
		return err
	}
	p.consumer, err = p.settings.useEmulator(p.emulatorListener)
	return err
}

// Close gives back the addresses of a product that was not run.
func (p *Product) Close() {
	if p.story != nil {
		p.story.Close()
	}
	for _, l := range []net.Listener{p.httpListener, p.opsListener, p.live.Listener, p.emulatorListener} {
		if l != nil {
			_ = l.Close()
		}
	}
}

// URL is where people reach the product.
func (p *Product) URL() string { return p.publicURL }

// LiveURL is the address below which releases are served; empty where none are.
func (p *Product) LiveURL() string { return p.live.URL }

// OpsURL is where /livez, /readyz and /metrics are.
func (p *Product) OpsURL() string { return "http://" + p.opsListener.Addr().String() }

// EmulatorURL is the emulator's site; empty without one.
func (p *Product) EmulatorURL() string {
	if p.emulatorListener == nil {
		return ""
	}
	return p.settings.BitbucketSiteURL
}

// Emulator is the running emulator; nil without one.
func (p *Product) Emulator() *emulator.Emulator { return p.emulated }

// NATS is the embedded NATS server; nil where the operator named another.
func (p *Product) NATS() *engine.NATS { return p.nats }

// Redis is the embedded Redis; nil where the operator named another.
func (p *Product) Redis() *engine.Redis { return p.redis }

// SignInURL makes a page address that signs the local owner in, once, within gateway.SignInCodeLife.
func (p *Product) SignInURL(ctx context.Context) (string, error) {
	code, err := p.gateway.NewSignInCode(ctx)
	if err != nil {
		return "", err
	}
	return p.gateway.SignInURL(code), nil
}

// Run runs the product until ctx is done.
func (p *Product) Run(ctx context.Context) error {
	defer p.Close()
	tracing, err := ops.NewTracing(ctx, "devpilot", servicemain.Version)
	if err != nil {
		return err
	}
	p.tracing = tracing
	return lifecycle.Run(ctx, lifecycle.Config{Logger: p.logger, Readiness: &p.readiness, DrainDelay: p.settings.DrainDelay},
		p.components(tracing.Shutdown)...)
}

// components lists the parts in order of start; they are stopped in reverse, each bounded:
//
//  1. traces, ops listener
//  2. engines: NATS (all that must not be lost), Redis (all that may be), and the clients of both; whether they
//     are this installation's
//  3. the emulator, where asked for
//  4. auth, repo, webhook, deployer, gateway: each its work, then its gRPC
//  5. HTTP, then intake: what would not end by itself is asked to, first of all
func (p *Product) components(flushTraces func(context.Context) error) []lifecycle.Component {
	list := []lifecycle.Component{
		{Name: "traces", Stop: flushTraces, StopTimeout: 5 * time.Second},
		{Name: "ops", Run: func(ctx context.Context) error {
			return ops.Serve(ctx, p.opsListener, ops.Handler(&p.readiness, p.registry, p.settings.Pprof), p.logger)
		}},
		{Name: "nats", Start: p.startNATS, Run: p.watchNATS, Ready: p.natsReady, Stop: p.stopNATS, StopTimeout: 30 * time.Second},
		{Name: "redis", Start: p.startRedis, Run: func(ctx context.Context) error { return p.health.WatchRedis(ctx, p.redisc) }, Stop: p.stopRedis},
		servicemain.Installation(func() installation.Config {
			return installation.Config{JS: p.js, Redis: p.redisc, Keysets: p.sealers(), Logger: p.logger}
		}),
	}
	list = append(list, servicemain.Followed("certificate", p.certificate)...)
	if p.settings.Emulator {
		list = append(list, lifecycle.Component{Name: "emulator", Start: p.startEmulator, Run: p.serveEmulator, Stop: p.stopEmulator})
	}
	list = append(list, lifecycle.Component{Name: "connections", Stop: p.closeConns})
	for _, h := range []*hosted{p.auth, p.repo, p.webhook, p.deployer} {
		list = append(list, h.components()...)
	}
	return append(list,
		lifecycle.Component{
			Name: "gateway", Start: p.startGateway, StopTimeout: 30 * time.Second,
			Run:   func(ctx context.Context) error { return p.gateway.Run(ctx) },
			Ready: func(ctx context.Context) error { return p.gateway.Ready(ctx) },
		},
		// The last that is started: what it waits for at first are the connections of all services.
		lifecycle.Component{Name: "http", Start: p.startHTTP, Run: p.serveHTTP, Ready: p.reachable, Stop: func(ctx context.Context) error { return p.web.Stop(ctx) }},
		lifecycle.Component{Name: "intake", Stop: func(context.Context) error { p.gateway.Drain(); return nil }},
		lifecycle.Component{Name: "greeting", Run: p.greet},
		lifecycle.Component{Name: "health", Run: func(ctx context.Context) error {
			p.health.Watch(ctx, &p.readiness)
			return nil
		}},
	)
}

func (p *Product) startEmulator(ctx context.Context) (err error) {
	p.consumer.CallbackURL = p.publicURL + "/oauth/bitbucket/callback"
	p.emulated, err = emulator.New(emulator.Options{
		SiteURL: p.settings.BitbucketSiteURL, DataDir: p.dir.emulator(), Consumer: p.consumer,
		Scenario: p.settings.EmulatorScenario, Logger: p.loggerOf("emulator"),
	})
	if err != nil {
		return err
	}
	if err := p.holdScenario(ctx); err != nil {
		return err
	}
	p.emulatorServer = httpserver.New(httpserver.Config{Handler: p.withDoor(p.emulated.Handler()), Logger: p.loggerOf("emulator"), Connections: httpserver.Share(0.1)})
	return nil
}

func (p *Product) serveEmulator(context.Context) error {
	return p.emulatorServer.Serve(p.emulatorListener)
}

func (p *Product) stopEmulator(ctx context.Context) error {
	return errors.Join(p.emulatorServer.Stop(ctx), p.emulated.Close())
}

// reachable is nil from when every service has heard of those it calls that they serve: a service that is ready
// is told so to the others a moment later, and a call in between would be refused.
func (p *Product) reachable(context.Context) error {
	if p.reached.Load() {
		return nil
	}
	for _, c := range p.conns {
		if state := c.GetState(); state != connectivity.Ready {
			c.Connect()
			return fmt.Errorf("a service is not reached by another one yet: %s", strings.ToLower(state.String()))
		}
	}
	p.reached.Store(true)
	return nil
}

func (p *Product) closeConns(context.Context) error {
	var errs []error
	for _, c := range p.conns {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// startHTTP puts Bitbucket's deliveries, which the webhook service answers, beside the gateway.
func (p *Product) startHTTP(context.Context) error {
	deliveries, ok := p.webhook.service.(servicemain.HTTPService)
	if !ok {
		return errors.New("the webhook service serves no HTTP")
	}
	p.web = httpserver.New(httpserver.Config{Handler: beside(deliveries.Handler(), p.withClock(p.gateway.Handler())), Logger: p.logger, Connections: httpserver.Share(0.4), TLS: p.certificate.HTTP()})
	return nil
}

// beside sends what is for a webhook to one handler and all else to the other. It redirects nothing, as
// [http.ServeMux] would: Bitbucket does not follow, and each of the two has an answer for every path.
func beside(webhooks, others http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(path.Clean(r.URL.Path)+"/", hook.Path) {
			webhooks.ServeHTTP(w, r)
			return
		}
		others.ServeHTTP(w, r)
	})
}

func (p *Product) serveHTTP(context.Context) error {
	return p.web.Serve(p.httpListener)
}

// greet waits until everything serves, and says so.
func (p *Product) greet(ctx context.Context) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for p.readiness.Ready(ctx) != nil {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
	p.logger.InfoContext(ctx, "ready", slog.String(logs.KeyAddr, p.publicURL))
	if p.Started != nil {
		p.Started(ctx, p)
	}
	if err := p.playScenario(ctx); err != nil && ctx.Err() == nil {
		return err
	}
	<-ctx.Done()
	return nil
}

func (p *Product) loggerOf(service string) *slog.Logger {
	return p.logger.With(slog.String(logs.KeyService, service))
}

// Greeting tells the person who started the product where it is and how to get in.
// program is how this program was called, for a line that runs as it stands.
func (p *Product) Greeting(ctx context.Context, w io.Writer, program string, terminal bool) {
	fmt.Fprintf(w, "\nDevpilot is at %s\n", p.URL())
	switch {
	case p.settings.Emulator:
		fmt.Fprintf(w, "A Bitbucket emulator stands in for Bitbucket at %s\n", p.EmulatorURL())
	case p.settings.BitbucketClientID == "":
		fmt.Fprintln(w, "No Bitbucket can be connected yet: set DEVPILOT_BITBUCKET_CLIENT_ID and DEVPILOT_BITBUCKET_CLIENT_SECRET_FILE to those of an OAuth consumer, or start with --emulator to try it without one.")
	}
	fmt.Fprintf(w, "Data, keys and the admin token are in %s\n", shortPath(p.dir.path))
	if p.settings.LocalOwner == "off" {
		fmt.Fprintln(w, "The local owner is switched off: sign in with an identity provider.")
		return
	}
	if !terminal { // a link in a log would sign in whoever reads it
		fmt.Fprintf(w, "For a link that signs you in: %s\n", p.signInCommand(program))
		return
	}
	link, err := p.SignInURL(ctx)
	if err != nil {
		fmt.Fprintf(w, "No sign-in link could be made (%v); sign in with the admin token instead.\n", err)
		return
	}
	fmt.Fprintf(w, "Sign in (once, within %.0f minutes): %s\nFor another link: %s\n\n", gateway.SignInCodeLife.Minutes(), link, p.signInCommand(program))
}

// shortPath is path relative to the working directory where that is shorter.
func shortPath(path string) string {
	wd, err := os.Getwd()
	if err != nil {
		return path
	}
	if rel, err := filepath.Rel(wd, path); err == nil && len(rel) < len(path) {
		return rel
	}
	return path
}
