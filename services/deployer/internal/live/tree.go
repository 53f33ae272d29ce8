package live

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	maxLinks = 16  // symbolic links on the way to one file
	maxSteps = 256 // components looked at on the way to one file

	// O_DIRECTORY is checked before anything is opened, so a FIFO in its place cannot block.
	openDir = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	// O_NONBLOCK: a FIFO that took a file's place opens at once, and is refused by its type.
	openFile = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
)

// errAbsent says that there is nothing to serve under a name: it does not exist, is hidden, is no
// regular file or directory, or a link leads away.
var errAbsent = fmt.Errorf("live: %w", fs.ErrNotExist)

// tree is a served directory. No name is ever given to the kernel but a single component, never "..",
// and always with O_NOFOLLOW: links are resolved by walk, so leaving the tree is impossible by
// construction, also while somebody exchanges directories for links.
type tree struct{ dir *os.File }

// openTree opens the directory of a release that is served. It must be there without any link: a push
// could otherwise point it at the whole release, or at shared paths.
func openTree(release *os.Root, directory string) (*tree, error) {
	top, err := release.Open(".")
	if err != nil {
		return nil, fmt.Errorf("live: open the release: %w", err)
	}
	for directory != "" {
		var name string
		name, directory, _ = strings.Cut(directory, "/")
		if name == "" || name == "." {
			continue
		}
		if name == ".." {
			top.Close()
			return nil, errAbsent
		}
		fd, err := openat(top, name, openDir)
		top.Close()
		if err != nil {
			return nil, err
		}
		top = os.NewFile(uintptr(fd), name)
	}
	return &tree{dir: top}, nil
}

func (t *tree) close() { t.dir.Close() }

// node is a file or directory that was found.
type node struct {
	parent *os.File // of a file; the directory itself else
	owned  bool     // parent is not the tree's own
	path   string   // relative to the tree, free of links; "" is the tree's top
	base   string   // last component, for files
	dir    bool
}

func (n *node) close() {
	if n.owned {
		n.parent.Close()
	}
}

// walk finds what path names, following links inside the tree. The node must be closed.
func (t *tree) walk(path string) (node, error) {
	at := node{parent: t.dir, dir: true}
	links := 0
	for steps := 0; path != ""; steps++ {
		name, rest, more := strings.Cut(path, "/")
		path = rest
		if name == "" || name == "." {
			continue
		}
		if steps >= maxSteps {
			at.close()
			return node{}, errAbsent
		}
		if name == ".." { // only links bring it here: start again, one level up
			if at.path == "" {
				return node{}, errAbsent
			}
			up := ""
			if i := strings.LastIndexByte(at.path, '/'); i >= 0 {
				up = at.path[:i]
			}
			path = join(up, path)
			at.close()
			at = node{parent: t.dir, dir: true}
			continue
		}
		target, err := at.enter(name)
		if err == nil && target != "" {
			if links++; links > maxLinks || target[0] == '/' {
				err = errAbsent
			}
			path = join(target, path)
		}
		if err != nil {
			at.close()
			return node{}, err
		}
		if !at.dir {
			if more { // "file/" is no file
				at.close()
				return node{}, errAbsent
			}
			return at, nil
		}
	}
	return at, nil
}

func join(a, b string) string {
	if b == "" {
		return a
	}
	return a + "/" + b
}

// enter moves on to a name in the directory, or returns the target when it is a link.
func (n *node) enter(name string) (target string, err error) {
	if hidden(n.path, name) {
		return "", errAbsent
	}
	var st unix.Stat_t
	if err := control(n.parent, func(fd int) error { return unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) }); err != nil {
		return "", absent("look at", name, err)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		return readlink(n.parent, name)
	case unix.S_IFDIR:
		fd, err := openat(n.parent, name, openDir)
		if err != nil {
			return "", err
		}
		n.close()
		n.parent, n.owned = os.NewFile(uintptr(fd), name), true
	case unix.S_IFREG:
		n.dir, n.base = false, name
	default:
		return "", errAbsent
	}
	if n.path != "" {
		name = n.path + "/" + name
	}
	n.path = name
	return "", nil
}

// open opens a regular file by its name in the node's directory; errAbsent if it is something else.
func (n *node) open(name string) (*content, error) {
	fd, err := openat(n.parent, name, openFile)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	c, err := newContent(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	return c, nil
}

// regular tells whether the node's directory holds a regular file of that name; a FIFO must not even
// be opened.
func (n *node) regular(name string) (identity, bool) {
	var st unix.Stat_t
	err := control(n.parent, func(fd int) error { return unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	return identify(&st), err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG
}

func openat(dir *os.File, name string, flags int) (fd int, err error) {
	err = control(dir, func(at int) error {
		fd, err = unix.Openat(at, name, flags, 0)
		return err
	})
	if err != nil {
		return 0, absent("open", name, err)
	}
	return fd, nil
}

func readlink(dir *os.File, name string) (string, error) {
	buf := make([]byte, maxPath)
	var n int
	err := control(dir, func(fd int) (err error) {
		n, err = unix.Readlinkat(fd, name, buf)
		return err
	})
	if err != nil {
		return "", absent("read the link", name, err)
	}
	if n == 0 || n == len(buf) {
		return "", errAbsent
	}
	return string(buf[:n]), nil
}

// control runs a system call on a file that cannot be closed meanwhile.
func control(f *os.File, call func(fd int) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var called error
	err = conn.Control(func(fd uintptr) {
		for {
			if called = call(int(fd)); !errors.Is(called, unix.EINTR) {
				return
			}
		}
	})
	return errors.Join(err, called)
}

// absent tells what a visitor may cause from trouble with the volume.
func absent(what, name string, err error) error {
	for _, plain := range []error{unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.ENAMETOOLONG, unix.EACCES, unix.EPERM, unix.ENXIO, unix.EINVAL, unix.EILSEQ} {
		if errors.Is(err, plain) {
			return errAbsent
		}
	}
	return fmt.Errorf("live: %s %q: %w", what, name, err)
}
