package emulator

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Emulator is one Bitbucket. Make it with New, serve Handler under Options.SiteURL, and Close it.
type Emulator struct {
	opts    Options
	site    *url.URL
	tempDir string // removed by Close; empty if the caller named the directory
	store   *store
	git     *gitStore
	handler http.Handler
	table   routes // of handler, for faults

	faults     faultSet
	journal    journal
	limiter    limiter
	deliveries *deliveryEngine

	// mu guards what follows. It is never held while a process runs or a peer is waited for.
	mu       sync.RWMutex
	st       *state
	switches Switches
	consumer Consumer
	advanced time.Duration
}

// New opens the state in Options.DataDir, seeds the scenario if it was not seeded before, and starts the delivery
// engine. It needs the git program.
func New(opts Options) (*Emulator, error) {
	site, err := opts.check()
	if err != nil {
		return nil, err
	}
	e := &Emulator{opts: opts, site: site, consumer: opts.Consumer}
	if opts.DataDir == "" {
		if e.tempDir, err = os.MkdirTemp("", "bitbucket-emulator-"); err != nil {
			return nil, fmt.Errorf("emulator: temporary directory: %w", err)
		}
		e.opts.DataDir = e.tempDir
	}
	if err := e.openState(); err != nil {
		return nil, errors.Join(err, e.removeTemp())
	}
	e.deliveries = newDeliveryEngine(e)
	e.handler = e.newHandler()
	return e, nil
}

func (e *Emulator) openState() error {
	if err := os.MkdirAll(e.opts.DataDir, 0o700); err != nil {
		return fmt.Errorf("emulator: data directory: %w", err)
	}
	scenario, err := scenarioByName(e.opts.Scenario)
	if err != nil {
		return err
	}
	e.switches = Switches{Tokens: e.opts.Tokens, HookURLs: "public"}
	if isLoopbackHost(e.site.Hostname()) {
		e.switches.HookURLs = "loopback"
	}
	scenario.adjust(&e.switches)
	if e.git, err = newGitStore(filepath.Join(e.opts.DataDir, "git"), e.opts.Logger); err != nil {
		return err
	}
	if e.store, err = openStore(e.opts.DataDir); err != nil {
		return err
	}
	if e.st, err = loadState(e.store, e.now(), e.switches.Tokens.IdleExpiry); err == nil {
		err = e.seed(scenario)
	}
	if err != nil {
		return errors.Join(err, e.store.close())
	}
	return nil
}

// Handler serves everything: pages, OAuth, API, git and, for loopback peers only, the control API.
// A server in front of it must allow request headers of 64 KiB (net/http's default is more).
func (e *Emulator) Handler() http.Handler { return e.handler }

// SiteURL is the origin given in Options; APIURL is the base of the REST API, SiteURL + "/2.0".
func (e *Emulator) SiteURL() string { return e.opts.SiteURL }

// APIURL is the base of the REST API.
func (e *Emulator) APIURL() string { return e.opts.SiteURL + "/2.0" }

// Close stops deliveries (those under way are cancelled), waits for all goroutines and closes the state file.
// The caller stops its HTTP server first.
func (e *Emulator) Close() error {
	e.deliveries.close()
	err := e.store.close()
	if transport, ok := e.opts.DeliveryTransport.(*http.Transport); ok {
		transport.CloseIdleConnections()
	}
	return errors.Join(err, e.removeTemp())
}

func (e *Emulator) removeTemp() error {
	if e.tempDir == "" {
		return nil
	}
	return os.RemoveAll(e.tempDir)
}

// now is the emulator's clock: Options.Now plus what Control.AdvanceClock added.
func (e *Emulator) now() time.Time {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.nowLocked()
}

func (e *Emulator) nowLocked() time.Time { return e.opts.Now().Add(e.advanced).UTC() }

func (e *Emulator) currentSwitches() Switches {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.switches
}

// Inject makes matching requests or deliveries fail as described; see Fault. It returns the id for Control.RemoveFault.
// It panics on a fault that cannot be: an unknown Kind, or one whose Repository does not exist.
func (e *Emulator) Inject(fault Fault) string {
	id, err := e.inject(context.Background(), fault)
	if err != nil {
		panic(fmt.Sprintf("emulator: inject: %v", err))
	}
	return id
}

// Server is an Emulator with a listener of its own.
type Server struct {
	*Emulator
	http *http.Server
	done chan error
}

// Start listens on addr ("127.0.0.1:0" in tests), fills an empty Options.SiteURL from the bound address, and serves.
func Start(addr string, opts Options) (*Server, error) {
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("emulator: listen on %s: %w", addr, err)
	}
	if opts.SiteURL == "" {
		opts.SiteURL = "http://" + listener.Addr().String()
	}
	e, err := New(opts)
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	s := &Server{Emulator: e, done: make(chan error, 1), http: &http.Server{
		Handler: e.Handler(), ReadHeaderTimeout: 30 * time.Second, MaxHeaderBytes: 1 << 20,
	}}
	go func() { s.done <- s.http.Serve(listener) }()
	return s, nil
}

// Done receives the error that ended serving, once.
func (s *Server) Done() <-chan error { return s.done }

// Close lets requests end for up to 5 s, then cuts them, and closes the emulator.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = s.http.Close()
	}
	return errors.Join(err, s.Emulator.Close())
}
