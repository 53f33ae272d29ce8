package redisx

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/redis/go-redis/v9"

	"devpilot.io/bitbucket/pkg/transport"
)

// Security says how connections are protected. The files are PEM, for a rediss:// URL, and read for every
// connection.
type Security struct {
	Authorities      string // whom Redis' certificate is by; empty: one of the system's
	Certificate, Key string // what Redis is shown; empty: nothing
	// Plaintext lets sentinels and nodes of a cluster send the process to others beyond this machine where
	// the URL encrypts nothing. The addresses in the URL are for the caller to check.
	Plaintext bool
}

func (s Security) files() bool { return s.Authorities+s.Certificate+s.Key != "" }

// apply has connections made with what is in the files at that time, and none in clear to where it may not.
func (s Security) apply(t Target, opts *redis.UniversalOptions, timeout time.Duration) error {
	if s.files() && opts.TLSConfig == nil {
		return errors.New("files for an encrypted connection are set (DEVPILOT_REDIS_CA_FILE, DEVPILOT_REDIS_CERT_FILE, DEVPILOT_REDIS_KEY_FILE) and the Redis URL does not begin with rediss://")
	}
	plain := &net.Dialer{Timeout: timeout}
	switch base := opts.TLSConfig; {
	case base != nil:
		if _, err := s.config(base, t.Addresses[0]); err != nil {
			return err
		}
		opts.Dialer = func(ctx context.Context, network, address string) (net.Conn, error) {
			config, err := s.config(base, address)
			if err != nil {
				return nil, err
			}
			return (&tls.Dialer{NetDialer: plain, Config: config}).DialContext(ctx, network, address)
		}
	case t.Mode != ModeServer:
		local := s.local(t)
		opts.Dialer = func(ctx context.Context, network, address string) (net.Conn, error) {
			if local && !transport.Loopback(address) {
				return nil, fmt.Errorf("redisx: Redis is at %s, beyond this machine, as the %s says, and nothing encrypts what is said to it: begin the URL with rediss://, or, where something else protects the network, add redis to DEVPILOT_ALLOW_PLAINTEXT", address, t.Mode)
			}
			return plain.DialContext(ctx, network, address)
		}
	}
	return nil
}

// local tells that connections must stay on this machine: those of the URL do, and nobody said that others
// need not.
func (s Security) local(t Target) bool {
	if s.Plaintext {
		return false
	}
	for _, address := range t.Addresses {
		if !transport.Loopback(address) {
			return false
		}
	}
	return true
}

// config is what a connection to address is made with. Redis' certificate is to be for the name that is
// dialled. Sentinels and clusters may know their servers by IP address alone: where the URL has a name, such a
// server's certificate is to be for that.
func (s Security) config(base *tls.Config, address string) (*tls.Config, error) {
	config := base.Clone()
	if host := hostOf(address); net.ParseIP(host) == nil || net.ParseIP(base.ServerName) != nil {
		config.ServerName = host
	}
	if s.Authorities != "" {
		text, err := os.ReadFile(s.Authorities)
		if err != nil {
			return nil, err
		}
		if config.RootCAs, _, err = transport.Pool(text); err != nil {
			return nil, fmt.Errorf("%s: %w", s.Authorities, err)
		}
	}
	if s.Certificate != "" || s.Key != "" {
		pair, err := tls.LoadX509KeyPair(s.Certificate, s.Key)
		if err != nil {
			return nil, fmt.Errorf("the certificate and key to show to Redis: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// IsUntrusted tells that Redis shows a certificate of an authority that is not trusted, or for another name. One that has ended
// is trouble that passes.
func IsUntrusted(err error) bool {
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	return errors.As(err, &authority) || errors.As(err, &name)
}
