package trees

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"

	"golang.org/x/sys/unix"
)

// batch is how many names of a directory are read at a time.
const batch = 1024

// Remove removes what is called name below root, with all that is in it; what is not there is no
// error. What cannot be removed does not keep the rest from being removed.
//
// A directory within is not gone down into: what is in it moves up to stand in name itself. So no path
// is ever longer than three names, and a removal that was cut off is continued by the next.
func Remove(root *os.Root, name string) error {
	info, err := root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && info.IsDir() {
		err = empty(root, name)
	}
	if err != nil {
		return fmt.Errorf("trees: remove %s: %w", name, err)
	}
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("trees: %w", err)
	}
	return nil
}

// RemoveAll is Remove of an absolute path.
func RemoveAll(name string) error {
	root, err := os.OpenRoot(path.Dir(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("trees: %w", err)
	}
	return errors.Join(Remove(root, path.Base(name)), root.Close())
}

func empty(root *os.Root, name string) error {
	if err := root.Chmod(name, 0o700); err != nil {
		return err
	}
	top, err := root.OpenRoot(name)
	if err != nil {
		return err
	}
	r := remover{top: top}
	return errors.Join(r.empty("."), top.Close())
}

// remover empties one tree.
type remover struct {
	top   *os.Root
	moved int
	up    []string // directories that were moved to the top and are still there
}

// empty removes what is in a directory. It looks again until nothing is left, for directories may have
// moved to where it had looked already, or until a whole look achieves nothing.
func (r *remover) empty(dir string) error {
	for {
		found, done, err := r.pass(dir)
		if found == 0 || done == 0 {
			return err
		}
	}
}

// pass goes once over the entries of a directory, and says how many it found and did away with.
func (r *remover) pass(dir string) (found, done int, err error) {
	d, err := r.top.Open(dir)
	if err != nil {
		return 0, 0, err
	}
	defer d.Close()
	for {
		names, rerr := d.Readdirnames(batch)
		for _, n := range names {
			found++
			if derr := r.drop(dir, n); derr == nil {
				done++
			} else if err == nil {
				err = derr
			}
		}
		switch {
		case errors.Is(rerr, io.EOF):
			return found, done, err
		case rerr != nil:
			return found, done, rerr
		}
	}
}

// drop removes one entry of a directory, or moves it up if it is a directory with something in it.
func (r *remover) drop(dir, name string) error {
	p := path.Join(dir, name)
	err := r.top.Remove(p)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) {
		return err
	}
	// Moving a directory writes to it, too.
	if err := r.top.Chmod(p, 0o700); err != nil {
		return err
	}
	if dir != "." {
		return r.moveUp(p)
	}
	err = nil
	for r.up = append(r.up, name); len(r.up) > 0; {
		last := r.up[len(r.up)-1]
		r.up = r.up[:len(r.up)-1]
		e := r.empty(last)
		if e == nil {
			e = r.top.Remove(last)
		}
		if err == nil { // the first says enough
			err = e
		}
	}
	return err
}

func (r *remover) moveUp(p string) error {
	for {
		r.moved++
		to := ".moved-" + strconv.Itoa(r.moved)
		if _, err := r.top.Lstat(to); !errors.Is(err, fs.ErrNotExist) { // one of an earlier try
			continue
		}
		if err := r.top.Rename(p, to); err != nil {
			return err
		}
		r.up = append(r.up, to)
		return nil
	}
}
