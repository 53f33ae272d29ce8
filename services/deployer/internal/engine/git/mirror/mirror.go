package mirror

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"devpilot.io/bitbucket/services/deployer/internal/engine/git/heads"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/lfs"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/program"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/tree"
)

// Limits bound what a repository may cost.
type Limits struct {
	FetchBytes int64         // of one fetch; 5 GiB when zero
	TreeBytes  int64         // of a checked-out tree; 5 GiB when zero
	TreeFiles  int           // of a checked-out tree; 250,000 when zero
	FetchTime  time.Duration // of one fetch; 15 min when zero
	FreeBytes  uint64        // nothing is fetched or written below this free space; 256 MiB when zero
	SpareBytes int64         // a larger tree gets no pristine copy for the next deployment; 1 GiB when zero, none at all when negative
	StallTime  time.Duration // a server may be silent, or as good as silent, for so long; whole seconds, 60 s when zero
}

// WithDefaults fills in what is zero.
func (l Limits) WithDefaults() Limits {
	if l.FetchBytes == 0 {
		l.FetchBytes = 5 << 30
	}
	if l.TreeBytes == 0 {
		l.TreeBytes = 5 << 30
	}
	if l.TreeFiles == 0 {
		l.TreeFiles = 250_000
	}
	if l.SpareBytes == 0 {
		l.SpareBytes = 1 << 30
	}
	if l.FetchTime == 0 {
		l.FetchTime = 15 * time.Minute
	}
	if l.FreeBytes == 0 {
		l.FreeBytes = 256 << 20
	}
	if l.StallTime == 0 {
		l.StallTime = time.Minute
	}
	l.StallTime = max(l.StallTime, time.Second) // git counts in seconds
	return l
}

// Config is what Mirrors needs.
type Config struct {
	Dir      string   // the cache directory
	Site     *url.URL // scheme, host and port of Bitbucket
	Tokens   remote.Tokens
	Limits   Limits
	Logger   *slog.Logger
	Observe  func(operation string, d time.Duration, err error) // may be nil
	FreeDisk func(dir string) (uint64, error)                   // may be nil: not checked
	// CacheBytes is what all mirrors together may take; 20 GiB when zero. After a fetch the mirrors
	// that were not used for longest go until it fits, except those in use.
	CacheBytes int64
}

// Mirrors are the mirrors under one cache directory. It is safe for concurrent use, also by several
// processes.
type Mirrors struct {
	cfg    Config
	git    *program.Git
	lfs    *lfs.Client
	depths []string
	shared *sharedFetches
	heads  *heads.Lister
}

// Open finds the git program and prepares the cache directory.
func Open(cfg Config) (*Mirrors, error) {
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("mirror: %w", err)
	}
	cfg.Dir, cfg.Limits = dir, cfg.Limits.WithDefaults()
	if cfg.CacheBytes == 0 {
		cfg.CacheBytes = 20 << 30
	}
	if cfg.Observe == nil {
		cfg.Observe = func(string, time.Duration, error) {}
	}
	git, err := program.New(program.Config{Home: filepath.Join(dir, "scratch"), Site: cfg.Site, StallTime: cfg.Limits.StallTime, Observe: cfg.Observe})
	if err != nil {
		return nil, err
	}
	m := &Mirrors{
		cfg: cfg, depths: defaultDepths,
		git:   git,
		heads: heads.New(git, cfg.Tokens),
	}
	m.lfs = lfs.New(lfs.Config{Site: cfg.Site, Tokens: cfg.Tokens, Stall: cfg.Limits.StallTime, Temporary: m.temporary(), MostBytes: cfg.Limits.FetchBytes})
	m.shared = newSharedFetches(m.bring)
	if err := m.makeDirectories(); err != nil {
		return nil, err
	}
	return m, m.sweepTemporary()
}

// Heads asks Bitbucket for branches and tags; it needs no mirror (engine/git/heads).
func (m *Mirrors) Heads(ctx context.Context, workspace, fullName string, want remote.Wanted) (remote.Heads, error) {
	return m.heads.Heads(ctx, workspace, fullName, want)
}

// makeDirectories makes what is missing of the cache directory. It is a cache: somebody may remove it
// at any time, and the next deployment makes it anew.
func (m *Mirrors) makeDirectories() error {
	for _, d := range []string{m.git.Home, filepath.Join(m.cfg.Dir, "mirrors"), m.temporary()} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return fmt.Errorf("mirror: make the cache directory: %w", err)
		}
	}
	return nil
}

// temporary is the directory of what is needed for one run only.
func (m *Mirrors) temporary() string { return filepath.Join(m.cfg.Dir, "temporary") }

// Room is how much is free where the mirrors are, and how much of it stays free.
func (m *Mirrors) Room() (free, reserve uint64, err error) {
	if m.cfg.FreeDisk == nil {
		return 0, 0, errors.New("mirror: the disk is not measured")
	}
	free, err = m.cfg.FreeDisk(m.cfg.Dir)
	return free, m.cfg.Limits.FreeBytes, err
}

// disk is the room that fetches and check-outs may take.
func (m *Mirrors) disk() tree.Disk {
	return tree.Disk{Free: m.cfg.FreeDisk, Reserve: m.cfg.Limits.FreeBytes}
}

// sizeOf adds up the files under dir; what vanishes meanwhile counts nothing.
func sizeOf(dir string) int64 {
	var total int64
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				total += info.Size()
			}
		}
		return nil
	})
	return total
}
