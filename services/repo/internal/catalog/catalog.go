package catalog

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/services/repo/internal/account"
)

// Accounts opens a workspace's connection to Bitbucket. Its errors are public: NOT_CONNECTED,
// RECONNECT_REQUIRED and so on.
type Accounts interface {
	Open(ctx context.Context, workspace string) (*account.Connection, error)
}

// Store shares snapshots between replicas. It may forget anything at any time and be away: Newer
// then finds nothing, Once runs its work, and the others return errors, which make answers slower and no worse.
type Store interface {
	// Newer returns the snapshot of a connection if it was fetched after have.
	Newer(ctx context.Context, workspace, connection string, have time.Time) (*Snapshot, bool)
	Save(ctx context.Context, workspace string, s *Snapshot) error
	Drop(ctx context.Context, workspace string) error
	// AllowRefresh lets one refresh through per interval and tells the others how long to wait.
	AllowRefresh(ctx context.Context, workspace, connection string, interval time.Duration) (wait time.Duration, err error)
	// Once runs work in one replica at a time; the others return what cached finds afterwards.
	Once(ctx context.Context, workspace string, cached func(context.Context) (*Snapshot, bool), work func(context.Context) (*Snapshot, error)) (*Snapshot, error)
}

// Answers shares answers of a few seconds between replicas. Losing them costs a call.
type Answers interface {
	Get(ctx context.Context, question string, into any) bool
	Put(ctx context.Context, question string, answer any, life time.Duration)
}

// The times of DESIGN.md#listing.
const (
	revalidateAfter = 30 * time.Second
	refreshInterval = time.Minute
	answerLife      = 5 * time.Second
)

// fetchLimit bounds one walk. It goes on when its caller has gone.
const fetchLimit = 2 * time.Minute

// Config is what a catalog needs. All but Registerer is required.
type Config struct {
	Accounts Accounts
	Store    interface {
		Store
		Answers
	}
	Site       bitbucket.Site
	Parallel   int // requests of one listing in flight at most
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	Now        func() time.Time
}

// Catalog answers questions about repositories, branches, tags and commits. It is safe for concurrent use.
type Catalog struct {
	accounts Accounts
	store    Store
	site     bitbucket.Site
	parallel int
	log      *slog.Logger
	now      func() time.Time
	metrics  *metrics

	tasks    *tasks
	memory   *memory
	fetches  *group[*Snapshot]
	walks    sync.Map // fetchKey → *walk of the fetch that runs here
	refresh  *localRefresh
	lookups  *shared[Repository]
	branches *shared[branchList]
	files    *shared[[]string]
	commits  *shared[CommitPage]
}

// New makes a catalog. It does no I/O; Close ends what it runs in the background.
func New(cfg Config) *Catalog {
	t := newTasks(fetchLimit)
	return &Catalog{
		accounts: cfg.Accounts, store: cfg.Store, site: cfg.Site, parallel: cfg.Parallel, log: cfg.Logger, now: cfg.Now,
		metrics: newMetrics(cfg.Registerer),
		tasks:   t, memory: newMemory(maxRemembered), fetches: newGroup[*Snapshot](t), refresh: newLocalRefresh(cfg.Now),
		lookups:  newShared[Repository](t, cfg.Store, cfg.Now),
		branches: newShared[branchList](t, cfg.Store, cfg.Now),
		files:    newShared[[]string](t, cfg.Store, cfg.Now),
		commits:  newShared[CommitPage](t, cfg.Store, cfg.Now),
	}
}

// Close cancels what runs in the background and waits for it.
func (c *Catalog) Close() { c.tasks.close() }

// open opens the workspace's connection. A workspace that is not connected any more loses its
// snapshot.
func (c *Catalog) open(ctx context.Context, workspace string) (*account.Connection, error) {
	conn, err := c.accounts.Open(ctx, workspace)
	if apierr.Has(err, apierr.ReasonNotConnected) {
		c.forget(ctx, workspace)
	}
	return conn, err
}
