package worker

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"devpilot.io/bitbucket/pkg/httpserver"
	"devpilot.io/bitbucket/pkg/transport"
	"devpilot.io/bitbucket/services/deployer/internal/engine/hosting"
	"devpilot.io/bitbucket/services/deployer/internal/engine/release"
	"devpilot.io/bitbucket/services/deployer/internal/worker/sites"
)

// FrontConfig is what a Front needs.
type FrontConfig struct {
	// DataDir is the data directory of Server.
	DataDir, Server string
	// LiveBase is the address below which releases have their host names, and Live where they are
	// served; none are where one of them is nil.
	LiveBase *url.URL
	Live     net.Listener
	// LiveAddress is where workers of other servers reach Live; that of Live itself when empty.
	LiveAddress string
	// Certificate is shown to workers of other servers; nil: nothing is encrypted between them.
	Certificate *transport.Certificate

	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Front is what a worker has on disk, and serves from there. It needs no store: it answers visitors
// before the stores are open.
type Front struct {
	cfg      FrontConfig
	releases *release.Store
	sites    *sites.Registry
}

// OpenFront opens the data directory.
func OpenFront(ctx context.Context, cfg FrontConfig) (*Front, error) {
	if cfg.LiveAddress == "" && cfg.Live != nil && cfg.LiveBase != nil {
		var err error
		if cfg.LiveAddress, err = hosting.AddressOf(cfg.Live.Addr()); err != nil {
			return nil, fmt.Errorf("where other workers reach the releases that are served here: %w; set --live-advertise (DEVPILOT_LIVE_ADVERTISE)", err)
		}
	}
	releases, err := release.Open(ctx, cfg.DataDir, cfg.Server)
	if err != nil {
		return nil, err
	}
	return &Front{cfg: cfg, releases: releases, sites: sites.New(releases, cfg.Server, cfg.Logger)}, nil
}

// address is what is announced to workers of other servers.
func (f *Front) address() string {
	if !f.serves() {
		return ""
	}
	return f.cfg.LiveAddress
}

// Close lets the data directory go.
func (f *Front) Close() error { return f.releases.Close() }

func (f *Front) serves() bool { return f.cfg.Live != nil && f.cfg.LiveBase != nil }

// announce is pipeline.Config.Announce.
func (f *Front) announce() func(ctx context.Context, workspace, app string, epoch, generation int64, r release.SiteRelease) error {
	if !f.serves() {
		return nil
	}
	return f.releases.Announce
}

// Run serves releases until ctx is done.
func (f *Front) Run(ctx context.Context) error {
	if !f.serves() {
		return nil
	}
	host, err := hosting.CheckHost(f.cfg.LiveBase.Hostname(), "")
	if err != nil {
		return err
	}
	server, err := hosting.New(hosting.Config{Sites: f.sites, Host: host, Server: f.cfg.Server, Addresses: f.sites.Addresses, Certificate: f.cfg.Certificate, Logger: f.cfg.Logger, Registerer: f.cfg.Registerer})
	if err != nil {
		return err
	}
	web := httpserver.Bound(server.HTTPServer(), httpserver.Share(0.2))
	stopped := context.AfterFunc(ctx, func() {
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = web.Stop(stop) // visitors that were cut come again
	})
	defer stopped()
	return web.Serve(server.Listener(f.cfg.Live))
}
