package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"devpilot.io/bitbucket/pkg/logs"
)

// ErrStoreInUse says that another process serves the same store directory.
var ErrStoreInUse = errors.New("engine: the JetStream store directory is in use by another process")

// VolumeError says that a new store could not work on its volume.
type VolumeError struct {
	Dir        string
	Free, Need int64 // bytes
}

// Error says how much is free and how much is needed.
func (e *VolumeError) Error() string {
	return fmt.Sprintf("engine: the volume of %s has %d MiB free, and a new store needs %d MiB", e.Dir, e.Free>>20, e.Need>>20)
}

// ErrNotReady is wrapped by every error of NATS.Ready.
var ErrNotReady = errors.New("engine: NATS is not ready")

// NATSConfig configures an embedded NATS server.
type NATSConfig struct {
	// StoreDir holds JetStream's files. It is created when missing. Required.
	StoreDir string
	// Name is the server's name in its logs and INFO; "devpilot" when empty.
	Name string
	// Listen is host:port for a TCP listener (port 0: any free one). Empty means that the
	// server has no listener at all and is reached only through InProcessConn.
	Listen string
	// MaxStore bounds the bytes JetStream may use on disk. Zero means what it uses already
	// plus what is free on the volume less Reserve.
	MaxStore int64
	// Reserve is the space that a computed MaxStore leaves to others on the volume;
	// 1 GiB when zero, at most half of what is free.
	Reserve int64
	// Need is what a new store must have room for, in bytes; a volume that has less is a VolumeError. It
	// counts where MaxStore is computed.
	Need int64
	// GuestWrites are subjects that who connects to InProcessConn without ConnectOption may publish, beside
	// reading streams. It counts without a listener.
	GuestWrites []string
	// CanaryInterval is the time between health checks, 5 s when zero; negative switches
	// them off (tests that are about something else).
	CanaryInterval time.Duration
	// CanaryTimeout bounds one synced canary write; 4 s when zero.
	CanaryTimeout time.Duration
	// Logger receives the server's own log lines; nil discards them.
	Logger *slog.Logger
}

func (c NATSConfig) withDefaults() NATSConfig {
	if c.Name == "" {
		c.Name = "devpilot"
	}
	if c.Reserve == 0 {
		c.Reserve = 1 << 30
	}
	if c.CanaryInterval == 0 {
		c.CanaryInterval = 5 * time.Second
	}
	if c.CanaryTimeout == 0 {
		c.CanaryTimeout = 4 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// NATS is an embedded NATS server. Its methods are safe for concurrent use. Clients connect with
// stream.Connect(n.ClientURL(), name, n.ConnectOption()) and survive its restarts in place, which
// they see as a lost and regained connection.
type NATS struct {
	cfg    NATSConfig
	lock   *os.File
	access *access // of a server without a listener; nil with one: who reaches that may do everything
	// port is the TCP port of the first start, kept over restarts so that clients find it again.
	port int

	// lifecycle serialises Start, Stop and Restart; mu guards only the fields below, so that
	// InProcessConn never waits for a server that is being shut down.
	lifecycle sync.Mutex
	mu        sync.Mutex
	srv       *server.Server
	health    error
	restarts  int
	closed    bool
	held      bool // stopped on purpose

	stopCanary context.CancelFunc
	canaryDone chan struct{}
}

// MaxStore is how large the store may become, in bytes.
func (n *NATS) MaxStore() int64 { return n.cfg.MaxStore }

// StartNATS starts an embedded server and waits until it accepts clients and, unless the canary is
// switched off, until the first synced canary write was acknowledged. It survives a predecessor
// that was killed: the lock on the store directory goes with its process.
func StartNATS(ctx context.Context, cfg NATSConfig) (*NATS, error) {
	if cfg.StoreDir == "" {
		return nil, errors.New("engine: NATSConfig.StoreDir is required")
	}
	n := &NATS{cfg: cfg.withDefaults(), port: server.RANDOM_PORT, health: errors.New("starting")}
	if err := os.MkdirAll(n.cfg.StoreDir, 0o700); err != nil {
		return nil, fmt.Errorf("engine: create the JetStream store directory: %w", err)
	}
	if n.Private() {
		n.access = newAccess(cfg.GuestWrites)
	}
	var err error
	if n.lock, err = lockDir(n.cfg.StoreDir); err != nil {
		return nil, err
	}
	if n.cfg.MaxStore == 0 {
		if n.cfg.MaxStore, err = computeMaxStore(n.cfg.StoreDir, n.cfg.Reserve, n.cfg.Need); err != nil {
			return nil, errors.Join(err, n.lock.Close())
		}
	}
	if err := n.start(ctx); err != nil {
		return nil, errors.Join(err, n.lock.Close())
	}
	if n.cfg.CanaryInterval < 0 {
		n.setHealth(nil)
		return n, nil
	}
	canaryCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	n.stopCanary, n.canaryDone = cancel, make(chan struct{})
	c := newCanary(n)
	err = c.first(ctx)
	if err != nil && !outOfLimits(err) { // one that is full must be reachable, to be emptied
		cancel()
		close(n.canaryDone)
		return nil, errors.Join(fmt.Errorf("engine: first canary write: %w", err), n.Close())
	}
	n.setHealth(err)
	go func() {
		defer close(n.canaryDone)
		c.run(canaryCtx)
	}()
	return n, nil
}

// options are the settings of the embedded server. SyncAlways is the one that matters most: the
// default acknowledges before it syncs, and has lost acknowledged writes so (DESIGN.md#jetstream).
func (n *NATS) options() (*server.Options, error) {
	o := &server.Options{
		ServerName:             n.cfg.Name,
		JetStream:              true,
		StoreDir:               n.cfg.StoreDir,
		JetStreamMaxStore:      n.cfg.MaxStore,
		SyncAlways:             true,
		DontListen:             n.cfg.Listen == "",
		NoSigs:                 true,
		DisableJetStreamBanner: true,
		// Deliveries of 512 KiB and log records of 64 KiB fit well; 8 MiB is the server's
		// own recommended ceiling and leaves room for batches.
		MaxPayload: 8 << 20,
	}
	if n.access != nil {
		o.CustomClientAuthentication = n.access
		return o, nil
	}
	host, port, err := net.SplitHostPort(n.cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("engine: NATSConfig.Listen: %w", err)
	}
	if o.Port, err = strconv.Atoi(port); err != nil {
		return nil, fmt.Errorf("engine: NATSConfig.Listen: %w", err)
	}
	o.Host = host
	if o.Port == 0 {
		o.Port = n.port
	}
	return o, nil
}

func (n *NATS) start(ctx context.Context) error {
	o, err := n.options()
	if err != nil {
		return err
	}
	srv, err := server.NewServer(o)
	if err != nil {
		return fmt.Errorf("engine: configure NATS: %w", err)
	}
	srv.SetLoggerV2(&serverLog{n.cfg.Logger.With(logs.KeyComponent, "nats-server")}, false, false, false)
	srv.Start()
	if err := waitReady(ctx, srv); err != nil {
		srv.Shutdown()
		srv.WaitForShutdown()
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.srv = srv
	if addr, ok := srv.Addr().(*net.TCPAddr); ok && addr != nil {
		n.port = addr.Port
	}
	return nil
}

// waitReady waits until the server takes clients and has recovered JetStream.
func waitReady(ctx context.Context, srv *server.Server) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	for {
		if srv.ReadyForConnections(20*time.Millisecond) && srv.JetStreamEnabled() {
			return nil
		}
		if !srv.Running() {
			return errors.New("engine: NATS stopped while starting; its log says why")
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("engine: wait for NATS to start: %w", err)
		}
	}
}

func (n *NATS) server() (*server.Server, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.srv == nil {
		return nil, fmt.Errorf("%w: stopped", ErrNotReady)
	}
	return n.srv, nil
}

// InProcessConn opens a connection that never leaves the process. It makes NATS a
// nats.InProcessConnProvider that outlives restarts: each call reaches the server of the moment.
func (n *NATS) InProcessConn() (net.Conn, error) {
	srv, err := n.server()
	if err != nil {
		return nil, err
	}
	return srv.InProcessConn()
}

// ConnectOption makes a client connect in process, and reconnect so after a restart. It may do everything; who connects
// to InProcessConn without it may read the streams of a server that has no listener, and write none.
func (n *NATS) ConnectOption() nats.Option { return n.connect(n) }

// connect is ConnectOption to whoever gives connections to the server.
func (n *NATS) connect(to nats.InProcessConnProvider) nats.Option {
	return func(o *nats.Options) error {
		o.InProcessServer = to
		if n.access == nil {
			return nil
		}
		return n.access.owner(o)
	}
}

// Private says that nobody outside this process can reach the server.
func (n *NATS) Private() bool { return n.cfg.Listen == "" }

// ClientURL is the URL of the TCP listener, or, without one, a placeholder that is good only
// together with ConnectOption.
func (n *NATS) ClientURL() string {
	if n.cfg.Listen == "" {
		return PrivateURL
	}
	host, _, err := net.SplitHostPort(n.cfg.Listen)
	if err != nil || host == "" {
		host = "127.0.0.1"
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return "nats://" + net.JoinHostPort(host, strconv.Itoa(n.port))
}

// StoreDir is where JetStream keeps its files.
func (n *NATS) StoreDir() string { return filepath.Join(n.cfg.StoreDir, "jetstream") }

// Restarts counts how often the server was restarted in place since StartNATS.
func (n *NATS) Restarts() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.restarts
}

// Ready is nil while the last health check passed. It asks nothing itself and so never blocks.
func (n *NATS) Ready(context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.closed:
		return fmt.Errorf("%w: closed", ErrNotReady)
	case n.health != nil:
		return fmt.Errorf("%w: %w", ErrNotReady, n.health)
	case n.srv == nil:
		return fmt.Errorf("%w: stopped", ErrNotReady)
	}
	return nil
}

func (n *NATS) setHealth(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.health = err
}

// Stop shuts the server down at once, without lame-duck mode, keeping the store directory's lock.
// Start brings it back; the canary does not.
func (n *NATS) Stop() {
	n.lifecycle.Lock()
	defer n.lifecycle.Unlock()
	n.hold(true)
	n.stop()
}

// hold notes whether the server is stopped on purpose.
func (n *NATS) hold(held bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.held = held
}

// isHeld reports whether the server is stopped on purpose.
func (n *NATS) isHeld() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.held
}

func (n *NATS) stop() {
	n.mu.Lock()
	srv := n.srv
	n.srv = nil
	n.mu.Unlock()
	if srv != nil {
		srv.Shutdown()
		srv.WaitForShutdown()
	}
}

// Start starts a stopped server again, on the same store and, when it listens, the same port.
func (n *NATS) Start(ctx context.Context) error {
	n.lifecycle.Lock()
	defer n.lifecycle.Unlock()
	n.mu.Lock()
	running, closed := n.srv != nil, n.closed
	n.mu.Unlock()
	switch {
	case closed:
		return fmt.Errorf("%w: closed", ErrNotReady)
	case running:
		return nil
	}
	n.hold(false)
	return n.start(ctx)
}

// Restart stops the server and starts it on the same store. What blocks a stream after a write
// error is cleared so: the server reads its files afresh.
func (n *NATS) Restart(ctx context.Context) error {
	n.lifecycle.Lock()
	defer n.lifecycle.Unlock()
	n.hold(false)
	return n.restart(ctx)
}

// mend is the canary's Restart: it leaves a server alone that is stopped on purpose.
func (n *NATS) mend(ctx context.Context) error {
	n.lifecycle.Lock()
	defer n.lifecycle.Unlock()
	if n.isHeld() {
		return fmt.Errorf("%w: stopped", ErrNotReady)
	}
	return n.restart(ctx)
}

func (n *NATS) restart(ctx context.Context) error {
	n.mu.Lock()
	closed := n.closed
	n.restarts++
	n.mu.Unlock()
	if closed {
		return fmt.Errorf("%w: closed", ErrNotReady)
	}
	n.stop()
	return n.start(ctx)
}

// Close stops the canary and the server and gives up the store directory's lock. Close the
// clients before it. A second Close does nothing.
func (n *NATS) Close() error {
	n.mu.Lock()
	closed := n.closed
	n.closed = true
	n.mu.Unlock()
	if closed {
		return nil
	}
	if n.stopCanary != nil {
		n.stopCanary()
		<-n.canaryDone
	}
	n.Stop()
	if err := n.lock.Close(); err != nil {
		return fmt.Errorf("engine: unlock the JetStream store directory: %w", err)
	}
	return nil
}
