package mirror

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/lfs"
)

// usedFile stands beside each mirror: its time is the last use, its content the mirror's size in
// bytes then. So the least recently used ones are found without walking through any.
const usedFile = "used"

// used writes down that a mirror is used now, and makes room if all of them have grown too large.
// The caller has the mirror in use. It never fails a deployment.
func (m *Mirrors) used(ctx context.Context, dir string) {
	size := sizeOf(filepath.Join(dir, "git")) + sizeOf(lfsOf(dir))
	var err error
	if size > m.cfg.CacheBytes {
		var freed int64
		freed, err = lfs.Prune(lfsOf(dir), size-m.cfg.CacheBytes)
		size -= freed
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, usedFile), []byte(strconv.FormatInt(size, 10)), 0o600)
	}
	if err == nil {
		err = m.evict(ctx, dir)
	}
	if err != nil && ctx.Err() == nil {
		m.cfg.Logger.WarnContext(ctx, "cache of mirrors could not be trimmed", logs.Err(err))
	}
}

// stored is one mirror of the cache.
type stored struct {
	dir  string
	used time.Time
	size int64
}

// evict removes mirrors, the least recently used first, until all of them fit. Those that are in
// use stay, and so does keep. Of several processes that share the directory, one does it at a time;
// the others need not wait.
func (m *Mirrors) evict(ctx context.Context, keep string) error {
	if _, total, err := m.stored(); err != nil || total <= m.cfg.CacheBytes {
		return err
	}
	alone, err := tryLock(filepath.Join(m.cfg.Dir, "evict.lock"))
	if alone == nil || err != nil {
		return err
	}
	defer func() { _ = alone.Close() }()
	all, total, err := m.stored() // another may have made room meanwhile
	if err != nil {
		return err
	}
	slices.SortFunc(all, func(a, b stored) int { return a.used.Compare(b.used) })
	for _, s := range all {
		if total <= m.cfg.CacheBytes || ctx.Err() != nil {
			break
		}
		if s.dir == keep {
			continue
		}
		removed, err := s.remove()
		if err != nil {
			return err
		}
		if removed {
			total -= s.size
			m.cfg.Logger.InfoContext(ctx, "mirror removed to make room", "path", s.dir, "bytes", s.size, "last_use", s.used)
		}
	}
	return nil
}

// stored lists the mirrors and adds up their sizes.
func (m *Mirrors) stored() ([]stored, int64, error) {
	files, err := filepath.Glob(filepath.Join(m.cfg.Dir, "mirrors", "*", "*", usedFile))
	if err != nil {
		return nil, 0, fmt.Errorf("mirror: %w", err)
	}
	var all []stored
	var total int64
	for _, file := range files {
		info, err := os.Stat(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, 0, fmt.Errorf("mirror: %w", err)
		}
		b, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, 0, fmt.Errorf("mirror: %w", err)
		}
		size, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
		if err != nil { // a process died over it
			size = sizeOf(filepath.Dir(file))
		}
		all = append(all, stored{dir: filepath.Dir(file), used: info.ModTime(), size: size})
		total += size
	}
	return all, total, nil
}

// remove removes a mirror unless somebody writes or reads it. The lock files stay: who waits for
// one of them would otherwise hold a lock that nobody else can see.
func (s stored) remove() (bool, error) {
	write, err := tryLock(filepath.Join(s.dir, "write.lock"))
	if write == nil || err != nil {
		return false, err
	}
	defer func() { _ = write.Close() }()
	use, err := tryLock(filepath.Join(s.dir, "use.lock"))
	if use == nil || err != nil {
		return false, err
	}
	defer func() { _ = use.Close() }()
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return false, fmt.Errorf("mirror: %w", err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".lock") {
			continue
		}
		if err := os.RemoveAll(filepath.Join(s.dir, e.Name())); err != nil {
			return false, fmt.Errorf("mirror: make room: %w", err)
		}
	}
	return true, nil
}

// sweepTemporary removes what dead processes left. Others may share the directory: only what is
// older than anything that may still be at work goes.
func (m *Mirrors) sweepTemporary() error {
	dir := m.temporary()
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("mirror: %w", err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err == nil && time.Since(info.ModTime()) > 2*m.cfg.Limits.FetchTime+time.Hour {
			err = os.RemoveAll(filepath.Join(dir, e.Name()))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("mirror: %w", err)
		}
	}
	return nil
}
