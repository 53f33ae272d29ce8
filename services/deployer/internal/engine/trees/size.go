package trees

import (
	"context"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// deepest is how many directories in each other Size goes down into.
const deepest = 200

// ErrDeep is a tree whose size cannot be told.
var ErrDeep = fmt.Errorf("directories lie in each other more than %d deep", deepest)

// Size is what a file or tree takes on its disk, in bytes: each file once, however many names it has,
// and with smallest at least, for empty ones take their place too. It stops counting beyond enough. It
// may change meanwhile. The error is ErrDeep, or the context's.
func Size(ctx context.Context, name string, smallest, enough int64) (int64, error) {
	s := sizer{ctx: ctx, smallest: smallest, enough: enough, seen: map[uint64]struct{}{}}
	err := s.entry(unix.AT_FDCWD, name, 0)
	return s.sum, err
}

type sizer struct {
	ctx              context.Context //nolint:containedctx // of one call of Size
	smallest, enough int64
	sum              int64
	seen             map[uint64]struct{} // files of several names
}

// entry counts one entry of an open directory, and what is in it. What goes meanwhile counts nothing.
func (s *sizer) entry(at int, name string, level int) error {
	var st unix.Stat_t
	if err := unix.Fstatat(at, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil //nolint:nilerr // it went
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if !isDir && st.Nlink > 1 {
		if _, again := s.seen[st.Ino]; again {
			return nil
		}
		s.seen[st.Ino] = struct{}{}
	}
	s.sum += max(st.Blocks*512, s.smallest)
	if !isDir {
		return nil
	}
	if level > deepest {
		return ErrDeep
	}
	if fd, err := openDir(at, name, st.Mode); err == nil {
		return s.dir(os.NewFile(uintptr(fd), name), level)
	}
	return nil
}

// openDir opens a directory, also one that its owner closed to hide what is in it. A link that takes its
// place is neither opened nor what it leads to changed.
func openDir(at int, name string, mode uint32) (int, error) {
	place, err := unix.Openat(at, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Close(place) }()
	if mode&0o500 != 0o500 {
		if err := unix.Chmod("/proc/self/fd/"+strconv.Itoa(place), mode&0o7777|0o500); err != nil {
			return -1, err
		}
	}
	return unix.Openat(place, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

func (s *sizer) dir(d *os.File, level int) error {
	defer d.Close()
	for {
		names, err := d.Readdirnames(batch)
		for _, n := range names {
			if s.sum > s.enough {
				return nil
			}
			if err := s.entry(int(d.Fd()), n, level+1); err != nil {
				return err
			}
		}
		if err != nil { // the end, or the directory goes
			return s.ctx.Err()
		}
		if err := s.ctx.Err(); err != nil {
			return err
		}
	}
}
