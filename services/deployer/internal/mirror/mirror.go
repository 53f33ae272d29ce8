package mirror

import (
	"context"
	"crypto/sha256"
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
)

// Limits bound what a repository may cost.
type Limits struct {
	FetchBytes int64         // of one fetch; 5 GiB when zero
	TreeBytes  int64         // of a checked-out tree; 5 GiB when zero
	TreeFiles  int           // of a checked-out tree; 250,000 when zero
	FetchTime  time.Duration // of one fetch; 15 min when zero
	FreeBytes  uint64        // nothing is fetched or written below this free space; 256 MiB when zero
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
	if l.FetchTime == 0 {
		l.FetchTime = 15 * time.Minute
	}
	if l.FreeBytes == 0 {
		l.FreeBytes = 256 << 20
	}
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
}

// Mirrors are the mirrors under one cache directory. It is safe for concurrent use, also by several
// processes.
type Mirrors struct {
	cfg Config
	git git
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
	scratch := filepath.Join(dir, "scratch")
	for _, d := range []string{scratch, filepath.Join(dir, "mirrors")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("mirror: %w", err)
		}
	}
	if cfg.Observe == nil {
		cfg.Observe = func(string, time.Duration, error) {}
	}
	return &Mirrors{cfg: cfg, git: git{program: program, site: cfg.Site, scratch: scratch, observe: cfg.Observe}}, nil
}

// Source names a branch of a repository.
type Source struct {
	Workspace  string
	Repository string // id
	FullName   string
	Branch     string
}

// Fetch brings the branch's head into the mirror and returns it. The snapshot keeps the mirror from
// being thrown away: close it. Errors that concern the repository are *Error.
func (m *Mirrors) Fetch(ctx context.Context, src Source) (*Snapshot, error) {
	remote, err := cloneURL(m.cfg.Site, src.FullName)
	if err != nil {
		return nil, &Error{Reason: string(apierr.ReasonRepositoryNotFound), Message: "The repository's name is not one that Bitbucket gives.", Err: err}
	}
	if !ValidBranch(src.Branch) {
		return nil, &Error{Reason: string(apierr.ReasonBranchNotFound), Message: fmt.Sprintf("%q cannot be the name of a branch.", src.Branch)}
	}
	if err := m.checkDisk(m.cfg.Dir); err != nil {
		return nil, err
	}
	r, err := m.openRepository(ctx, src.Workspace, src.Repository)
	if err != nil {
		return nil, err
	}
	defer r.close()
	ref := refOf(src.Branch)
	fetch := func(token seal.Secret) error { return m.fetch(ctx, r, remote, src, ref, token) }
	if err := m.withToken(ctx, src.Workspace, fetch); err != nil {
		if explained(err) || ctx.Err() != nil {
			return nil, err
		}
		// Nothing that Bitbucket or the network did explains it: the mirror itself may be damaged.
		m.cfg.Logger.WarnContext(ctx, "fetch failed without a known cause, mirror is made anew", "repository", src.Repository, "err", err)
		if err := r.discard(ctx); err != nil {
			return nil, err
		}
		if err := r.prepare(ctx); err != nil {
			return nil, err
		}
		if err := m.withToken(ctx, src.Workspace, fetch); err != nil {
			if explained(err) || ctx.Err() != nil {
				return nil, err
			}
			return nil, &Error{Reason: ReasonGitFailed, Message: "git could not fetch the repository: " + lastLine(err), Err: err}
		}
	}
	return m.snapshot(ctx, r, ref)
}

func explained(err error) bool {
	var e *Error
	return errors.As(err, &e)
}

// lastLine is git's last word, for people.
func lastLine(err error) string {
	var f *failure
	if !errors.As(err, &f) {
		return "see the service's log."
	}
	lines := strings.Split(strings.TrimSpace(f.stderr), "\n")
	return lines[len(lines)-1]
}

// withToken runs fn with the workspace's token, and once more with a renewed one when Bitbucket
// rejects it (bitbucket.md section 8: on 401 refresh once, retry once).
func (m *Mirrors) withToken(ctx context.Context, workspace string, fn func(seal.Secret) error) error {
	token, err := m.token(ctx, workspace, seal.Secret{})
	if err != nil {
		return err
	}
	err = fn(token)
	if !errors.Is(err, errRejected) {
		return err
	}
	renewed, terr := m.token(ctx, workspace, token)
	if terr != nil {
		return terr
	}
	return fn(renewed)
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

// fetch runs git fetch of one branch, one commit deep, into a ref named after the branch's hash:
// branch names nest, refs of mirrors must not.
func (m *Mirrors) fetch(ctx context.Context, r *repository, remote string, src Source, ref string, token seal.Secret) error {
	ctx, cancel := context.WithTimeoutCause(ctx, m.cfg.Limits.FetchTime, &Error{
		Reason: string(apierr.ReasonBitbucketUnavailable), Temporary: true,
		Message: fmt.Sprintf("Fetching took longer than %v.", m.cfg.Limits.FetchTime),
	})
	defer cancel()
	base := sizeOf(r.git)
	err := m.git.run(ctx, command{
		operation: "fetch", gitDir: r.git, token: token, every: 100 * time.Millisecond,
		watch: func() error { return m.watchFetch(r.git, base) },
		args: []string{
			"fetch", "--quiet", "--depth=1", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance", "--no-recurse-submodules",
			"--no-show-forced-updates", "--refmap=", "--", remote, "+refs/heads/" + src.Branch + ":" + ref,
		},
	})
	return m.explain(src.FullName, err)
}

// watchFetch stops a fetch that grows beyond the limit or eats the disk's reserve.
func (m *Mirrors) watchFetch(dir string, base int64) error {
	if sizeOf(dir)-base > m.cfg.Limits.FetchBytes {
		return &Error{Reason: ReasonRepositoryTooLarge, Message: fmt.Sprintf("The repository is larger than the %d MiB that a fetch may bring.", m.cfg.Limits.FetchBytes>>20)}
	}
	return m.checkDisk(dir)
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
	var f *failure
	if err == nil || !errors.As(err, &f) {
		return err
	}
	if e := classify(fullName, f.stderr, f); e != nil {
		if errors.Is(e, errRejected) && !f.asked {
			// The server wanted a credential and git never asked us for one: not this site.
			return &Error{Reason: ReasonGitFailed, Message: "The git server asked for a credential under another address than the configured site.", Err: err}
		}
		return e
	}
	return err
}

// IsGone tells that the repository could not be reached under its name: it may have been renamed.
func IsGone(err error) bool { return errors.Is(err, errGone) }

// Heads asks Bitbucket for the heads of some branches; those that do not exist are left out.
func (m *Mirrors) Heads(ctx context.Context, workspace, fullName string, branches []string) (map[string]string, error) {
	remote, err := cloneURL(m.cfg.Site, fullName)
	if err != nil {
		return nil, &Error{Reason: string(apierr.ReasonRepositoryNotFound), Message: "The repository's name is not one that Bitbucket gives.", Err: err}
	}
	wanted := map[string]string{}
	args := []string{"ls-remote", "--quiet", "--", remote}
	for _, b := range branches {
		if ValidBranch(b) {
			wanted["refs/heads/"+b] = b
			args = append(args, "refs/heads/"+b)
		}
	}
	heads := map[string]string{}
	if len(wanted) == 0 {
		return heads, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, &Error{Reason: string(apierr.ReasonBitbucketUnavailable), Temporary: true, Message: "Bitbucket took longer than a minute to list branches."})
	defer cancel()
	err = m.withToken(ctx, workspace, func(token seal.Secret) error {
		out, err := m.git.output(ctx, command{operation: "ls-remote", token: token, args: args})
		if err != nil {
			return m.explain(fullName, err)
		}
		clear(heads)
		for line := range strings.Lines(out) {
			hash, ref, _ := strings.Cut(strings.TrimSpace(line), "\t")
			// A pattern also matches refs/heads/x/refs/heads/<branch>.
			if b, ok := wanted[ref]; ok && validHash(hash) {
				heads[b] = hash
			}
		}
		return nil
	})
	return heads, err
}

func refOf(branch string) string {
	sum := sha256.Sum256([]byte(branch))
	return "refs/devpilot/" + hex.EncodeToString(sum[:16])
}

func validHash(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 20
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
