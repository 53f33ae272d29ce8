package hosting

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
	maxSteps = 256 // components followed on the way to one file

	// O_DIRECTORY is checked before anything is opened, so a FIFO in its place cannot block.
	openDir = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	// O_NONBLOCK: a FIFO that took a file's place opens at once, and is refused by its type.
	openFile = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
)

// errAbsent says that there is nothing to serve under a name: it does not exist, is hidden, is no
// regular file or directory, or a link leads away.
var errAbsent = fmt.Errorf("live: %w", fs.ErrNotExist)

// tree is a served directory, or a shared one that stands in it. No name is ever given to the kernel but
// a single component, never "..", and always with O_NOFOLLOW: links are resolved by walk, so leaving the
// tree is impossible by construction, also while somebody exchanges directories for links. os.Root, from which
// it starts, follows links inside itself even where O_NOFOLLOW is given: a link to .env or .git would be
// served, and one to a shared directory, which leads out, could not be told from any other.
type tree struct {
	dir *os.File
	// place is where the tree lies in the release.
	place string
	// above is the path, relative to serve.directory, at which a shared tree stands; empty else.
	above string
	// shared is what links may lead to beside this tree; a shared tree has none.
	shared Shared
}

// openTree opens a directory of a release, or of what is shared. It must be there without any link: a
// push could otherwise point it at the whole release, or at shared paths.
func openTree(root *os.Root, directory string) (*tree, error) {
	top, err := root.Open(".")
	if err != nil {
		return nil, fmt.Errorf("live: open the release: %w", err)
	}
	place := ""
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
		place = join(place, name)
	}
	return &tree{dir: top, place: place}, nil
}

// openShared opens the shared directory that a link in this tree stands for, nil if it stands for none.
// The link is not followed: it only has to say what the deployment of the app wrote. What is opened is
// the app's own directory of that very name, and no link on the way to it counts.
func (t *tree) openShared(path, target string) (*tree, error) {
	place := join(t.place, path)
	if want, ok := t.shared.Links[place]; !ok || want != target || t.shared.Open == nil {
		return nil, nil
	}
	root, err := t.shared.Open()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errAbsent
	}
	if err != nil {
		return nil, fmt.Errorf("live: open what is shared: %w", err)
	}
	defer func() { _ = root.Close() }()
	under, err := openTree(root, place)
	if err != nil {
		return nil, err
	}
	under.above = path
	return under, nil
}

func (t *tree) close() { t.dir.Close() }

// node is a file or directory that was found.
type node struct {
	tree   *tree
	parent *os.File // of a file; the directory itself else
	owned  bool     // parent is not the tree's own
	path   string   // relative to the tree, free of links; "" is the tree's top
	base   string   // last component, for files
	dir    bool
}

func (n *node) close() {
	n.leave()
	if n.shared() {
		n.tree.close()
	}
}

// leave closes the node's directory, not its tree.
func (n *node) leave() {
	if n.owned {
		n.parent.Close()
	}
}

// shared tells whether the node lies in a shared directory: its tree then was opened for it alone.
func (n *node) shared() bool { return n.tree.above != "" }

// walk finds what path names, following links inside the tree and into shared directories. The node
// must be closed.
func (t *tree) walk(path string) (node, error) {
	at := node{tree: t, parent: t.dir, dir: true}
	links := 0
	for steps := 0; path != ""; steps++ {
		name, rest, more := strings.Cut(path, "/")
		path = rest
		if name == "" || name == "." {
			continue
		}
		if steps >= maxSteps {
			at.leave()
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
			at.leave()
			at = node{tree: t, parent: t.dir, dir: true}
			continue
		}
		target, err := at.enter(name)
		if err == nil && target != "" {
			var under *tree
			if under, err = t.openShared(join(at.path, name), target); under != nil {
				at.leave()
				return under.own(path)
			}
			if links++; links > maxLinks || target[0] == '/' {
				err = errors.Join(err, errAbsent)
			}
			path = join(target, path)
		}
		if err != nil {
			at.leave()
			return node{}, err
		}
		if !at.dir {
			if more { // "file/" is no file
				at.leave()
				return node{}, errAbsent
			}
			return at, nil
		}
	}
	return at, nil
}

// own walks a shared tree, which goes with the node, or at once when there is none.
func (t *tree) own(path string) (node, error) {
	n, err := t.walk(path)
	if err != nil {
		t.close()
	}
	return n, err
}

func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "/" + b
}

// enter moves on to a name in the directory, or returns the target when it is a link.
func (n *node) enter(name string) (target string, err error) {
	if hidden(join(n.tree.above, n.path), name) {
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
		n.leave()
		n.parent, n.owned = os.NewFile(uintptr(fd), name), true
	case unix.S_IFREG:
		n.dir, n.base = false, name
	default:
		return "", errAbsent
	}
	n.path = join(n.path, name)
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
	c.shared = n.shared()
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
