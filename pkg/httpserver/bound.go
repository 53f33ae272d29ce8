package httpserver

import (
	"container/list"
	"errors"
	"io"
	"math"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	mostConnections = 8192 // open connections of a listener
	mostPerAddress  = 2048 // open connections of one address
	fewest          = 16   // connections that are allowed however few files may be open
)

// Share is the connections of a listener that may take a share of what files this process may have
// open, between 16 and 8192.
func Share(share float64) int {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return fewest
	}
	return int(min(max(share*float64(files.Cur), fewest), mostConnections))
}

// bound counts the connections of one server. It is safe for concurrent use. Its lists are no cache that
// golang-lru could be: a connection stands in two of them, its own address's and everybody's, and in none
// while it is served, when it counts and must not be closed.
type bound struct {
	most, perAddress int

	mu        sync.Mutex
	all       int
	waiting   *list.List // of *conn, the one that waits longest first
	addresses map[netip.Prefix]*address
}

type address struct {
	all     int
	waiting *list.List // likewise
}

// conn is a counted connection, whose writes have deadlines. Its fields in the middle are the bound's,
// under its lock.
type conn struct {
	net.Conn
	bound *bound
	from  netip.Prefix

	counted  bool
	inAll    *list.Element // nil while a request is served
	inItsOwn *list.Element

	ownDeadline atomic.Bool // a handler minds its writes itself
}

func newBound(most int) *bound {
	most = max(most, fewest)
	return &bound{most: most, perAddress: min(most/2, mostPerAddress), waiting: list.New(), addresses: map[netip.Prefix]*address{}}
}

// admit counts a new connection, and closes another or this one where there would be too many; nil
// when it was this one.
func (b *bound) admit(nc net.Conn) *conn {
	c := &conn{Conn: nc, bound: b, from: network(nc.RemoteAddr())}
	b.mu.Lock()
	a := b.addresses[c.from]
	if a == nil {
		a = &address{waiting: list.New()}
		b.addresses[c.from] = a
	}
	var victim *conn
	full := a.all >= b.perAddress
	switch {
	case full:
		victim = first(a.waiting)
	case b.all >= b.most:
		full, victim = true, first(b.waiting)
	}
	if full && victim == nil {
		if a.all == 0 {
			delete(b.addresses, c.from)
		}
		b.mu.Unlock()
		_ = nc.Close() // nobody was promised anything
		return nil
	}
	if victim != nil {
		b.drop(victim)
	}
	// The victim may have been this address's last one.
	if b.addresses[c.from] == nil {
		b.addresses[c.from] = a
	}
	c.counted = true
	b.all++
	a.all++
	b.wait(c)
	b.mu.Unlock()
	if victim != nil {
		_ = victim.Conn.Close() // whoever is at it sees that
	}
	return c
}

func first(l *list.List) *conn {
	if e := l.Front(); e != nil {
		return e.Value.(*conn)
	}
	return nil
}

// wait puts a counted connection at the end of those that wait. b.mu is held.
func (b *bound) wait(c *conn) {
	b.stopWaiting(c)
	c.inAll = b.waiting.PushBack(c)
	c.inItsOwn = b.addresses[c.from].waiting.PushBack(c)
}

func (b *bound) stopWaiting(c *conn) {
	if c.inAll != nil {
		b.waiting.Remove(c.inAll)
		b.addresses[c.from].waiting.Remove(c.inItsOwn)
		c.inAll, c.inItsOwn = nil, nil
	}
}

// drop forgets a connection. b.mu is held.
func (b *bound) drop(c *conn) {
	if !c.counted {
		return
	}
	b.stopWaiting(c)
	c.counted = false
	b.all--
	a := b.addresses[c.from]
	if a.all--; a.all == 0 {
		delete(b.addresses, c.from)
	}
}

// waits says that an answer was given and the next request may come.
func (b *bound) waits(c *conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c.counted {
		b.wait(c)
	}
}

// served says that a request was read whole.
func (b *bound) served(c *conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c.counted {
		b.stopWaiting(c)
	}
}

func (b *bound) gone(c *conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.drop(c)
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.bound.gone(c)
	return c.Conn.Close()
}

// move gives the next write its deadline.
func (c *conn) move() {
	if !c.ownDeadline.Load() {
		_ = c.Conn.SetWriteDeadline(time.Now().Add(writeTimeout)) // a lost connection fails the write itself
	}
}

// Write implements net.Conn.
func (c *conn) Write(p []byte) (int, error) {
	c.move()
	return c.Conn.Write(p)
}

// SetWriteDeadline is for handlers (http.ResponseController): until the zero time is set the deadline
// is theirs.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.ownDeadline.Store(!t.IsZero())
	return c.Conn.SetWriteDeadline(t)
}

// ReadFrom implements io.ReaderFrom, so that files still go out by sendfile.
func (c *conn) ReadFrom(src io.Reader) (int64, error) {
	const part = 1 << 20
	most := int64(math.MaxInt64)
	if l, ok := src.(*io.LimitedReader); ok {
		src, most = l.R, l.N
	}
	var all int64
	for all < most {
		c.move()
		n, err := io.CopyN(c.Conn, src, min(part, most-all))
		all += n
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return all, err
		}
	}
	return all, nil
}

// network is what counts as one address: one IPv4 address, one IPv6 /64, which is what one customer
// gets.
func network(a net.Addr) netip.Prefix {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip := t.AddrPort().Addr().Unmap().WithZone("")
	bits := 64
	if ip.Is4() {
		bits = 32
	}
	p, err := ip.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// listener admits what it accepts.
type listener struct {
	net.Listener
	bound *bound
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	for {
		nc, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if c := l.bound.admit(nc); c != nil {
			return c, nil
		}
	}
}
