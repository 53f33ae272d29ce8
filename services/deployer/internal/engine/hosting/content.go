package hosting

import (
	"errors"
	"io"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// errChanged says that a file changed while it was read.
var errChanged = errors.New("live: the file changed while it was served")

// identity tells one state of a file from another. The change time cannot be set by a program, so a file
// that was rewritten in place has another identity even when its size and modification time were restored.
type identity struct {
	dev, ino    uint64
	size        int64
	mtime, ctim int64 // nanoseconds
}

func identify(st *unix.Stat_t) identity {
	return identity{
		dev: uint64(st.Dev), ino: st.Ino, size: st.Size, //nolint:unconvert // the types differ between systems
		mtime: st.Mtim.Nano(), ctim: st.Ctim.Nano(),
	}
}

const (
	// A file of a release is settled, that is, left alone long enough for a later change to get another
	// change time, after this while: file systems count time in ticks of up to 10 ms.
	settleTime = time.Second
	// Shared files are written in place while they are served, and a system call that writes much sets the
	// time at its beginning only.
	sharedSettleTime = 10 * time.Second
)

// content is an io.ReadSeeker for http.ServeContent, in place of the *os.File: that would send a mixture of two
// states of a file that changes meanwhile. It reads a regular file as it was when it was opened: never more bytes than it had then, and an
// error instead of bytes once it changed. Reads may go on in another goroutine after close
// (http.ServeContent with several ranges); they fail then.
type content struct {
	f      *os.File
	id     identity
	links  uint64 // names that the file has
	off    int64
	shared bool // outlives releases: others write to it
	// broken is set when a read failed, for the answer must then be cut.
	broken atomic.Bool
}

func newContent(f *os.File) (*content, error) {
	st, err := fstat(f)
	if err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, errAbsent
	}
	return &content{f: f, id: identify(&st), links: uint64(st.Nlink)}, nil //nolint:unconvert // 16 bits on some systems
}

func fstat(f *os.File) (st unix.Stat_t, err error) {
	err = control(f, func(fd int) error { return unix.Fstat(fd, &st) })
	return st, err
}

func (c *content) close() { c.f.Close() }

// settled tells whether what is found out about the content may be remembered by the file's identity.
func (c *content) settled(now time.Time) bool {
	after := settleTime
	if c.shared {
		after = sharedSettleTime
	}
	return now.UnixNano()-c.id.ctim > int64(after)
}

// modTime is the zero time, which is not told to visitors, for a shared file: it may change twice within
// the second that HTTP can tell, and programs set it back.
func (c *content) modTime() time.Time {
	if c.shared {
		return time.Time{}
	}
	return time.Unix(0, c.id.mtime)
}

// Read is one io.ReadSeeker's; errors are errChanged and those of the volume.
func (c *content) Read(p []byte) (int, error) {
	left := c.id.size - c.off
	if left <= 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > left {
		p = p[:left]
	}
	n, err := c.f.ReadAt(p, c.off)
	if err == nil || errors.Is(err, io.EOF) {
		err = c.unchanged()
	}
	if err == nil && n < len(p) {
		err = errChanged
	}
	if err != nil {
		c.broken.Store(true)
		return 0, err
	}
	c.off += int64(n)
	return n, nil
}

// unchanged is asked after each read, so that no byte of another state is passed on. Of a release's file
// the change time does not count: a release that is removed while somebody downloads from it is still
// read to its end. A shared file's counts, unless it tells of a name that the file has lost, because
// another took its place.
func (c *content) unchanged() error {
	st, err := fstat(c.f)
	if err != nil {
		return err
	}
	id := identify(&st)
	if id.size != c.id.size || id.mtime != c.id.mtime {
		return errChanged
	}
	if c.shared && id.ctim != c.id.ctim && uint64(st.Nlink) >= c.links { //nolint:unconvert // 16 bits on some systems
		return errChanged
	}
	return nil
}

// Seek is one io.ReadSeeker's.
func (c *content) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += c.off
	case io.SeekEnd:
		offset += c.id.size
	}
	if offset < 0 {
		return 0, errors.New("live: seek before the beginning")
	}
	c.off = offset
	return offset, nil
}

// head returns the first bytes, for sniffing; the position stays.
func (c *content) head(n int) ([]byte, error) {
	if int64(n) > c.id.size {
		n = int(c.id.size)
	}
	buf := make([]byte, n)
	read, err := c.f.ReadAt(buf, 0)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return buf[:read], err
}

// whole reads the file at once and leaves the position at its beginning.
func (c *content) whole() ([]byte, error) {
	buf := make([]byte, c.id.size)
	defer func() { c.off = 0 }()
	c.off = 0
	_, err := io.ReadFull(c, buf)
	return buf, err
}
