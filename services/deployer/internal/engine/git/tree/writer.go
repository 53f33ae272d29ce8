package tree

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// writer changes a tree below one directory. Names are looked up one by one from open directories
// and never through a symbolic link, so that nothing outside is reached whatever the tree holds.
// The directories down to the last file stay open: a tree is listed in order, and files come in
// runs. Not safe for concurrent use; several may write side by side.
type writer struct {
	top   *os.File
	path  string // of the innermost open directory
	names []string
	fds   []int
	buf   []byte
}

func newWriter(root *os.Root) (*writer, error) {
	top, err := root.Open(".")
	if err != nil {
		return nil, fmt.Errorf("tree: open the directory: %w", err)
	}
	return &writer{top: top}, nil
}

func (w *writer) close() {
	w.leave(0)
	_ = w.top.Close()
}

// leave closes the directories below depth.
func (w *writer) leave(depth int) {
	for i := len(w.fds) - 1; i >= depth; i-- {
		_ = unix.Close(w.fds[i])
	}
	w.fds, w.names = w.fds[:depth], w.names[:depth]
	w.path = strings.Join(w.names, "/")
}

// retried repeats a call that a signal cut short, as file systems over a network let happen.
func retried(fn func() error) error {
	for {
		if err := fn(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// enter opens a directory of the tree, and makes those that are missing if told to.
func (w *writer) enter(dir string, mk bool) (int, error) {
	if dir == w.path {
		return w.innermost(), nil
	}
	var names []string
	if dir != "" {
		names = strings.Split(dir, "/")
	}
	same := 0
	for same < len(names) && same < len(w.names) && names[same] == w.names[same] {
		same++
	}
	w.leave(same)
	for _, name := range names[same:] {
		at, fd := w.innermost(), -1
		open := func() (err error) {
			fd, err = unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
			return err
		}
		err := retried(open)
		if mk && errors.Is(err, unix.ENOENT) {
			err = retried(func() error { return unix.Mkdirat(at, name, 0o755) })
			if err == nil || errors.Is(err, unix.EEXIST) {
				err = retried(open)
			}
		}
		if err != nil {
			w.path = strings.Join(w.names, "/")
			return -1, err
		}
		w.fds, w.names = append(w.fds, fd), append(w.names, name)
	}
	w.path = dir
	return w.innermost(), nil
}

func (w *writer) innermost() int {
	if len(w.fds) == 0 {
		return int(w.top.Fd())
	}
	return w.fds[len(w.fds)-1]
}

func base(p string) string { return p[strings.LastIndexByte(p, '/')+1:] }

// failed wraps what the system said. A name that is taken, in a tree where no name comes twice, is
// one that the file system takes for another.
func failed(what string, p string, err error) error {
	if errors.Is(err, unix.EEXIST) {
		return Refuse("the server's volume takes the name %q for another one in the same directory.", p)
	}
	return fmt.Errorf("tree: %s %q: %w", what, p, err)
}

func (w *writer) file(e *entry, body io.Reader) error {
	at, err := w.enter(parent(e.Path), true)
	if err != nil {
		return failed("write", e.Path, err)
	}
	mode := uint32(0o644)
	if e.Mode == modeExecutable {
		mode = 0o755
	}
	fd := -1
	err = retried(func() (err error) {
		fd, err = unix.Openat(at, base(e.Path), unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
		return err
	})
	if err != nil {
		return failed("write", e.Path, err)
	}
	if w.buf == nil {
		w.buf = make([]byte, 256<<10)
	}
	_, err = io.CopyBuffer(descriptor(fd), struct{ io.Reader }{body}, w.buf)
	if err := errors.Join(err, unix.Close(fd)); err != nil {
		return failed("write", e.Path, err)
	}
	return nil
}

// descriptor is a file that is open for writing.
type descriptor int

func (d descriptor) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		n, err := unix.Write(int(d), p[done:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return done, err
		}
		if n == 0 {
			return done, io.ErrShortWrite
		}
		done += n
	}
	return done, nil
}

func (w *writer) link(e *entry) error {
	at, err := w.enter(parent(e.Path), true)
	if err == nil {
		err = retried(func() error { return unix.Symlinkat(e.link, at, base(e.Path)) })
	}
	if err != nil {
		return failed("link", e.Path, err)
	}
	return nil
}

func (w *writer) directory(p string) error {
	if _, err := w.enter(p, true); err != nil {
		return failed("make", p, err)
	}
	return nil
}

// remove removes a file or link of the tree, or an empty directory.
func (w *writer) remove(p string, dir bool) error {
	at, err := w.enter(parent(p), false)
	if err == nil {
		flags := 0
		if dir {
			flags = unix.AT_REMOVEDIR
		}
		err = retried(func() error { return unix.Unlinkat(at, base(p), flags) })
	}
	if err != nil {
		return fmt.Errorf("tree: remove %q: %w", p, err)
	}
	return nil
}

// stat describes what has a name of the tree, not following a link.
func (w *writer) stat(p string) (unix.Stat_t, error) {
	var st unix.Stat_t
	at, err := w.enter(parent(p), false)
	if err == nil {
		err = retried(func() error { return unix.Fstatat(at, base(p), &st, unix.AT_SYMLINK_NOFOLLOW) })
	}
	if err != nil {
		return st, fmt.Errorf("tree: look at %q: %w", p, err)
	}
	return st, nil
}

// checkCase refuses names that differ only in case where the volume cannot hold both. On one that
// can, as Linux's usually do, they are written as they are.
func checkCase(dir *os.Root, entries []entry) error {
	probe := ".case-" + rand.Text()
	f, err := dir.OpenFile(probe, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("tree: look how the volume takes names: %w", err)
	}
	_ = f.Close()
	_, seen := dir.Lstat(strings.ToLower(probe))
	if err := dir.Remove(probe); err != nil {
		return fmt.Errorf("tree: look how the volume takes names: %w", err)
	}
	if seen == nil {
		return foldedApart(entries)
	}
	return nil
}

// foldedApart refuses entries whose paths, or those of their directories, differ only in case.
func foldedApart(entries []entry) error {
	spelled := map[string]string{}
	for i := range entries {
		for p := entries[i].Path; p != ""; p = parent(p) {
			folded := strings.ToLower(p)
			was, ok := spelled[folded]
			if ok && was != p {
				return Refuse("%q and %q differ only in case, and the server's volume cannot hold both.", was, p)
			}
			if ok {
				break
			}
			spelled[folded] = p
		}
	}
	return nil
}
