package mirror

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/program"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
)

// maxPacks is how many packs a mirror gathers before they are packed into one.
const maxPacks = 40

// repository is one mirror, held for writing.
type repository struct {
	m     *Mirrors
	dir   string
	git   string // the bare repository
	write *os.File
}

// openRepository takes the mirror for writing, and makes it usable: made if missing, stale locks of
// a dead process removed.
func (m *Mirrors) openRepository(ctx context.Context, workspace, id string) (*repository, error) {
	dir := m.dirOf(workspace, id)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("mirror: %w", err)
	}
	write, err := lockFile(ctx, filepath.Join(dir, "write.lock"), unix.LOCK_EX)
	if err != nil {
		return nil, err
	}
	r := &repository{m: m, dir: dir, git: filepath.Join(dir, "git"), write: write}
	if err := r.prepare(ctx); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func (m *Mirrors) dirOf(workspace, id string) string {
	return filepath.Join(m.cfg.Dir, "mirrors", filepath.Base(workspace), filepath.Base(id))
}

func (r *repository) close() { _ = r.write.Close() }

// prepare makes the bare repository if there is none that git takes for one.
func (r *repository) prepare(ctx context.Context) error {
	if err := r.dropStaleLocks(); err != nil {
		return err
	}
	if r.usable() {
		return r.tidy(ctx)
	}
	if err := r.discard(ctx); err != nil {
		return err
	}
	fresh := r.git + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return fmt.Errorf("mirror: %w", err)
	}
	if err := r.m.git.InitBare(ctx, fresh); err != nil {
		return err
	}
	if err := os.Rename(fresh, r.git); err != nil {
		return fmt.Errorf("mirror: %w", err)
	}
	return nil
}

// usable looks for what git itself looks for in a repository.
func (r *repository) usable() bool {
	for _, name := range []string{"HEAD", "config"} {
		if b, err := os.ReadFile(filepath.Join(r.git, name)); err != nil || len(b) == 0 {
			return false
		}
	}
	for _, name := range []string{"objects", "refs"} {
		if info, err := os.Stat(filepath.Join(r.git, name)); err != nil || !info.IsDir() {
			return false
		}
	}
	return true
}

// dropStaleLocks removes lock files and half-received packs. We hold the mirror's own lock, so that
// whoever made them is dead.
func (r *repository) dropStaleLocks() error {
	err := filepath.WalkDir(r.git, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		switch {
		case d.IsDir() && strings.HasPrefix(name, "tmp_objdir-"):
			if err := os.RemoveAll(path); err != nil {
				return err
			}
			return filepath.SkipDir
		case !d.IsDir() && (strings.HasSuffix(name, ".lock") || strings.HasPrefix(name, "tmp_") || strings.HasPrefix(name, "shallow_")):
			return os.Remove(path)
		}
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("mirror: remove stale locks: %w", err)
	}
	return nil
}

// tidy packs a mirror that gathered many packs: the small ones into one, which disturbs no reader.
// When that has doubled what the mirror took after it was last packed as a whole, all is packed
// anew, without what no branch needs any more, if nobody is reading just then.
func (r *repository) tidy(ctx context.Context) error {
	packs, err := filepath.Glob(filepath.Join(r.git, "objects", "pack", "*.pack"))
	if err != nil || len(packs) <= maxPacks {
		return err
	}
	err = r.m.git.Run(ctx, program.Command{Operation: "repack", GitDir: r.git, Args: []string{"repack", "--geometric=2", "-d", "-q"}})
	if size := sizeOf(filepath.Join(r.git, "objects")); err == nil && size > 2*max(r.packedSize(), leastRepack) {
		err = r.repack(ctx)
	}
	if err != nil && ctx.Err() == nil {
		// Whatever keeps git from packing it, a fresh mirror has none of it.
		r.m.cfg.Logger.WarnContext(ctx, "mirror could not be packed, it is made anew", slog.String(logs.KeyPath, r.git), logs.Err(err))
		return os.RemoveAll(filepath.Join(r.git, "HEAD"))
	}
	return err
}

// repack packs all that refs, and their logs of the last 30 days, lead to. The rest goes, and
// nobody may be reading it.
func (r *repository) repack(ctx context.Context) error {
	alone, err := tryLock(filepath.Join(r.dir, "use.lock"))
	if alone == nil || err != nil {
		return err
	}
	defer func() { _ = alone.Close() }()
	if err := r.m.git.DeleteRefs(ctx, r.git, commitRefs); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"reflog", "expire", "--all", "--expire=30.days.ago", "--expire-unreachable=30.days.ago"},
		{"repack", "-a", "-d", "-q"},
		{"prune", "--expire=now"},
	} {
		if err := r.m.git.Run(ctx, program.Command{Operation: args[0], GitDir: r.git, Args: args}); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(r.git, packedFile), []byte(strconv.FormatInt(sizeOf(filepath.Join(r.git, "objects")), 10)), 0o600)
}

// leastRepack is what a mirror may grow to before packing it as a whole is worth the while;
// packedFile holds its size when that was last done.
const (
	leastRepack = 64 << 20
	packedFile  = "devpilot-packed"
)

func (r *repository) packedSize() int64 {
	b, err := os.ReadFile(filepath.Join(r.git, packedFile))
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(string(b), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// discard throws the mirror away, once nobody reads it. It does not wait for readers for ever:
// one of them may be the caller, by way of a submodule.
func (r *repository) discard(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readersWait, &remote.Error{
		Reason: remote.ReasonGitFailed, Temporary: true, Message: "The repository's mirror has to be made anew, and another deployment is still reading it.",
	})
	defer cancel()
	alone, err := lockFile(ctx, filepath.Join(r.dir, "use.lock"), unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer func() { _ = alone.Close() }()
	if err := os.RemoveAll(r.git); err != nil {
		return fmt.Errorf("mirror: throw away: %w", err)
	}
	return nil
}

const readersWait = 2 * time.Minute // for readers to leave a mirror that is removed

// Discard throws a mirror away that was found damaged. The next fetch makes it anew.
func (m *Mirrors) Discard(ctx context.Context, workspace, id string) error {
	m.shared.discard(workspace, id)
	dir := m.dirOf(workspace, id)
	write, err := lockFile(ctx, filepath.Join(dir, "write.lock"), unix.LOCK_EX)
	if err != nil {
		return err
	}
	r := &repository{m: m, dir: dir, git: filepath.Join(dir, "git"), write: write}
	defer r.close()
	return r.discard(ctx)
}

// tryLock takes a lock alone if nobody else has it; nil and no error otherwise.
func tryLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("mirror: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return f, nil
	}
	_ = f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, unix.EINTR) {
		return nil, nil
	}
	return nil, fmt.Errorf("mirror: lock %s: %w", path, err)
}

// lockFile takes a lock on a file of its own, waiting until ctx is done.
func lockFile(ctx context.Context, path string, how int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("mirror: %w", err)
	}
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(fmt.Errorf("mirror: lock %s: %w", path, err), f.Close())
		}
		t := time.NewTimer(20 * time.Millisecond)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil, errors.Join(fmt.Errorf("mirror: lock %s: %w", path, context.Cause(ctx)), f.Close())
		case <-t.C:
		}
	}
}
