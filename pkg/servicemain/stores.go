package servicemain

import (
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/redis/go-redis/v9"

	"devpilot.io/bitbucket/pkg/redisx"
	"devpilot.io/bitbucket/pkg/stream"
)

// readable refuses a setting whose file cannot be read. An empty one is not set.
func readable(name, path string) error {
	if path == "" {
		return nil
	}
	if _, err := os.ReadFile(path); err != nil {
		return fmt.Errorf("--%s (%s%s): %w", name, envPrefix, strings.ToUpper(strings.ReplaceAll(name, "-", "_")), err)
	}
	return nil
}

// CheckEmbedded refuses what is said of a store whose address is not: a program with stores of its own would start
// one of these instead, which nothing of it protects.
func (f StoreFlags) CheckEmbedded() error {
	const says = "DEVPILOT_%s_URL is not set, so that an embedded one would start, and DEVPILOT_%s_… names files for another one: set the address too, or leave the files out"
	var errs []error
	if f.NATSURL.IsZero() && f.NATSCredentialsFile+f.NATSNkeyFile+f.NATSCAFile+f.NATSCertFile+f.NATSKeyFile != "" {
		errs = append(errs, fmt.Errorf(says, "NATS", "NATS"))
	}
	if f.RedisURL.IsZero() && f.RedisCAFile+f.RedisCertFile+f.RedisKeyFile != "" {
		errs = append(errs, fmt.Errorf(says, "REDIS", "REDIS"))
	}
	return errors.Join(errs...)
}

// EmbeddedNeed is what the volume of a new store must have room for where a program has a NATS of its own, in bytes.
func (f StoreFlags) EmbeddedNeed() int64 {
	if f.StreamsMiB == 0 {
		return stream.LeastBytes + stream.RecordsBytes
	}
	return f.StreamsMiB<<20 + stream.RecordsBytes
}

// NATSOptions are how NATS is told who this is, and is known. The error is a sentence without what is in the files.
func (f StoreFlags) NATSOptions() ([]nats.Option, error) {
	if err := errors.Join(readable("nats-credentials-file", f.NATSCredentialsFile), readable("nats-nkey-file", f.NATSNkeyFile),
		readable("nats-ca-file", f.NATSCAFile), readable("nats-cert-file", f.NATSCertFile), readable("nats-key-file", f.NATSKeyFile)); err != nil {
		return nil, err
	}
	var opts []nats.Option
	switch {
	case f.NATSCredentialsFile != "" && f.NATSNkeyFile != "":
		return nil, errors.New("--nats-credentials-file and --nats-nkey-file (DEVPILOT_NATS_CREDENTIALS_FILE, DEVPILOT_NATS_NKEY_FILE) exclude each other: leave one out")
	case f.NATSCredentialsFile != "":
		opts = append(opts, nats.UserCredentials(f.NATSCredentialsFile))
	case f.NATSNkeyFile != "":
		nkey, err := nats.NkeyOptionFromSeed(f.NATSNkeyFile)
		if err != nil { // its text may quote the file
			return nil, fmt.Errorf("--nats-nkey-file (DEVPILOT_NATS_NKEY_FILE): %s holds no seed of an nkey, which begins with SU", f.NATSNkeyFile)
		}
		opts = append(opts, nkey)
	}
	if (f.NATSCertFile == "") != (f.NATSKeyFile == "") {
		return nil, errors.New("--nats-cert-file and --nats-key-file (DEVPILOT_NATS_CERT_FILE, DEVPILOT_NATS_KEY_FILE) go together: set both, or none")
	}
	if f.NATSCertFile != "" {
		opts = append(opts, nats.ClientCert(f.NATSCertFile, f.NATSKeyFile))
	}
	if f.NATSCAFile != "" {
		opts = append(opts, nats.RootCAs(f.NATSCAFile))
	}
	return opts, nil
}

// NATSTrouble says what to do about a connection that NATS does not give, where that is known.
func NATSTrouble(err error) error {
	var untrusted *tls.CertificateVerificationError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &untrusted):
		return fmt.Errorf("the certificate of NATS is not trusted: DEVPILOT_NATS_CA_FILE must have its authority, and DEVPILOT_NATS_URL a name that it is for: %w", err)
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAuthRevoked), errors.Is(err, nats.ErrNkeysNotSupported):
		return fmt.Errorf("NATS does not let this process in: put right DEVPILOT_NATS_CREDENTIALS_FILE, DEVPILOT_NATS_NKEY_FILE, or the user in DEVPILOT_NATS_URL: %w", err)
	case errors.Is(err, nats.ErrSecureConnWanted):
		return fmt.Errorf("NATS does not encrypt, and this process is to (DEVPILOT_NATS_URL, DEVPILOT_NATS_CA_FILE): have it serve TLS: %w", err)
	// Who is sent away for want of a certificate sees the reason, or that the connection is gone, whichever comes first.
	case strings.Contains(err.Error(), "tls: certificate required"), strings.Contains(err.Error(), "tls: bad certificate"),
		errors.Is(err, nats.ErrTLS) && strings.Contains(err.Error(), "closed by remote after TLS handshake"):
		return fmt.Errorf("NATS wants a certificate of this process that it knows: put right DEVPILOT_NATS_CERT_FILE and DEVPILOT_NATS_KEY_FILE: %w", err)
	}
	return err
}

// OpenRedis makes the client of Redis; it connects later. Where nothing is encrypted, sentinels and clusters may send it
// beyond this machine as far as plain lets them. The error is a sentence without what is in the URL.
func (f StoreFlags) OpenRedis(plain PlaintextFlags) (redis.UniversalClient, error) {
	if err := errors.Join(readable("redis-ca-file", f.RedisCAFile), readable("redis-cert-file", f.RedisCertFile), readable("redis-key-file", f.RedisKeyFile)); err != nil {
		return nil, err
	}
	client, err := redisx.ConnectSecure(f.RedisURL.Reveal(), f.RedisSecurity(plain))
	if err != nil {
		return nil, fmt.Errorf("DEVPILOT_REDIS_URL: %w", err)
	}
	return client, nil
}

// RedisSecurity says how connections to Redis are protected.
func (f StoreFlags) RedisSecurity(plain PlaintextFlags) redisx.Security {
	return redisx.Security{Authorities: f.RedisCAFile, Certificate: f.RedisCertFile, Key: f.RedisKeyFile, Plaintext: plain.allows(plainRedis)}
}
