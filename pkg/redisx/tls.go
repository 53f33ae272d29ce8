package redisx

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/redis/go-redis/v9"

	"devpilot.io/bitbucket/pkg/transport"
)

// secure has connections made with what is in the files at that time.
func (f TLS) secure(opts *redis.Options) error {
	if opts.TLSConfig == nil {
		return errors.New("files for an encrypted connection are set (DEVPILOT_REDIS_CA_FILE, DEVPILOT_REDIS_CERT_FILE, DEVPILOT_REDIS_KEY_FILE) and the Redis URL does not begin with rediss://")
	}
	if _, err := f.config(opts.TLSConfig); err != nil {
		return err
	}
	base, timeout := opts.TLSConfig, opts.DialTimeout
	opts.Dialer = func(ctx context.Context, network, address string) (net.Conn, error) {
		config, err := f.config(base)
		if err != nil {
			return nil, err
		}
		return (&tls.Dialer{NetDialer: &net.Dialer{Timeout: timeout}, Config: config}).DialContext(ctx, network, address)
	}
	return nil
}

func (f TLS) config(base *tls.Config) (*tls.Config, error) {
	config := base.Clone()
	if f.Authorities != "" {
		text, err := os.ReadFile(f.Authorities)
		if err != nil {
			return nil, err
		}
		if config.RootCAs, _, err = transport.Pool(text); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Authorities, err)
		}
	}
	if f.Certificate != "" || f.Key != "" {
		pair, err := tls.LoadX509KeyPair(f.Certificate, f.Key)
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
