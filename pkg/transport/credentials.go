package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"devpilot.io/bitbucket/pkg/logs"
)

// Server is for a gRPC server that callers, by their names, may connect to.
func (c *Certificate) Server(callers []string) credentials.TransportCredentials {
	return &following{certificate: c, config: func(p *pair) *tls.Config { return p.server(callers) }}
}

// Client is for a gRPC client that calls a service: who answers must have that service's certificate.
func (c *Certificate) Client(service string) credentials.TransportCredentials {
	return &following{certificate: c, config: func(p *pair) *tls.Config { return p.client(service) }}
}

// ServerConfig is for a server of another protocol that callers, by their names, may connect to.
func (c *Certificate) ServerConfig(callers ...string) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.current.Load().server(callers), nil },
	}
}

// ClientConfig is for one connection to a service over another protocol: the next is held against the certificate and
// the authorities of its own time.
func (c *Certificate) ClientConfig(service string) *tls.Config {
	return c.current.Load().client(service)
}

func (p *pair) server(callers []string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{p.certificate},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: p.roots,
		SessionTicketsDisabled: true, // every connection is held against the authorities of its own time
		VerifyConnection: func(s tls.ConnectionState) error {
			service, err := ServiceOf(s.VerifiedChains[0][0])
			if err == nil && !slices.Contains(callers, service) {
				err = fmt.Errorf("the service %s calls nothing here", service)
			}
			return err
		},
	}
}

func (p *pair) client(service string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: p.roots, ServerName: NameOf(service),
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &p.certificate, nil },
	}
}

// Try makes one connection to a service at host:port, and says what it is refused for, here or there.
func (c *Certificate) Try(ctx context.Context, address, service string) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	secured, _, err := c.Client(service).ClientHandshake(ctx, NameOf(service), conn)
	if err != nil {
		return err
	}
	if until, ok := ctx.Deadline(); ok {
		if err := secured.SetReadDeadline(until); err != nil {
			return err
		}
	}
	_, err = secured.Read(make([]byte, 1)) // who refuses our certificate says so now; who takes it speaks first
	return err
}

// CallerOf tells which service's certificate the call came with, on a server with the credentials of [Certificate.Server].
func CallerOf(ctx context.Context) (string, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return "", errors.New("the call came over no connection")
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.VerifiedChains) == 0 {
		return "", errors.New("the call came without a certificate")
	}
	return ServiceOf(info.State.VerifiedChains[0][0])
}

// following are credentials that each connection makes of the certificate of that moment.
type following struct {
	certificate *Certificate
	config      func(*pair) *tls.Config
}

func (f *following) now() credentials.TransportCredentials {
	return credentials.NewTLS(f.config(f.certificate.current.Load()))
}

// ClientHandshake implements credentials.TransportCredentials.
func (f *following) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return f.now().ClientHandshake(ctx, authority, conn)
}

// ServerHandshake implements credentials.TransportCredentials. gRPC says nothing of what is refused here.
func (f *following) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secured, info, err := f.now().ServerHandshake(conn)
	if err != nil && !errors.Is(err, io.EOF) { // one that only looks whether somebody listens says nothing
		f.certificate.metrics.refused.Inc()
		f.certificate.cfg.Logger.Warn("a connection was refused", slog.String(logs.KeyAddr, conn.RemoteAddr().String()), logs.Err(err))
	}
	return secured, info, err
}

// Info implements credentials.TransportCredentials.
func (f *following) Info() credentials.ProtocolInfo { return f.now().Info() }

// Clone implements credentials.TransportCredentials.
func (f *following) Clone() credentials.TransportCredentials { return f }

// OverrideServerName implements credentials.TransportCredentials. The name is the service's, always.
func (*following) OverrideServerName(string) error {
	return errors.New("transport: the name of the server follows from the service")
}
