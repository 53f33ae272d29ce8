package rpc

import (
	"errors"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	noopmetric "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	nooptrace "go.opentelemetry.io/otel/trace/noop"
	"golang.org/x/net/netutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/stats"

	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/transport"
)

// MaxMessage bounds requests and answers, in bytes.
const MaxMessage = 8 << 20

// ServerConfig is what NewServer needs.
type ServerConfig struct {
	Service string         // own name: the audience of caller tokens, a label of metrics
	Keys    *identity.Keys // public keys of all callers
	Policy  Policy
	Logger  *slog.Logger

	Registerer     prometheus.Registerer // nil: metrics are not exported
	TracerProvider trace.TracerProvider  // nil: no traces
	// Health is registered on the server. Set its status through [SetServing]: callers keep away from a
	// server that says that it does not serve. nil: it always serves.
	Health *health.Server
	// Open lets calls in; before, they are refused so that callers try another replica. nil: from the
	// start.
	Open func() bool
	// Certificate has all connections encrypted, and callers show one of their own: one of theirs that some method
	// may be called with, by the policy. nil: nothing is encrypted.
	Certificate *transport.Certificate
	// Options are appended; for tests and tuning, not for interceptors.
	Options []grpc.ServerOption
}

// What a caller may take of a server before it is known who calls.
const (
	// handshakeTimeout is how long a connection may take until calls can come over it.
	handshakeTimeout = 10 * time.Second
	// maxHeader is for the metadata of one call, in bytes: two signed identities are about 2 KiB.
	maxHeader = 64 << 10
	// maxStreams is how many calls may run over one connection; more wait at the caller.
	maxStreams = 1024
)

// NewServer makes a server with the full chain and the health service.
// Register the services on it, call [CheckPolicy], then serve.
func NewServer(cfg ServerConfig) (*grpc.Server, error) {
	switch {
	case cfg.Service == "":
		return nil, errors.New("rpc: ServerConfig.Service is missing")
	case cfg.Keys == nil:
		return nil, errors.New("rpc: ServerConfig.Keys is missing")
	case cfg.Logger == nil:
		return nil, errors.New("rpc: ServerConfig.Logger is missing")
	}
	if err := cfg.Policy.checkCallers(cfg.Keys.Services()); err != nil {
		return nil, err
	}
	metrics, err := newServerMetrics(cfg.Registerer, cfg.Service)
	if err != nil {
		return nil, err
	}
	// The order is fixed; otel, the outermost, is a stats handler below.
	layers := []layer{
		requestContext,
		accessLog(slog.New(logs.Handler(cfg.Logger.Handler())), metrics),
		whenOpen(cfg.Open),
		mapErrors,
		recovery,
		deadlineGuard,
		access(identity.NewVerifier(cfg.Keys, cfg.Service), cfg.Policy, cfg.Certificate != nil),
		validation,
	}
	opts := append([]grpc.ServerOption{
		grpc.StatsHandler(otelgrpc.NewServerHandler(otelOptions(cfg.TracerProvider)...)),
		grpc.ChainUnaryInterceptor(unaryChain(layers)),
		grpc.ChainStreamInterceptor(streamChain(layers)),
		grpc.MaxRecvMsgSize(MaxMessage),
		grpc.MaxSendMsgSize(MaxMessage),
		grpc.MaxHeaderListSize(maxHeader),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.WaitForHandlers(true),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		// Connections are renewed now and then: clients then look for replicas that were added.
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: 30 * time.Second, Time: time.Minute, Timeout: 20 * time.Second}),
	}, cfg.Options...)
	if cfg.Certificate != nil {
		opts = append(opts, grpc.Creds(cfg.Certificate.Server(cfg.Policy.callers())))
	}
	server := grpc.NewServer(opts...)
	h := cfg.Health
	if h == nil {
		h = health.NewServer()
		SetServing(h, true)
	}
	healthpb.RegisterHealthServer(server, h)
	return server, nil
}

// Serve takes at most so many connections at a time, until the server is stopped, and returns nil then. Those beyond wait
// for their turn: whoever opens many takes no open file from others, and one that nobody calls over is closed
// after handshakeTimeout.
func Serve(server *grpc.Server, l net.Listener, connections int) error {
	return server.Serve(netutil.LimitListener(l, connections))
}

// SetServing sets the overall health status.
func SetServing(h *health.Server, serving bool) {
	s := healthpb.HealthCheckResponse_NOT_SERVING
	if serving {
		s = healthpb.HealthCheckResponse_SERVING
	}
	h.SetServingStatus("", s)
}

// Stop lets running calls end for at most limit, then ends them. It returns when all handlers have
// returned. It reports whether all ended by themselves.
func Stop(server *grpc.Server, limit time.Duration) (graceful bool) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.GracefulStop()
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		server.Stop() // cancels the handlers' contexts; GracefulStop returns with it
		<-done
		return false
	}
}

func otelOptions(tp trace.TracerProvider) []otelgrpc.Option {
	if tp == nil {
		tp = nooptrace.NewTracerProvider()
	}
	return []otelgrpc.Option{
		otelgrpc.WithTracerProvider(tp),
		otelgrpc.WithPropagators(Propagator()),
		otelgrpc.WithFilter(func(i *stats.RPCTagInfo) bool { return !isHealth(i.FullMethodName) }),
		otelgrpc.WithMeterProvider(noopmetric.NewMeterProvider()), // our own metrics say the same
	}
}
