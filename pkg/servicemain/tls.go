package servicemain

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"devpilot.io/bitbucket/pkg/lifecycle"
	"devpilot.io/bitbucket/pkg/redisx"
	"devpilot.io/bitbucket/pkg/rpc"
	"devpilot.io/bitbucket/pkg/transport"
)

// What may go over the network unencrypted (PlaintextFlags).
const (
	plainServices = "services"
	plainNATS     = "nats"
	plainRedis    = "redis"
)

func (f PlaintextFlags) check() error {
	for _, what := range f.AllowPlaintext {
		if !slices.Contains([]string{plainServices, plainNATS, plainRedis}, what) {
			return fmt.Errorf("--allow-plaintext (DEVPILOT_ALLOW_PLAINTEXT) does not know %q: give some of services, nats, redis, joined by commas", what)
		}
	}
	return nil
}

func (f PlaintextFlags) allows(what string) bool { return slices.Contains(f.AllowPlaintext, what) }

// CheckStores refuses stores beyond this machine that nothing encrypts the way to. Addresses may hold passwords: errors name
// the host.
func (f PlaintextFlags) CheckStores(s StoreFlags) error {
	if err := f.check(); err != nil {
		return err
	}
	for address := range strings.SplitSeq(s.NATSURL.Reveal(), ",") {
		if host, plain := plainHost(address, "nats", "ws"); plain && s.NATSCAFile == "" && s.NATSCertFile == "" && !f.allows(plainNATS) && !transport.Loopback(host) {
			return fmt.Errorf("the NATS of DEVPILOT_NATS_URL is at %s, beyond this machine, and nothing encrypts what is said to it: begin its address with tls://, or set DEVPILOT_NATS_CA_FILE, or, where something else protects the network, add nats to DEVPILOT_ALLOW_PLAINTEXT", host)
		}
	}
	redis, err := redisx.Parse(s.RedisURL.Reveal())
	if err != nil || redis.Encrypted || f.allows(plainRedis) {
		return nil // who connects says what is wrong with the URL
	}
	for _, host := range redis.Addresses {
		if !transport.Loopback(host) {
			return fmt.Errorf("the Redis of DEVPILOT_REDIS_URL is at %s, beyond this machine, and nothing encrypts what is said to it: begin its address with rediss://, or, where something else protects the network, add redis to DEVPILOT_ALLOW_PLAINTEXT", host)
		}
	}
	return nil
}

// plainHost returns the host of an address whose scheme encrypts nothing; the first scheme is that of an address without one.
func plainHost(address string, schemes ...string) (host string, plain bool) {
	if address = strings.TrimSpace(address); address == "" {
		return "", false
	}
	if !strings.Contains(address, "://") {
		address = schemes[0] + "://" + address
	}
	u, err := url.Parse(address)
	if err != nil {
		return "", false // who connects says so
	}
	return u.Host, slices.Contains(schemes, u.Scheme)
}

// certificate opens the certificate of a service; nil where none is set.
func (f TLSFlags) certificate(service string, logger *slog.Logger, metrics prometheus.Registerer) (*transport.Certificate, error) {
	if f == (TLSFlags{}) {
		return nil, nil
	}
	const settings = "--tls-cert-file, --tls-key-file, --tls-ca-file (DEVPILOT_TLS_CERT_FILE, DEVPILOT_TLS_KEY_FILE, DEVPILOT_TLS_CA_FILE)"
	if f.TLSCertFile == "" || f.TLSKeyFile == "" || f.TLSCAFile == "" {
		return nil, errors.New(settings + " go together: set all three, or none")
	}
	c, err := transport.Open(transport.Config{
		Files:   transport.Files{Certificate: f.TLSCertFile, Key: f.TLSKeyFile, Authorities: f.TLSCAFile},
		Service: service, Logger: logger, Registerer: metrics,
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", settings, err)
	}
	return c, nil
}

// Open opens the certificate of a service, for tools that call as it; nil where none is set.
func (f TLSFlags) Open(service string, logger *slog.Logger) (*transport.Certificate, error) {
	return f.certificate(service, logger, prometheus.NewRegistry())
}

// Certificate opens the certificate that HTTP is served with; nil where none is set.
func (f HTTPListenFlags) Certificate(logger *slog.Logger, metrics prometheus.Registerer) (*transport.Certificate, error) {
	if f.ListenCertFile == "" && f.ListenKeyFile == "" {
		return nil, nil
	}
	const settings = "--listen-cert-file, --listen-key-file (DEVPILOT_LISTEN_CERT_FILE, DEVPILOT_LISTEN_KEY_FILE)"
	if f.ListenCertFile == "" || f.ListenKeyFile == "" {
		return nil, errors.New(settings + " go together: set both, or none")
	}
	c, err := transport.Open(transport.Config{
		Files: transport.Files{Certificate: f.ListenCertFile, Key: f.ListenKeyFile}, Logger: logger, Registerer: metrics,
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", settings, err)
	}
	return c, nil
}

// Followed is the part of a process that reads a certificate again when it changes; none without one.
func Followed(name string, c *transport.Certificate) []lifecycle.Component {
	if c == nil {
		return nil
	}
	return []lifecycle.Component{{Name: name, Run: c.Run}}
}

func (m *program) openCertificates() (err error) {
	if m.certificate, err = m.base.certificate(m.name, m.env.Logger, m.registry); err != nil {
		return err
	}
	m.web, err = m.http.Certificate(m.env.Logger, m.registry)
	return err
}

// checkPlaintext refuses addresses beyond this machine that nothing is encrypted to, and those that are none.
func (m *program) checkPlaintext() error {
	if err := m.base.CheckStores(m.base.StoreFlags); err != nil {
		return err
	}
	listen := m.grpc.GRPCListen
	if !m.servesGRPC {
		listen = ""
	}
	return m.base.CheckServices(m.base.TLSFlags, listen, m.addresses)
}

// CheckServices refuses an address to serve gRPC on (empty: none is) and addresses of other services beyond this machine
// that nothing is encrypted to, and those that are none.
func (f PlaintextFlags) CheckServices(encrypted TLSFlags, listen string, addresses map[string]string) error {
	const remedy = "set DEVPILOT_TLS_CERT_FILE, DEVPILOT_TLS_KEY_FILE and DEVPILOT_TLS_CA_FILE (devpilot certificates makes the files), keep to 127.0.0.1, or, where something else protects the network, set DEVPILOT_ALLOW_PLAINTEXT=services"
	open := encrypted == (TLSFlags{}) && !f.allows(plainServices)
	if listen != "" && open && !transport.Loopback(listen) {
		return fmt.Errorf("--grpc-listen (DEVPILOT_GRPC_LISTEN) is %s, which others on the network reach, and nothing encrypts what is said there: %s", listen, remedy)
	}
	for name, target := range addresses {
		setting := fmt.Sprintf("--%s-addr (%s)", name, addressVariable(name))
		hosts, err := rpc.Hosts(target)
		if err != nil {
			return fmt.Errorf("%s: %w", setting, err)
		}
		for _, host := range hosts {
			if open && !transport.Loopback(host) {
				return fmt.Errorf("%s is at %s, beyond this machine, and nothing encrypts what is said to it: %s", setting, strings.TrimSpace(host), remedy)
			}
		}
	}
	return nil
}
