package servicemain_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"devpilot.io/bitbucket/pkg/redisx"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/servicemain"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/pkg/testkit"
)

func file(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// seed writes an nkey's seed and returns the public key.
func seed(t *testing.T) (path, public, secret string) {
	t.Helper()
	pair, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	text, err := pair.Seed()
	if err != nil {
		t.Fatal(err)
	}
	if public, err = pair.PublicKey(); err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "user.nk")
	file(t, path, text)
	return path, public, string(text)
}

func TestNATS_encryptedAndKnownByNkeyAndCertificate(t *testing.T) {
	t.Parallel()
	certificate, key := testkit.StoreCertificate(t, "127.0.0.1")
	other, _ := testkit.StoreCertificate(t, "127.0.0.1")
	mine, public, _ := seed(t)
	stranger, _, secret := seed(t)
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(pair.Leaf)
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: -1, NoSigs: true, NoLog: true, TLSVerify: true, Nkeys: []*server.NkeyUser{{Nkey: public}},
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	defer s.Shutdown()
	if !s.ReadyForConnections(time.Minute) {
		t.Fatal("the server does not start")
	}
	_, port, _ := net.SplitHostPort(s.Addr().String())
	right := servicemain.StoreFlags{NATSNkeyFile: mine, NATSCAFile: certificate, NATSCertFile: certificate, NATSKeyFile: key}
	for name, c := range map[string]struct {
		spoil func(*servicemain.StoreFlags)
		want  string
	}{
		"right":                  {func(*servicemain.StoreFlags) {}, ""},
		"another authority":      {func(f *servicemain.StoreFlags) { f.NATSCAFile = other }, "DEVPILOT_NATS_CA_FILE must have its authority"},
		"a stranger's nkey":      {func(f *servicemain.StoreFlags) { f.NATSNkeyFile = stranger }, "NATS does not let this process in: put right DEVPILOT_NATS_CREDENTIALS_FILE, DEVPILOT_NATS_NKEY_FILE"},
		"no nkey":                {func(f *servicemain.StoreFlags) { f.NATSNkeyFile = "" }, "NATS does not let this process in"},
		"no certificate":         {func(f *servicemain.StoreFlags) { f.NATSCertFile, f.NATSKeyFile = "", "" }, "NATS wants a certificate of this process"},
		"no seed in the file":    {func(f *servicemain.StoreFlags) { f.NATSNkeyFile = key }, "holds no seed of an nkey"},
		"a file that is gone":    {func(f *servicemain.StoreFlags) { f.NATSCredentialsFile = "/nowhere" }, "--nats-credentials-file (DEVPILOT_NATS_CREDENTIALS_FILE): open /nowhere"},
		"two ways to be known":   {func(f *servicemain.StoreFlags) { f.NATSCredentialsFile = mine }, "exclude each other"},
		"a certificate, no key":  {func(f *servicemain.StoreFlags) { f.NATSKeyFile = "" }, "go together"},
		"authorities of nothing": {func(f *servicemain.StoreFlags) { f.NATSCAFile = mine }, "failed to parse root certificate"},
	} {
		f := right
		c.spoil(&f)
		opts, err := f.NATSOptions()
		if err == nil {
			nc, _, failed := stream.Connect("nats://127.0.0.1:"+port, "test", opts...)
			if failed == nil {
				nc.Close()
			}
			err = servicemain.NATSTrouble(failed)
		}
		if (c.want == "") != (err == nil) || err != nil && (!strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "\n")) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRedis_encryptedWithAUserOfItsList(t *testing.T) {
	t.Parallel()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		t.Fatal("install redis-server")
	}
	certificate, key := testkit.StoreCertificate(t, "127.0.0.1")
	other, otherKey := testkit.StoreCertificate(t, "127.0.0.1")
	port, conf := testkit.FreePort(t), filepath.Join(t.TempDir(), "redis.conf")
	file(t, conf, []byte(strings.Join([]string{
		"bind 127.0.0.1", "port 0", "tls-port " + strconv.Itoa(port), "tls-cert-file " + certificate, "tls-key-file " + key, "tls-ca-cert-file " + certificate,
		`save ""`, "appendonly no", "user default off", "user devpilot on >s3cr3t ~* +@all", "",
	}, "\n")))
	testkit.StartProcess(t, "redis-server", testkit.Logger(t).Writer(), func() *exec.Cmd { return exec.Command(path, conf) })
	url := "rediss://devpilot:s3cr3t@127.0.0.1:" + strconv.Itoa(port) + "/0"
	right := servicemain.StoreFlags{RedisURL: seal.NewSecret(url), RedisCAFile: certificate, RedisCertFile: certificate, RedisKeyFile: key}
	ping := func(f servicemain.StoreFlags) error {
		client, err := f.OpenRedis(servicemain.PlaintextFlags{})
		if err != nil {
			return err
		}
		defer client.Close()
		return client.Ping(t.Context()).Err()
	}
	testkit.Eventually(t, time.Minute, func() error { return ping(right) })
	if err := ping(right); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		spoil func(*servicemain.StoreFlags)
		holds func(error) bool
	}{
		"another authority": {func(f *servicemain.StoreFlags) { f.RedisCAFile = other }, redisx.IsUntrusted},
		"another password": {func(f *servicemain.StoreFlags) {
			f.RedisURL = seal.NewSecret(strings.Replace(url, "s3cr3t", "s3cr3t2", 1))
		}, redisx.IsRefusal},
		"a certificate that Redis does not know": {func(f *servicemain.StoreFlags) { f.RedisCertFile, f.RedisKeyFile = other, otherKey }, func(err error) bool { return errors.Is(err, redisx.ErrUnavailable) }},
		"in clear": {func(f *servicemain.StoreFlags) {
			f.RedisURL = seal.NewSecret(strings.Replace(url, "rediss:", "redis:", 1))
		}, func(err error) bool { return strings.Contains(err.Error(), "does not begin with rediss://") }},
		"a file that is gone": {func(f *servicemain.StoreFlags) { f.RedisCAFile = "/nowhere" }, func(err error) bool { return strings.Contains(err.Error(), "DEVPILOT_REDIS_CA_FILE): open /nowhere") }},
	} {
		f := right
		c.spoil(&f)
		var err error
		testkit.Eventually(t, time.Minute, func() error { // on a busy machine one try may take too long
			if err = ping(f); err == nil || c.holds(err) {
				return nil
			}
			return err
		})
		if err == nil || strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
