package release

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Store is a server's data directory. It is safe for concurrent use, also by several processes.
type Store struct {
	root *os.Root
	dir  string // absolute
	id   string
	// step is called before each change on disk; tests die there.
	step func(name string)
}

// identityFile names the data directory for good.
const identityFile = "server.json"

type identity struct {
	ID     string `json:"id"`
	Server string `json:"server"`
}

// Open opens the data directory of a server, making it if need be. It refuses one that belongs to
// another server, and one on a volume where locks, renames or symbolic links do not work as the
// switch needs them.
func Open(ctx context.Context, dir, server string) (*Store, error) {
	if err := os.MkdirAll(filepath.Join(dir, "apps"), 0o755); err != nil {
		return nil, fmt.Errorf("release: make the data directory: %w", err)
	}
	absolute, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("release: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("release: open the data directory: %w", err)
	}
	s := &Store{root: root, dir: absolute, step: func(string) {}}
	if err := s.selfTest(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("release: the volume of %s cannot hold releases: %w", dir, err), root.Close())
	}
	if err := s.identify(ctx, server); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return s, nil
}

// Close gives the directory back.
func (s *Store) Close() error { return s.root.Close() }

// ID is the data directory's random id.
func (s *Store) ID() string { return s.id }

// Path is the data directory.
func (s *Store) Path() string { return s.root.Name() }

// FreeBytes is how much an unprivileged process may still write to the volume.
func (s *Store) FreeBytes() (uint64, error) { return FreeBytes(s.root.Name()) }

// FreeBytes is how much an unprivileged process may still write to the volume of dir.
func FreeBytes(dir string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("release: free space of %s: %w", dir, err)
	}
	return st.Bavail * uint64(st.Bsize), nil // block sizes are positive
}

// selfTest tries what the switch relies on: an exclusive lock shuts a second opener out, a rename
// replaces a symbolic link.
func (s *Store) selfTest(ctx context.Context) error {
	name := ".selftest-" + randomID()[:12]
	defer func() { _ = s.root.RemoveAll(name) }()
	if err := s.root.Mkdir(name, 0o755); err != nil {
		return err
	}
	first, err := lock(ctx, s.root, name+"/lock")
	if err != nil {
		return err
	}
	defer func() { _ = first.Close() }()
	second, err := s.root.OpenFile(name+"/lock", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = second.Close() }()
	if err := unix.Flock(int(second.Fd()), unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
		return errors.Join(errors.New("a file that is locked could be locked again: file locks do not work there"), err)
	}
	if err := unlock(first); err != nil {
		return err
	}
	if err := unix.Flock(int(second.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("a lock that was given back could not be taken: %w", err)
	}
	for _, target := range []string{"one", "two"} {
		if err := s.root.Symlink(target, name+"/next"); err != nil {
			return err
		}
		if err := s.root.Rename(name+"/next", name+"/link"); err != nil {
			return err
		}
		if got, err := s.root.Readlink(name + "/link"); err != nil || got != target {
			return errors.Join(fmt.Errorf("a link was to be replaced by one to %q and points to %q", target, got), err)
		}
	}
	return nil
}

func (s *Store) identify(ctx context.Context, server string) error {
	f, err := lock(ctx, s.root, identityFile+".lock")
	if err != nil {
		return fmt.Errorf("release: %w", err)
	}
	defer func() { _ = unlock(f) }()
	b, err := s.root.ReadFile(identityFile)
	if errors.Is(err, fs.ErrNotExist) {
		s.id = randomID()
		return s.writeIdentity(identity{s.id, server})
	}
	if err != nil {
		return fmt.Errorf("release: read the data directory's identity: %w", err)
	}
	var id identity
	if err := json.Unmarshal(b, &id); err != nil || id.ID == "" {
		return errors.Join(fmt.Errorf("release: %s in %s cannot be read: is this a data directory?", identityFile, s.root.Name()), err)
	}
	if id.Server != server {
		return fmt.Errorf("release: the data directory %s belongs to server %q, not to %q: choose another --data-dir or --server", s.root.Name(), id.Server, server)
	}
	s.id = id.ID
	return nil
}

func (s *Store) writeIdentity(id identity) error {
	b, err := json.Marshal(id)
	if err == nil {
		err = s.root.WriteFile(identityFile+".new", append(b, '\n'), 0o644)
	}
	if err == nil {
		err = s.root.Rename(identityFile+".new", identityFile)
	}
	if err == nil {
		err = s.syncDir(".")
	}
	if err != nil {
		return fmt.Errorf("release: write the data directory's identity: %w", err)
	}
	return nil
}

func (s *Store) syncDir(name string) error {
	d, err := s.root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func randomID() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
