package seal

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
)

// WriteSecretFile creates path with content, mode 0600, synced together with its directory. It
// fails with fs.ErrExist when path is there: the content is written aside and then linked into
// place, so that no reader ever meets a half-written file, even after a crash.
func WriteSecretFile(path string, content []byte) error { return createExclusive(path, content) }

// ReplaceSecretFile is like WriteSecretFile, and takes the place of what is there. The file belongs to whom its directory
// belongs to, where this process may give it away: what renews a file may be another user than who reads it.
func ReplaceSecretFile(path string, content []byte) error {
	return place(path, content, func(from, to string) error {
		dir, err := os.Stat(filepath.Dir(to))
		if err != nil {
			return err
		}
		if owner, ok := dir.Sys().(*syscall.Stat_t); ok && int(owner.Uid) != os.Geteuid() {
			if err := os.Chown(from, int(owner.Uid), int(owner.Gid)); err != nil && !errors.Is(err, os.ErrPermission) {
				return err
			}
		}
		return os.Rename(from, to)
	})
}

func createExclusive(path string, content []byte) error {
	return place(path, content, os.Link)
}

func place(path string, content []byte, into func(from, to string) error) (err error) {
	dir := filepath.Dir(path)
	tmp, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*") // 0600 by its contract
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // gone already after a rename
	_, werr := tmp.Write(content)
	if err := errors.Join(werr, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err := into(tmp.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
