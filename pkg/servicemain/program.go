package servicemain

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"devpilot.io/bitbucket/pkg/checkup"
	"devpilot.io/bitbucket/pkg/httpserver"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/installation"
	"devpilot.io/bitbucket/pkg/lifecycle"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/ops"
	"devpilot.io/bitbucket/pkg/rpc"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/transport"
)

func addressVariable(name string) string { return envPrefix + strings.ToUpper(name) + "_ADDR" }

// program is one configured service on its way through its life.
type program struct {
	name                   string
	policy                 rpc.Policy
	servesHTTP, servesGRPC bool
	withoutNATS            bool
	access                 stream.Access
	examines               []string // see Spec
	own                    any      // the service's own settings
	base                   base
	http                   HTTPListenFlags
	grpc                   GRPCListenFlags
	env                    *Env
	installation           stream.Installation
	build                  func(context.Context) (Service, error)
	addresses              map[string]string // of the services that are called
	conns                  []*grpc.ClientConn
	certificate            *transport.Certificate // of this service; nil without one
	web                    *transport.Certificate // of its HTTP; nil without one

	natsStopping atomic.Bool
	refused      Refusals

	registry   *prometheus.Registry
	readiness  ops.Readiness
	door       *Door
	health     *Health
	service    Service
	grpcServer *grpc.Server
	httpServer *httpserver.Server

	opsListener, grpcListener, httpListener net.Listener
}

// run binds, then starts the parts in order of dependency; lifecycle.Run stops them in reverse:
// not ready → drain delay → intake (Drain, HTTP) → gRPC → the service's own work → connections to
// other services → stores → ops listener → traces flushed.
func (m *program) run(ctx context.Context) error {
	if err := m.loadKeys(); err != nil {
		return err
	}
	if err := m.bind(ctx); err != nil {
		return err
	}
	defer m.closeListeners()
	m.registry = ops.NewRegistry(m.env.Version)
	m.env.Registerer = m.registry
	if err := m.openCertificates(); err != nil {
		return err
	}
	m.env.Certificate = m.certificate
	var err error
	if m.health, err = NewHealth(m.registry, !m.withoutNATS); err != nil {
		return err
	}
	m.door = NewDoor()
	tracing, err := ops.NewTracing(ctx, m.name, m.env.Version)
	if err != nil {
		return err
	}
	m.env.TracerProvider = tracing

	components := append([]lifecycle.Component{}, Followed("certificate", m.certificate)...)
	components = append(components, Followed("http certificate", m.web)...)
	components = append(components, []lifecycle.Component{
		{Name: "traces", Stop: tracing.Shutdown, StopTimeout: 5 * time.Second},
		{Name: "ops", Run: func(ctx context.Context) error {
			m.env.Logger.Info("serving ops", slog.String(logs.KeyAddr, m.opsListener.Addr().String()), slog.String(logs.KeyVersion, m.env.Version))
			return ops.Serve(ctx, m.opsListener, ops.Handler(&m.readiness, m.registry, m.base.Pprof), m.env.Logger)
		}},
	}...)
	if !m.withoutNATS {
		components = append(components, lifecycle.Component{
			Name: "nats", Start: m.startNATS, StartTimeout: connectLimit + 10*time.Second, Run: m.watchNATS, Ready: m.natsReady, Stop: m.stopNATS,
		})
	}
	components = append(components, lifecycle.Component{Name: "redis", Start: m.startRedis, Run: m.watchRedis, Stop: func(context.Context) error { return m.env.Redis.Close() }})
	if !m.withoutNATS { // the record of an installation is there
		components = append(components, Installation(func() installation.Config {
			return installation.Config{JS: m.env.JS, Redis: m.env.Redis, Keysets: seal.Shared(m.env.Keyset, m.name), Logger: m.env.Logger}
		}))
	}
	components = append(components, []lifecycle.Component{
		{Name: "connections", Stop: m.closeConns},
		{Name: m.name, Start: m.startService, Run: m.runService, Ready: m.serviceReady, StopTimeout: 30 * time.Second},
	}...)
	if m.servesGRPC {
		components = append(components, lifecycle.Component{Name: "grpc", Start: m.startGRPC, Run: m.serveGRPC, StopTimeout: 20 * time.Second, Stop: m.stopGRPC})
	}
	if m.servesHTTP {
		components = append(components, lifecycle.Component{Name: "http", Start: m.startHTTP, Run: m.serveHTTP, StopTimeout: 15 * time.Second, Stop: m.stopHTTP})
	}
	components = append(components,
		lifecycle.Component{Name: "intake", Stop: m.drain},
		lifecycle.Component{Name: "health", Run: m.watchHealth},
	)
	return lifecycle.Run(ctx, lifecycle.Config{Logger: m.env.Logger, Readiness: &m.readiness, DrainDelay: m.base.DrainDelay}, components...)
}

func (m *program) loadKeys() (err error) {
	if m.env.Keyset, err = seal.LoadKeysetFile(seal.KeysetFileOf(m.base.EncryptionKeysetFile, m.name)); err != nil {
		return fmt.Errorf("--encryption-keyset-file (DEVPILOT_ENCRYPTION_KEYSET_FILE): %w", err)
	}
	if m.env.Keys, err = identity.LoadKeysFile(m.base.IdentityKeyFile); err != nil {
		return fmt.Errorf("--identity-key-file (DEVPILOT_IDENTITY_KEY_FILE): %w", err)
	}
	return nil
}

// bind takes all addresses first: a busy port is known before anything was started.
func (m *program) bind(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			m.closeListeners()
		}
	}()
	if m.opsListener, err = Listen(ctx, "--ops-listen", m.base.OpsListen); err != nil {
		return err
	}
	if m.servesGRPC {
		if m.grpcListener, err = Listen(ctx, "--grpc-listen", m.grpc.GRPCListen); err != nil {
			return err
		}
	}
	if m.servesHTTP {
		if m.httpListener, err = Listen(ctx, "--listen", m.http.Listen); err != nil {
			return err
		}
		m.env.HTTPAddr, m.env.HTTPS = m.httpListener.Addr(), m.http.ListenCertFile != ""
	}
	return nil
}

// closeListeners closes what its server did not close; closing twice does no harm.
func (m *program) closeListeners() {
	for _, l := range []net.Listener{m.opsListener, m.grpcListener, m.httpListener} {
		if l != nil {
			_ = l.Close()
		}
	}
}

func (m *program) startNATS(ctx context.Context) (err error) {
	options, err := m.base.NATSOptions()
	if err != nil {
		return err
	}
	replication, err := stream.NewReplication(m.registry)
	if err != nil {
		return err
	}
	m.env.NC, m.env.JS, err = ConnectNATS(ctx, m.base.NATSURL, m.name, stream.Settings{Installation: m.installation, Replicas: m.base.Replicas, Bytes: m.base.StreamsMiB << 20, Replication: replication}, m.env.Logger, &m.refused, options...)
	if err == nil {
		m.health.NATS(m.natsReady)
	}
	return err
}

// natsReady is nil while the streams of the service take writes.
func (m *program) natsReady(ctx context.Context) error {
	if !m.env.NC.IsConnected() {
		if err := m.env.NC.LastError(); err != nil {
			return fmt.Errorf("not connected (%s): %w", strings.ToLower(m.env.NC.Status().String()), NATSTrouble(err))
		}
		return fmt.Errorf("not connected (%s)", strings.ToLower(m.env.NC.Status().String()))
	}
	return errors.Join(m.refused.Ready(ctx), m.env.JS.Ready(ctx))
}

// watchNATS follows whether the streams take writes, and ends the process when the connection is given up
// for good, which NATS does when it refuses our credentials: a new start reads the settings again.
func (m *program) watchNATS(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var pulse sync.WaitGroup
	pulse.Go(func() { m.env.JS.Run(ctx) })
	defer pulse.Wait()
	defer cancel()
	closed := m.env.NC.StatusChanged(nats.CLOSED)
	select {
	case <-ctx.Done():
		return nil
	case <-closed:
	}
	if m.natsStopping.Load() {
		return nil
	}
	return fmt.Errorf("the connection was closed for good: %w", cmp.Or(NATSTrouble(m.env.NC.LastError()), nats.ErrConnectionClosed))
}

func (m *program) stopNATS(ctx context.Context) error {
	m.natsStopping.Store(true)
	defer m.env.NC.Close()
	if !m.env.NC.IsConnected() {
		return nil
	}
	return errors.Join(m.env.JS.Flush(ctx), m.env.NC.FlushWithContext(ctx))
}

func (m *program) startRedis(ctx context.Context) (err error) {
	m.env.Redis, err = ConnectRedis(ctx, m.base.StoreFlags, m.base.PlaintextFlags, m.installation, m.env.Logger)
	return err
}

func (m *program) watchRedis(ctx context.Context) error {
	return m.health.WatchRedis(ctx, m.env.Redis)
}

func (m *program) startService(ctx context.Context) (err error) {
	m.service, err = m.build(ctx)
	return err
}

func (m *program) runService(ctx context.Context) error { return m.service.Run(ctx) }

func (m *program) serviceReady(ctx context.Context) error { return m.service.Ready(ctx) }

func (m *program) startGRPC(context.Context) (err error) {
	r, ok := m.service.(Registrar)
	if !ok {
		return errors.New("the service does not register anything")
	}
	m.grpcServer, err = rpc.NewServer(rpc.ServerConfig{
		Service: m.name, Keys: m.env.Keys, Policy: m.policy, Logger: m.env.Logger,
		Registerer: m.env.Registerer, TracerProvider: m.env.TracerProvider, Health: m.door.Health, Open: m.door.Open, Certificate: m.certificate,
	})
	if err != nil {
		return err
	}
	r.Register(m.grpcServer)
	checkup.Register(m.grpcServer, m.env.Examined)
	return rpc.CheckPolicy(m.grpcServer, m.policy)
}

func (m *program) serveGRPC(context.Context) error {
	m.env.Logger.Info("serving grpc", slog.String(logs.KeyAddr, m.grpcListener.Addr().String()))
	return rpc.Serve(m.grpcServer, m.grpcListener, httpserver.Share(0.2))
}

func (m *program) stopGRPC(ctx context.Context) error {
	limit := 10 * time.Second
	if d, ok := ctx.Deadline(); ok {
		limit = time.Until(d) * 3 / 4 // the rest is for handlers to notice that they were cut
	}
	if !rpc.Stop(m.grpcServer, limit) {
		return errors.New("calls still running were cut")
	}
	return nil
}

func (m *program) startHTTP(context.Context) error {
	h, ok := m.service.(HTTPService)
	if !ok {
		return errors.New("the service has no HTTP handler")
	}
	m.httpServer = httpserver.New(httpserver.Config{Handler: h.Handler(), Logger: m.env.Logger, Connections: httpserver.Share(0.6), TLS: m.web.HTTP()})
	return nil
}

func (m *program) serveHTTP(context.Context) error {
	m.env.Logger.Info("serving http", slog.String(logs.KeyAddr, m.httpListener.Addr().String()))
	return m.httpServer.Serve(m.httpListener)
}

func (m *program) stopHTTP(ctx context.Context) error { return m.httpServer.Stop(ctx) }

func (m *program) drain(context.Context) error {
	if d, ok := m.service.(Drainer); ok {
		d.Drain()
	}
	return nil
}

// watchHealth keeps the door, and tells the log of every change.
func (m *program) watchHealth(ctx context.Context) error {
	wasReady := false
	m.door.Keep(ctx, &m.readiness, func(err error) {
		m.health.Ready(err)
		switch {
		case err == nil:
			m.env.Logger.Info("ready")
			wasReady = true
		case errors.Is(err, ops.ErrDraining):
		case wasReady:
			m.env.Logger.Warn("not ready any more", logs.Err(err))
		default:
			m.env.Logger.Info("not ready yet", logs.Err(err))
		}
	})
	return nil
}
