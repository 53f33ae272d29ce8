package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// How the two streams are put into the one order in which the hook wrote them.
//
// Both are pipes, as programs expect, and two pipes say nothing about what came first. So the kernel is
// asked for a signal at each write (F_SETSIG, O_ASYNC): of one number, signals wait in line and each
// names its pipe. That is the order. How much each write brought, the pipes say by themselves: in packet
// mode (O_DIRECT, pipe(2)) what was written apart is read apart. Nothing of it can be noticed by the
// hook: no write waits for us that would not wait with any pipe.
//
// What is exact: of two writes of which the first had returned before the second began, the first comes
// first, whichever process wrote them, to whichever stream. Writes at the same time have no order.
//
// What is as near as can be, and only while several writes wait unread: of a pipe that is opened anew
// (>/dev/stderr, /proc/self/fd/1), writes run together, and are taken to be a line each. Of writes of just
// a multiple of a page, their number decides. When hundreds of writes of a stream wait, or one of more
// than pipeSize, it is full, and the signals of writers that wait for room can be taken for those of
// writes: then what the stream got later can come before what the other one got first. Where the kernel
// gives no signals (before Linux 5.14; to splice), the two have no order. Each stream by itself is always
// whole and in order.

const (
	// atWrite is the number of the signal at each write: one of those that wait in line. Only the thread
	// that reads it gets it; it never interrupts anything.
	atWrite = unix.Signal(40)
	// pipeSize is what may wait unread: with small writes one in each of its pages.
	pipeSize = 1 << 20
	// signalDelay is how long data is kept back whose signal has not come: one is given right after the
	// other, except for a write that still goes on.
	signalDelay = 2 * time.Millisecond
	// signalsLate is how long a signal may come after its data was handed out without it.
	signalsLate = 100 * time.Millisecond
	readSize    = 64 << 10     // bytes of output that are read at a time
	bufferSize  = 4 * pipeSize // of address space; few hooks touch it
)

// page is what a piece holds at most.
var page = os.Getpagesize()

// outputPipe makes a pipe for a hook's stream: packets, of which many may wait.
func outputPipe() (r, w *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_DIRECT); err != nil {
		return nil, nil, fmt.Errorf("output of the hook: %w", err)
	}
	_ = unix.SetNonblock(fds[0], true)                                 // of our end alone
	_, _ = unix.FcntlInt(uintptr(fds[1]), unix.F_SETPIPE_SZ, pipeSize) // refused to users with many pipes: fewer may wait
	return os.NewFile(uintptr(fds[0]), "output"), os.NewFile(uintptr(fds[1]), "output"), nil
}

// source is our end of one stream.
type source struct {
	from  Stream
	fd    int
	ended bool   // nobody can write to it any more
	hung  bool   // and the signal that says so was left out
	more  bool   // there was no room for all that it holds
	buf   []byte // what was read and is not handed out yet
	sizes []int  // in the pieces in which it was read
	at    int    // of buf, what is handed out
	slots int    // pieces for which the pipe has room
	// full is how many of the pieces come before that of which a writer had to wait for room, which gives
	// a signal more; -1 if none had.
	full    int
	crowded bool // it was full since buf was empty
	// since is when what waits in buf was found to have no signal.
	since time.Time
	// early counts the writes that were handed out before their signal, the last of them at this time.
	early  int
	handed time.Time
}

func newSource(from Stream, f *os.File) (*source, error) {
	s := &source{from: from, buf: make([]byte, 0, bufferSize), full: -1}
	conn, err := f.SyscallConn()
	if err == nil {
		err = conn.Control(func(fd uintptr) { s.fd = int(fd) }) // it is ours until we close it
	}
	room, err2 := unix.FcntlInt(uintptr(s.fd), unix.F_GETPIPE_SZ, 0)
	s.slots = room / page
	return s, errors.Join(err, err2)
}

// announce asks for a signal to this thread at each write from now on.
func (s *source) announce() error {
	owner := struct{ kind, tid int32 }{tid: int32(unix.Gettid())} // F_OWNER_TID is 0
	if _, _, errno := unix.Syscall(unix.SYS_FCNTL, uintptr(s.fd), unix.F_SETOWN_EX, uintptr(unsafe.Pointer(&owner))); errno != 0 {
		return errno
	}
	if _, err := unix.FcntlInt(uintptr(s.fd), unix.F_SETSIG, int(atWrite)); err != nil {
		return err
	}
	_, err := unix.FcntlInt(uintptr(s.fd), unix.F_SETFL, unix.O_ASYNC|unix.O_NONBLOCK)
	return err
}

// read takes what is there, as far as there is room for it.
func (s *source) read() {
	if s.at > 0 {
		s.buf = s.buf[:copy(s.buf, s.buf[s.at:])]
		s.at = 0
	}
	before := len(s.sizes)
	for s.more = false; !s.ended; {
		if s.more = cap(s.buf)-len(s.buf) < readSize; s.more { // less would cut a packet
			break
		}
		n, err := unix.Read(s.fd, s.buf[len(s.buf):len(s.buf)+readSize])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		if s.ended = err != nil || n == 0; !s.ended {
			s.buf = s.buf[:len(s.buf)+n]
			s.sizes = append(s.sizes, n)
		}
	}
	if len(s.sizes)-before >= s.slots {
		s.full = before + s.slots
	}
	s.crowded = s.crowded && before > 0 || s.full >= 0
}

// expect is told how many signals of this stream wait.
func (s *source) expect(signals int) {
	if s.full < 0 {
		return
	}
	for _, n := range s.sizes {
		if n != page {
			signals--
		}
	}
	if signals <= 0 { // it was full, and nobody waited for room
		s.full = -1
	}
}

// ofWrite takes what belongs to one signal; later is how many more of them wait. Nil if it was handed
// out already, or is still to come.
func (s *source) ofWrite(later int, now time.Time) []byte {
	s.since = time.Time{}
	if s.early > 0 {
		if s.early--; now.Sub(s.handed) < signalsLate {
			return nil
		}
		s.early = 0
	}
	switch {
	case s.full == 0: // the signal of a write that found no room
		s.full = -1
		return nil
	case s.full > 0:
		later-- // one of them is that
	case s.more:
		later = 0 // most of theirs is not read yet
	}
	if len(s.sizes) == 0 {
		return nil
	}
	if missing := later + 1 - len(s.sizes); missing > 0 {
		return s.ofTogether(missing)
	}
	begin := s.at
	for {
		n := s.next()
		switch {
		case n != page, len(s.sizes) == 0, len(s.sizes) <= later && !s.crowded: // it leaves one piece to each of those after it
			return s.buf[begin:s.at]
		case s.full == 0: // it waited for room, and its signal was this one
			s.full = -1
			return s.buf[begin:s.at]
		}
	}
}

// ofTogether takes what belongs to one signal when that many pieces are missing: some hold writes that
// ran together, of a line each. Or else what this signal tells of was handed out already.
func (s *source) ofTogether(missing int) []byte {
	if bytes.Count(s.buf[s.at:len(s.buf)-1], []byte{'\n'})+1-len(s.sizes) < missing {
		return nil
	}
	begin := s.at
	first := s.buf[s.at : s.at+s.sizes[0]]
	if n := bytes.IndexByte(first, '\n') + 1; n > 0 && n < len(first) {
		s.sizes[0] -= n
		s.at += n
	} else {
		s.next()
	}
	return s.buf[begin:s.at]
}

// next moves on by one piece, and returns its size.
func (s *source) next() int {
	n := s.sizes[0]
	s.sizes = s.sizes[1:]
	s.at += n
	if s.full > 0 {
		s.full--
	}
	return n
}

// overdue reports whether what waits is not to wait for its signal any longer.
func (s *source) overdue(now time.Time) bool {
	switch {
	case len(s.sizes) == 0:
		return false
	case s.ended, s.more:
		return true
	case s.since.IsZero():
		s.since = now
	}
	return now.Sub(s.since) >= signalDelay
}

// rest takes all that has no signal.
func (s *source) rest(now time.Time) []byte {
	s.since = time.Time{}
	for _, n := range s.sizes {
		if n != page { // the end of a write
			s.early++
		}
	}
	s.handed = now
	rest := s.buf[s.at:]
	s.at, s.sizes, s.full = len(s.buf), s.sizes[:0], -1
	return rest
}

// ear hears the signals of one thread.
type ear struct {
	fd   int
	room [64]unix.SignalfdSiginfo
}

// hear begins, in this thread, which must be left to end with its goroutine.
func hear() (*ear, error) {
	runtime.LockOSThread()
	var set unix.Sigset_t
	for _, n := range []unix.Signal{atWrite, unix.SIGIO} { // SIGIO comes when the queue is full
		set.Val[(n-1)/64] |= 1 << ((n - 1) % 64)
	}
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &set, nil); err != nil {
		return nil, err
	}
	fd, err := unix.Signalfd(-1, &set, unix.SFD_CLOEXEC|unix.SFD_NONBLOCK)
	return &ear{fd: fd}, err
}

// writes are the descriptors that were written to, in order; lost tells that some are missing.
func (e *ear) writes() (fds []int, lost bool) {
	const size = int(unsafe.Sizeof(e.room[0]))
	for {
		n, err := unix.Read(e.fd, unsafe.Slice((*byte)(unsafe.Pointer(&e.room)), size*len(e.room)))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		for i := range max(n, 0) / size {
			if e.room[i].Signo == uint32(unix.SIGIO) {
				lost = true
				continue
			}
			fds = append(fds, int(e.room[i].Fd))
		}
		if n < size*len(e.room) {
			return fds, lost
		}
	}
}

func (e *ear) close() { _ = unix.Close(e.fd) }
