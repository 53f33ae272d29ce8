package deployer

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"time"

	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/mirror"
	"devpilot.io/bitbucket/services/deployer/internal/engine/hosting"
	"devpilot.io/bitbucket/services/deployer/internal/record/deploylog"
	"devpilot.io/bitbucket/services/deployer/internal/worker"
	"devpilot.io/bitbucket/services/deployer/internal/worker/pipeline"
)

// Config is what an operator sets, and below that what tests make smaller.
type Config struct {
	// SiteURL and APIURL are the Bitbucket that tokens may be sent to.
	SiteURL, APIURL string
	// ClientID is the OAuth consumer's: all who use it share a budget of calls.
	ClientID string
	// API and Worker are the roles of this process; at least one.
	API, Worker bool
	// Server is the server that a worker serves from DataDir, with Slots deployments at a time.
	Server  string
	Slots   int
	DataDir string
	// CacheDir holds mirrors; one per process, or shared by processes of one machine.
	CacheDir string
	// CacheBytes is what the mirrors may take together; 20 GiB when zero.
	CacheBytes int64
	// PublicURL is where people reach the console: commit statuses link there. Empty: none are sent.
	PublicURL string
	// LiveURL is the address below which releases have their host names; empty where none are served.
	LiveURL string
	// LiveAddress is where workers of other servers reach Deps.Live, host:port; that of Deps.Live when
	// empty.
	LiveAddress string
	// Hooks say how deployment hooks run.
	Hooks Hooks
	// Version of the program, for the list of workers.
	Version string

	// ReconcileInterval is the least pause between two polls of a repository, ReconcileGrace how
	// long a delivery may be on its way; 30 s and 60 s when zero.
	ReconcileInterval, ReconcileGrace time.Duration
	// Lease is how long a silent worker keeps its wake-up; 30 s when zero.
	Lease time.Duration
	// DeploymentTimeout bounds one attempt of a deployment; 3 h when zero.
	DeploymentTimeout time.Duration
	// DecisionTimeout bounds what git is asked about an app's pushes before they deploy without its
	// answer; 15 s when zero.
	DecisionTimeout time.Duration
	// DrainTimeout is how long running deployments may go on when the process stops; 20 s when
	// zero. Then they go back to waiting.
	DrainTimeout time.Duration
	// Heartbeat is the pause between heartbeats of a followed log; 15 s when zero.
	Heartbeat time.Duration
	// Doubt is how long "not found", and what git cannot explain, come again before they are believed;
	// 3 min when zero.
	Doubt time.Duration
	// RetryBackoff replaces the pause after the nth temporary failure in a row.
	RetryBackoff func(failures int32, reason string) time.Duration
	// Limits bound repositories, LogLimits logs.
	Limits    mirror.Limits
	LogLimits deploylog.Limits
}

// mostBackoff is the longest pause of a deployment that waits for something to answer.
const mostBackoff = 30 * time.Second

func (c Config) backoff() func(failures int32, reason string) time.Duration {
	if c.RetryBackoff != nil {
		return c.RetryBackoff
	}
	return pipeline.DefaultBackoff(min(cmp.Or(c.ReconcileInterval, mostBackoff), mostBackoff))
}

// Hooks say how a worker runs deployment hooks.
type Hooks = worker.Hooks

// check returns the site's address for git.
func (c Config) check() (bitbucket.Site, *url.URL, error) {
	switch {
	case c.SiteURL == "" || c.APIURL == "":
		return bitbucket.Site{}, nil, errors.New("deployer: Config.SiteURL or Config.APIURL is missing")
	case !c.API && !c.Worker:
		return bitbucket.Site{}, nil, errors.New("deployer: Config has no role: api, worker or both")
	case c.CacheDir == "":
		return bitbucket.Site{}, nil, errors.New("deployer: Config.CacheDir is missing")
	case c.Worker && (c.Server == "" || c.DataDir == "" || c.Slots < 1):
		return bitbucket.Site{}, nil, errors.New("deployer: a worker needs Config.Server, Config.DataDir and Config.Slots")
	}
	if c.LiveAddress != "" {
		if err := hosting.CheckAddress(c.LiveAddress); err != nil {
			return bitbucket.Site{}, nil, fmt.Errorf("deployer: --live-advertise (DEVPILOT_LIVE_ADVERTISE) must be like 10.0.0.7:8083: %w", err)
		}
	}
	site, err := bitbucket.NewSite(c.SiteURL, c.APIURL)
	if err != nil {
		return bitbucket.Site{}, nil, fmt.Errorf("deployer: %w", err)
	}
	u, err := url.Parse(site.SiteURL)
	if err != nil {
		return bitbucket.Site{}, nil, fmt.Errorf("deployer: %w", err)
	}
	return site, u, nil
}

// parseLive reads the base of the releases' addresses.
func parseLive(s string) (*url.URL, error) {
	if s == "" {
		return nil, nil
	}
	u, err := url.Parse(s)
	if err != nil {
		return nil, fmt.Errorf("deployer: Config.LiveURL: %w", err)
	}
	if _, err := hosting.CheckHost(u.Hostname(), ""); err != nil {
		return nil, fmt.Errorf("deployer: Config.LiveURL: %w", err)
	}
	return u, nil
}
