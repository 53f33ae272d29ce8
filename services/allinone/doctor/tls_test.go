package doctor

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"devpilot.io/bitbucket/pkg/checkup"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/pkg/transport"
)

const (
	life  = time.Hour
	ended = -time.Minute
)

// Services that speak TLS to each other: well where all is, and the right word where a certificate has ended or is by
// somebody else, on either side.
func TestRun_servicesThatEncrypt(t *testing.T) {
	w := newWorld(t)
	authority, other := testkit.Authority(t), testkit.Authority(t)
	own := testkit.Certificate(t, t.TempDir(), "gateway", life, authority, authority)
	for _, name := range []string{"auth", "repo", "webhook", "deployer"} {
		files := testkit.Certificate(t, t.TempDir(), name, life, authority, authority)
		c, err := transport.Open(transport.Config{Files: files, Service: name, Logger: logs.Discard()})
		if err != nil {
			t.Fatal(err)
		}
		w.env[addressVariable(name)] = healthy(t, healthpb.HealthCheckResponse_SERVING, grpc.Creds(c.Server([]string{"gateway"})))
	}
	with := func(files transport.Files, more ...string) map[string]string {
		env := map[string]string{"DEVPILOT_TLS_CERT_FILE": files.Certificate, "DEVPILOT_TLS_KEY_FILE": files.Key, "DEVPILOT_TLS_CA_FILE": files.Authorities}
		if len(more) > 0 {
			env["DEVPILOT_AUTH_ADDR"] = more[0]
		}
		return env
	}
	r := w.report(with(own), "--service=gateway")
	for _, name := range []string{"settings", "service-auth", "service-repo", "service-webhook", "service-deployer"} {
		if c := r.check(t, name); c.State != checkup.OK {
			t.Errorf("%+v", c)
		}
	}
	authOf := func(life time.Duration, issuer, trusted *transport.Authority) string {
		return encrypting(t, testkit.Certificate(t, t.TempDir(), "auth", life, issuer, trusted))
	}
	w.fails([]failing{
		{"its own certificate has ended", "gateway", "settings", with(testkit.Certificate(t, t.TempDir(), "gateway", ended, authority, authority)), checkup.Failed, "ended 20", "does not start"},
		{"its own authority is another", "gateway", "settings", with(testkit.Certificate(t, t.TempDir(), "gateway", life, authority, other)), checkup.Failed, "is not by the authorities in", "does not start"},
		{"auth's certificate has ended", "gateway", "service-auth", with(own, authOf(ended, authority, authority)), checkup.Failed, "is not trusted: its certificate ended 20", "devpilot certificates"},
		{"auth's authority is another", "gateway", "service-auth", with(own, authOf(life, other, authority)), checkup.Failed, "is not trusted: its certificate is by an authority that is not known here", "DEVPILOT_TLS_CA_FILE"},
		{"auth trusts another authority", "gateway", "service-auth", with(own, authOf(life, authority, other)), checkup.Failed, "refuses the certificate of gateway: remote error: tls", "DEVPILOT_TLS_CA_FILE of auth"},
		{"auth does not encrypt", "gateway", "service-auth", with(own, healthy(t, healthpb.HealthCheckResponse_SERVING)), checkup.Failed, "does not encrypt", "DEVPILOT_TLS_CERT_FILE"},
		{"auth is gone", "gateway", "service-auth", with(own, "127.0.0.1:1"), checkup.Failed, "does not answer", "Start auth"},
	})
	if c := w.report(with(testkit.Certificate(t, t.TempDir(), "gateway", ended, authority, authority)), "--service=gateway").check(t, "service-auth"); c.State != checkup.Skipped || c.Found != "Without the certificate nobody is called; see settings." {
		t.Errorf("%+v", c)
	}
}

// encrypting is a service that serves with a certificate which ours would not use, and takes only callers of its authorities.
func encrypting(t *testing.T, files transport.Files) (address string) {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(files.Certificate, files.Key)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(files.Authorities)
	if err != nil {
		t.Fatal(err)
	}
	callers := x509.NewCertPool()
	callers.AppendCertsFromPEM(text)
	return healthy(t, healthpb.HealthCheckResponse_SERVING, grpc.Creds(credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: callers,
	})))
}

// Stores that encrypt: the same of their certificates.
func TestRun_storesThatEncrypt(t *testing.T) {
	w := newWorld(t)
	certificate, key := testkit.StoreCertificate(t, "127.0.0.1")
	late, lateKey := testkit.EndingStoreCertificate(t, "127.0.0.1", ended)
	elsewhere, elsewhereKey := testkit.StoreCertificate(t, "elsewhere.test")
	nats := func(certificate, key string) string {
		return realNATS(t, func(o *server.Options) { o.TLS, o.TLSConfig = true, serving(t, certificate, key) })
	}
	redis := func(certificate, key string) string {
		l, err := tls.Listen("tcp", "127.0.0.1:0", serving(t, certificate, key))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		go shake(l)
		return "rediss://" + l.Addr().String()
	}
	if c := w.report(map[string]string{"DEVPILOT_NATS_URL": nats(certificate, key), "DEVPILOT_NATS_CA_FILE": certificate}, "--service=auth").check(t, "nats"); c.State != checkup.OK {
		t.Errorf("%+v", c)
	}
	w.fails([]failing{
		{"NATS's certificate has ended", "auth", "nats", map[string]string{"DEVPILOT_NATS_URL": nats(late, lateKey), "DEVPILOT_NATS_CA_FILE": late}, checkup.Failed, "is not trusted: its certificate ended 20", "Renew its certificate"},
		{"NATS's authority is another", "auth", "nats", map[string]string{"DEVPILOT_NATS_URL": nats(certificate, key), "DEVPILOT_NATS_CA_FILE": late}, checkup.Failed, "by an authority that is not known here", "DEVPILOT_NATS_CA_FILE"},
		{"NATS has another name", "auth", "nats", map[string]string{"DEVPILOT_NATS_URL": nats(elsewhere, elsewhereKey), "DEVPILOT_NATS_CA_FILE": elsewhere}, checkup.Failed, "for another name", "DEVPILOT_NATS_URL"},
		{"Redis's certificate has ended", "auth", "redis", map[string]string{"DEVPILOT_REDIS_URL": redis(late, lateKey), "DEVPILOT_REDIS_CA_FILE": late}, checkup.Failed, "is not trusted: its certificate ended 20", "Renew its certificate"},
		{"Redis's authority is another", "auth", "redis", map[string]string{"DEVPILOT_REDIS_URL": redis(certificate, key), "DEVPILOT_REDIS_CA_FILE": late}, checkup.Failed, "by an authority that is not known here", "DEVPILOT_REDIS_CA_FILE"},
	})
}

func serving(t *testing.T, certificate, key string) *tls.Config {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}
}

// shake makes the handshake of every connection, and says no more.
func shake(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			_, _ = c.Read(make([]byte, 1)) // whoever does not trust us says so, and goes
		}()
	}
}
