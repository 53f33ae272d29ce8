package release

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"devpilot.io/bitbucket/services/deployer/internal/engine/trees"
)

// ErrStale says that another attempt has claimed the app's directory: the caller may change
// nothing in it any more.
var ErrStale = errors.New("release: a newer attempt has claimed the directory")

const (
	epochFile   = "epoch"
	currentLink = "current"
	releasesDir = "releases"
)

func appDir(workspace, app string) string { return path.Join("apps", workspace, app) }

// DirectoryName is the name of the release directory of an attempt: "12", later "12.2".
func DirectoryName(number, attempt int32) string {
	if attempt <= 1 {
		return strconv.Itoa(int(number))
	}
	return fmt.Sprintf("%d.%d", number, attempt)
}

// NumberOf is the deployment that a release directory belongs to, 0 when the name is none.
func NumberOf(directory string) int32 {
	number, _, _ := strings.Cut(directory, ".")
	n, err := strconv.ParseInt(number, 10, 32)
	if err != nil || n < 1 {
		return 0
	}
	return int32(n)
}

// Claim makes epoch the fence of the app's directory. What a deleted app of the same name left
// there, claimed before epoch first, is removed. ErrStale when a newer attempt was here.
func (s *Store) Claim(ctx context.Context, workspace, app string, epoch, first int64) error {
	dir := appDir(workspace, app)
	if err := s.root.MkdirAll(path.Join(dir, releasesDir), 0o755); err != nil {
		return fmt.Errorf("release: make %s: %w", dir, err)
	}
	return s.locked(ctx, dir, func(f *os.File, has int64) error {
		if has > epoch {
			return ErrStale
		}
		if has > 0 && has < first {
			s.step("wipe")
			if _, err := s.putAside(dir); err != nil { // Sweep removes it
				return err
			}
			if err := s.root.MkdirAll(path.Join(dir, releasesDir), 0o755); err != nil {
				return err
			}
		}
		s.step("claim")
		return writeEpoch(f, epoch)
	})
}

// Fence lets no attempt with a lower epoch change anything of an app any more: they were given up. Nothing
// is made where nothing of the app is.
func (s *Store) Fence(ctx context.Context, workspace, app string, epoch int64) error {
	dir := appDir(workspace, app)
	if _, err := s.root.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return s.locked(ctx, dir, func(f *os.File, has int64) error {
		if has >= epoch {
			return nil
		}
		return writeEpoch(f, epoch)
	})
}

// locked runs fn under the app's lock with the epoch found there.
func (s *Store) locked(ctx context.Context, dir string, fn func(f *os.File, has int64) error) (err error) {
	f, err := lock(ctx, s.root, path.Join(dir, epochFile))
	if err != nil {
		return fmt.Errorf("release: %s: %w", dir, err)
	}
	defer func() { err = errors.Join(err, unlock(f)) }()
	has, err := readEpoch(f)
	if err != nil {
		return fmt.Errorf("release: %s: read the epoch: %w", dir, err)
	}
	if err := fn(f, has); err != nil {
		return fmt.Errorf("release: %s: %w", dir, err)
	}
	return nil
}

// Current is the name of the release directory that is current, empty when none is.
func (s *Store) Current(workspace, app string) (string, error) {
	target, err := s.root.Readlink(path.Join(appDir(workspace, app), currentLink))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("release: read current of %s/%s: %w", workspace, app, err)
	}
	return path.Base(target), nil
}

// Prepare makes an empty release directory and returns it. What a dead attempt, or a spare of no
// use, may have left under its name is put aside for Sweep. The caller closes it.
func (s *Store) Prepare(workspace, app, directory string) (*os.Root, error) {
	p := path.Join(appDir(workspace, app), releasesDir, directory)
	s.step("prepare")
	if _, err := s.toTrash(appDir(workspace, app), directory); err != nil {
		return nil, fmt.Errorf("release: clear %s: %w", p, err)
	}
	if err := s.root.Mkdir(p, 0o755); err != nil {
		return nil, fmt.Errorf("release: make %s: %w", p, err)
	}
	r, err := s.root.OpenRoot(p)
	if err != nil {
		return nil, fmt.Errorf("release: open %s: %w", p, err)
	}
	return r, nil
}

// Switch makes a release directory current, if epoch is still the fence; else ErrStale. The
// release is on disk before the link points to it, and the link when Switch returns. It may be one
// that was current before; ErrNotKept when it is not there.
func (s *Store) Switch(ctx context.Context, workspace, app string, epoch int64, directory string) error {
	dir := appDir(workspace, app)
	target := path.Join(releasesDir, directory)
	unsynced := s.syncVolume(path.Join(dir, target))
	if errors.Is(unsynced, fs.ErrNotExist) {
		unsynced = fmt.Errorf("%w: %w", ErrNotKept, unsynced)
	}
	return s.locked(ctx, dir, func(_ *os.File, has int64) error {
		if has != epoch { // the successor may have removed our release already
			return ErrStale
		}
		if unsynced != nil {
			return fmt.Errorf("write %s to disk: %w", target, unsynced)
		}
		next := path.Join(dir, currentLink+".next")
		s.step("link")
		if err := s.root.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := s.root.Symlink(target, next); err != nil {
			return err
		}
		s.step("rename")
		if err := s.root.Rename(next, path.Join(dir, currentLink)); err != nil {
			return err
		}
		s.step("switched")
		return s.syncDir(dir)
	})
}

// syncVolume writes what a release holds to disk: one call for the volume is far cheaper than one
// for each of its files.
func (s *Store) syncVolume(name string) error {
	d, err := s.root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(d.Fd())), d.Close())
}

// Sweep removes all release directories but those to keep and the current one, and what attempts
// and makers of spares left, if epoch is still the fence; else ErrStale. The app's spare and its
// shared files stay.
func (s *Store) Sweep(ctx context.Context, workspace, app string, epoch int64, keep []string) error {
	dir := appDir(workspace, app)
	var gone []string
	err := s.locked(ctx, dir, func(_ *os.File, has int64) error {
		if has != epoch {
			return ErrStale
		}
		current, err := s.Current(workspace, app)
		if err != nil {
			return err
		}
		entries, err := s.readDir(path.Join(dir, releasesDir))
		if err != nil {
			return err
		}
		if gone, err = s.aside(dir); err != nil { // of a deleted app of the same name
			return err
		}
		// Under the lock they only get names that nobody looks for: removing takes long.
		for _, name := range entries {
			p := path.Join(dir, releasesDir, name)
			if strings.HasPrefix(name, trashPrefix) {
				gone = append(gone, p)
				continue
			}
			if name == current || name == spareDir || slices.Contains(keep, name) {
				continue
			}
			trash := path.Join(dir, releasesDir, trashPrefix+randomID())
			s.step("trash")
			if err := s.root.Rename(p, trash); err != nil {
				return err
			}
			gone = append(gone, trash)
		}
		return nil
	})
	for _, p := range gone {
		s.step("sweep")
		if rerr := s.remove(p); rerr != nil {
			err = errors.Join(err, fmt.Errorf("release: remove %s: %w", p, rerr))
		}
	}
	return err
}

const trashPrefix = ".trash-"

func (s *Store) readDir(name string) ([]string, error) {
	d, err := s.root.Open(name)
	if err != nil {
		return nil, err
	}
	names, err := d.Readdirnames(-1)
	return names, errors.Join(err, d.Close())
}

// Remove removes what a deleted app left, unless a newer app of its name has claimed the directory
// since epoch. The epoch file stays, with epoch in it: a worker of the deleted app that wakes up
// late finds itself replaced.
func (s *Store) Remove(ctx context.Context, workspace, app string, epoch int64) error {
	dir := appDir(workspace, app)
	if _, err := s.root.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return s.locked(ctx, dir, func(f *os.File, has int64) error {
		if has > epoch {
			return nil
		}
		if err := writeEpoch(f, epoch); err != nil {
			return err
		}
		return s.wipe(dir)
	})
}

// wipe removes everything of an app, shared files too, but its epoch file. What is served goes first, and then the
// link: it never points to a release that is half gone.
func (s *Store) wipe(dir string) error {
	aside, err := s.putAside(dir)
	for _, p := range aside {
		err = errors.Join(err, s.remove(p))
	}
	return err
}

// putAside gives all of an app but its epoch file names that nobody looks for, and returns them with
// those of earlier times: removing takes long, and what cannot be removed must be in nobody's way.
func (s *Store) putAside(dir string) ([]string, error) {
	for _, name := range []string{siteFile, currentLink, currentLink + ".next"} {
		if err := s.root.Remove(path.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	for _, name := range []string{releasesDir, sharedDir} {
		err := s.root.Rename(path.Join(dir, name), path.Join(dir, trashPrefix+randomID()))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return s.aside(dir)
}

// aside is what putAside put aside and nobody has removed yet.
func (s *Store) aside(dir string) ([]string, error) {
	names, err := s.readDir(dir)
	var out []string
	for _, name := range names {
		if strings.HasPrefix(name, trashPrefix) {
			out = append(out, path.Join(dir, name))
		}
	}
	return out, err
}

// remove removes a tree, whatever a hook made of it.
func (s *Store) remove(name string) error { return trees.Remove(s.root, name) }
