package testkit

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
)

// Link is a way to a TCP address that can be cut, as a network between two machines can: connections
// stay open, new ones are taken, and no byte comes through until it is healed. What was sent meanwhile
// comes then, as TCP would send it again. It is safe for concurrent use.
type Link struct {
	t        testing.TB
	to       string
	listener net.Listener

	mu     sync.Mutex
	change *sync.Cond // of what follows
	cut    Direction
	closed bool
	open   map[net.Conn]struct{}
	work   sync.WaitGroup
}

// Direction is one way of a link, or both.
type Direction int

// The ways of a link: to what it leads to, and back to who connected.
const (
	There Direction = 1 << iota
	Back
	BothWays = There | Back
)

// NewLink opens a way to an address on a free loopback port, closed with the test. Nobody has to listen
// there yet.
func NewLink(t testing.TB, to string) *Link {
	t.Helper()
	listener, err := net.Listen("tcp", loopback(FreePort(t)))
	if err != nil {
		t.Fatalf("open a way to %s: %v", to, err)
	}
	l := &Link{t: t, to: to, listener: listener, open: map[net.Conn]struct{}{}}
	l.change = sync.NewCond(&l.mu)
	l.work.Go(l.accept)
	t.Cleanup(l.close)
	return l
}

// Address is where the way begins.
func (l *Link) Address() string { return l.listener.Addr().String() }

// Cut lets nothing through in a direction until Heal; what was cut before stays cut.
func (l *Link) Cut(d Direction) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut |= d
}

// Heal lets everything through again.
func (l *Link) Heal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = 0
	l.change.Broadcast()
}

func (l *Link) close() {
	l.mu.Lock()
	l.closed = true
	for c := range l.open {
		_ = c.Close() // its copiers are told
	}
	l.change.Broadcast()
	l.mu.Unlock()
	if err := l.listener.Close(); err != nil {
		l.t.Errorf("close the way to %s: %v", l.to, err)
	}
	l.work.Wait()
}

func (l *Link) accept() {
	for {
		c, err := l.listener.Accept()
		if err != nil {
			return // closed
		}
		l.work.Go(func() { l.serve(c) })
	}
}

// serve carries one connection. Who connects while the way there is cut is not connected any further before it heals.
func (l *Link) serve(near net.Conn) {
	if !l.keep(near) {
		return
	}
	defer l.drop(near)
	if !l.await(There) {
		return
	}
	far, err := net.Dial("tcp", l.to)
	if err != nil || !l.keep(far) {
		return // as refused as a connection through something can be
	}
	defer l.drop(far)
	var both sync.WaitGroup
	both.Go(func() { l.carry(far, near, There) })
	both.Go(func() { l.carry(near, far, Back) })
	both.Wait()
}

// carry copies what comes until its end, which it passes on too.
func (l *Link) carry(to, from net.Conn, d Direction) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if !l.await(d) {
			return
		}
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				_ = from.Close() // its peer is gone
				return
			}
		}
		switch half, ok := to.(*net.TCPConn); {
		case err == nil:
		case errors.Is(err, io.EOF) && ok:
			_ = half.CloseWrite() // the other direction goes on
			return
		default:
			_ = to.Close() // broken off
			return
		}
	}
}

// await waits while a direction is cut, and tells whether the link is still there.
func (l *Link) await(d Direction) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.cut&d != 0 && !l.closed {
		l.change.Wait()
	}
	return !l.closed
}

func (l *Link) keep(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		_ = c.Close()
		return false
	}
	l.open[c] = struct{}{}
	return true
}

func (l *Link) drop(c net.Conn) {
	_ = c.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, c)
}
