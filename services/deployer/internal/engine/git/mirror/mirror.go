package mirror

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/lsrefs"
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

func (l Limits) withDefaults() Limits {
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

// Tokens hands out a workspace's access token for the configured site. rejected is zero, or a token
// that Bitbucket answered 401 for, to be renewed first.
type Tokens interface {
	Token(ctx context.Context, workspace string, rejected seal.Secret) (seal.Secret, error)
}

// Config is what Mirrors needs.
type Config struct {
	Dir      string   // the cache directory
	Site     *url.URL // scheme, host and port of Bitbucket
	Tokens   Tokens
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
	cfg     Config
	git     git
	lfs     *lfsClient
	depths  []string
	flights *flights
	refs    *lsrefs.Client
	// listRefs is byConnection.
	listRefs listRefs
	// headBytes is what git may say about the branches and tags of a repository.
	headBytes int
}

// Open finds the git program and prepares the cache directory.
func Open(cfg Config) (*Mirrors, error) {
	program, err := exec.LookPath("git")
	if err != nil {
		return nil, fmt.Errorf("mirror: the git program is needed: %w", err)
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("mirror: %w", err)
	}
	cfg.Dir, cfg.Limits = dir, cfg.Limits.withDefaults()
	if cfg.CacheBytes == 0 {
		cfg.CacheBytes = 20 << 30
	}
	if cfg.Observe == nil {
		cfg.Observe = func(string, time.Duration, error) {}
	}
	m := &Mirrors{
		cfg: cfg, depths: defaultDepths, headBytes: maxHeads,
		git: git{program: program, site: cfg.Site, scratch: filepath.Join(dir, "scratch"), stall: cfg.Limits.StallTime, observe: cfg.Observe},
		lfs: newLFSClient(cfg.Site, cfg.Limits.StallTime), refs: lsrefs.New(agent, cfg.Limits.StallTime),
	}
	m.listRefs, m.flights = m.byConnection, newFlights(m.bring)
	if err := m.makeDirectories(); err != nil {
		return nil, err
	}
	return m, m.sweepTemporary()
}

// makeDirectories makes what is missing of the cache directory. It is a cache: somebody may remove it
// at any time, and the next deployment makes it anew.
func (m *Mirrors) makeDirectories() error {
	for _, d := range []string{m.git.scratch, filepath.Join(m.cfg.Dir, "mirrors"), m.temporary()} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return fmt.Errorf("mirror: make the cache directory: %w", err)
		}
	}
	return nil
}

// temporary is the directory of what is needed for one run only.
func (m *Mirrors) temporary() string { return filepath.Join(m.cfg.Dir, "temporary") }

// withToken runs fn with the workspace's token. A 401 is reported: fn is run again with what comes of
// it, another token or, because Bitbucket answers 401 now and then for nothing, once with the same.
func (m *Mirrors) withToken(ctx context.Context, workspace string, fn func(seal.Secret) error) error {
	token, err := m.token(ctx, workspace, seal.Secret{})
	if err != nil {
		return err
	}
	for n, same := 1, false; ; n++ {
		if err = fn(token); !errors.Is(err, errRejected) {
			return err
		}
		if same {
			return refusedHere(err)
		}
		if n == maxTokens {
			return err
		}
		next, err := m.token(ctx, workspace, token)
		if err != nil {
			return err
		}
		same, token = next.Equal(token), next
	}
}

func (m *Mirrors) token(ctx context.Context, workspace string, rejected seal.Secret) (seal.Secret, error) {
	token, err := m.cfg.Tokens.Token(ctx, workspace, rejected)
	if err == nil {
		return token, nil
	}
	if ctx.Err() != nil {
		return seal.Secret{}, err
	}
	e := apierr.From(err)
	return seal.Secret{}, &Error{Reason: string(e.Reason()), Message: e.Message(), Temporary: true, RetryAfter: e.RetryAfter(), Err: err}
}

func (m *Mirrors) checkDisk(dir string) error {
	if m.cfg.FreeDisk == nil {
		return nil
	}
	free, err := m.cfg.FreeDisk(dir)
	if err != nil {
		return err
	}
	if free < m.cfg.Limits.FreeBytes {
		return &Error{Reason: ReasonDiskFull, Temporary: true, Message: fmt.Sprintf("The server's disk has %d MiB left, less than its reserve. Make room; the deployment then goes on by itself.", free>>20)}
	}
	return nil
}

// explain turns a failed run into an *Error where its cause is known.
func (m *Mirrors) explain(fullName string, err error) error {
	if errors.Is(err, errOutput) {
		return &Error{Reason: string(apierr.ReasonBitbucketUnavailable), Temporary: true, Message: "The git server answered with more than was asked for.", Err: err}
	}
	var f *failure
	if err == nil || !errors.As(err, &f) {
		return err
	}
	if e := ownTrouble(f); e != nil {
		return e
	}
	if unreadable.MatchString(ownWords(f.stderr)) {
		return errors.Join(ErrDamaged, err)
	}
	if e := classify(fullName, f.stderr, f); e != nil {
		if errors.Is(e, errRejected) && !f.asked {
			// The server wanted a credential and git never asked us for one: not this site.
			return &Error{Reason: ReasonGitFailed, Message: "The git server asked for a credential under another address than the configured site.", Err: err}
		}
		e.About = fullName
		if e.Reason == string(apierr.ReasonBitbucketRateLimited) || e.Reason == string(apierr.ReasonBitbucketUnavailable) {
			e.RetryAfter = f.wait
		}
		return e
	}
	return err
}

func validHash(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 20
}

// validCommit tells whether s is a commit's full hash as git writes it.
func validCommit(s string) bool { return validHash(s) && strings.ToLower(s) == s }

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
