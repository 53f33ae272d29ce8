package release

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
)

// ErrNotKept says that there is no such release directory, or no longer.
var ErrNotKept = errors.New("release: the directory is not kept")

func releasePath(workspace, app, directory string) (string, error) {
	if NumberOf(directory) == 0 || path.Base(directory) != directory {
		return "", fmt.Errorf("%w: %q", ErrNotKept, directory)
	}
	return path.Join(appDir(workspace, app), releasesDir, directory), nil
}

// Has tells whether a release directory is there, for a rollback to switch to it.
func (s *Store) Has(workspace, app, directory string) (bool, error) {
	p, err := releasePath(workspace, app, directory)
	if err != nil {
		return false, nil //nolint:nilerr // a name that no release has
	}
	info, err := s.root.Lstat(p)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("release: look for %s: %w", p, err)
	}
	return info.IsDir(), nil
}

// Highest is the highest deployment that has a release directory of the app, or is current; 0 when there is none.
func (s *Store) Highest(workspace, app string) (number int32, err error) {
	current, err := s.Current(workspace, app)
	if err != nil {
		return 0, err
	}
	names, err := s.readDir(path.Join(appDir(workspace, app), releasesDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("release: list the releases of %s/%s: %w", workspace, app, err)
	}
	for _, name := range append(names, current) {
		number = max(number, NumberOf(name))
	}
	return number, nil
}

// Open opens a release directory for reading. Nothing outside of it can be reached by it, by
// whatever path or symbolic link: not the app's shared files either. The caller closes it; it
// stays usable while the release is removed, with less and less in it. ErrNotKept when there is
// none.
func (s *Store) Open(workspace, app, directory string) (*os.Root, error) {
	p, err := releasePath(workspace, app, directory)
	if err != nil {
		return nil, err
	}
	ok, err := s.Has(workspace, app, directory)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fmt.Errorf("%w: %q", ErrNotKept, directory)
	}
	r, err := s.root.OpenRoot(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %q", ErrNotKept, directory)
	}
	if err != nil {
		return nil, fmt.Errorf("release: open %s: %w", p, err)
	}
	return r, nil
}

// AbsPath is the absolute path of a release directory, for the commands that run in it.
func (s *Store) AbsPath(workspace, app, directory string) string {
	return filepath.Join(s.dir, filepath.FromSlash(appDir(workspace, app)), releasesDir, filepath.Base(directory))
}

const scratchPrefix = ".scratch-"

// Scratch makes an empty directory for the commands that run before an attempt's release directory
// is there, removing what an earlier call left in it, and returns its absolute path. Sweep removes
// it.
func (s *Store) Scratch(workspace, app, directory string) (string, error) {
	if _, err := releasePath(workspace, app, directory); err != nil {
		return "", err
	}
	name := scratchPrefix + directory
	p := path.Join(appDir(workspace, app), releasesDir, name)
	s.step("scratch")
	if err := s.remove(p); err != nil {
		return "", fmt.Errorf("release: clear %s: %w", p, err)
	}
	if err := s.root.Mkdir(p, 0o755); err != nil {
		return "", fmt.Errorf("release: make %s: %w", p, err)
	}
	return s.AbsPath(workspace, app, name), nil
}
