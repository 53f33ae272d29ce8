package hosting

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"sync"
)

// peerService is whose certificate workers show each other.
const peerService = "deployer"

// tlsRecord is the first byte of a connection that begins with a TLS handshake (RFC 8446, 5.1), and of no HTTP
// request.
const tlsRecord = 0x16

// Listener takes connections for HTTPServer. With a certificate workers of other servers may encrypt theirs, and then
// show that they are workers; visitors, who come by a proxy or from this machine, say plain HTTP at the same address.
func (s *Server) Listener(l net.Listener) net.Listener {
	if s.certificate == nil {
		return l
	}
	return &listener{Listener: l, config: s.certificate.ServerConfig(peerService)}
}

type listener struct {
	net.Listener
	config *tls.Config
}

// Accept implements net.Listener. It does not wait for what the other side says.
func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &either{Conn: c, config: l.config}, nil
}

// either is a connection that turns out to be encrypted or plain when the other side first says something. The one who
// asks speaks first in both, so that nothing is written before that.
type either struct {
	net.Conn
	config *tls.Config

	first sync.Once
	way   io.ReadWriter
	err   error
}

func (c *either) Read(p []byte) (int, error) {
	c.first.Do(c.look)
	if c.err != nil {
		return 0, c.err
	}
	return c.way.Read(p)
}

func (c *either) Write(p []byte) (int, error) {
	c.first.Do(c.look)
	if c.err != nil {
		return 0, c.err
	}
	return c.way.Write(p)
}

// look reads the first byte, within the deadline that the server gave for it.
func (c *either) look() {
	var first [1]byte
	if _, c.err = io.ReadFull(c.Conn, first[:]); c.err != nil {
		return
	}
	again := &replayed{Conn: c.Conn, r: io.MultiReader(bytes.NewReader(first[:]), c.Conn)}
	if c.way = again; first[0] == tlsRecord {
		c.way = tls.Server(again, c.config)
	}
}

// replayed is a connection whose first byte was read.
type replayed struct {
	net.Conn
	r io.Reader
}

func (c *replayed) Read(p []byte) (int, error) { return c.r.Read(p) }

// dialPeer makes an encrypted connection to a worker of another server, which must show that it is a worker.
func (s *Server) dialPeer(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := &tls.Dialer{NetDialer: peerDialer, Config: s.certificate.ClientConfig(peerService)}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	return dialer.DialContext(ctx, network, address)
}
