package gateway_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/gateway"
)

// front serves TLS with a certificate that can be changed, as a proxy before the product does.
type front struct {
	*httptest.Server
	shown atomic.Pointer[tls.Certificate]
}

func newFront(t *testing.T) *front {
	t.Helper()
	f := &front{Server: httptest.NewUnstartedServer(http.NotFoundHandler())}
	f.TLS = &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{*f.shown.Load()}}, nil
	}}
	f.EnableHTTP2 = false
	f.StartTLS()
	t.Cleanup(f.Close)
	return f
}

// show has it present a certificate that ends then.
func (f *front) show(t *testing.T, end time.Time) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(end.Unix()), Subject: pkix.Name{CommonName: "devpilot.example.com"},
		NotBefore: end.Add(-90 * 24 * time.Hour), NotAfter: end,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	f.shown.Store(&tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key})
}

// TestNotify_certificate: the certificate of the public URL is told of before it ends, when it has, and
// when it was renewed, each once; while it cannot be read nothing is said.
func TestNotify_certificate(t *testing.T) {
	f := newFront(t)
	g := start(t, allowLoopback, func(c *gateway.Config) { c.PublicURL = f.URL })
	g.workspace("acme")
	r := newReceiver(t)
	day := 24 * time.Hour
	end := g.clock.now().Add(20 * day)
	f.show(t, end)
	g.addTarget("WEBHOOK", r.url, nil, "CERTIFICATE_EXPIRING")
	for n, c := range []struct {
		pass time.Duration
		show time.Duration // from now; zero leaves what is shown
		want []string
	}{
		{7 * day, 0, []string{`"certificate.expiring"`, "expires soon", end.UTC().Format("2006-01-02")}},
		{14 * day, 0, []string{`"certificate.expiring"`, "has expired"}},
		{time.Hour, 90 * day, []string{`"certificate.renewed"`, "was renewed"}},
		{80 * day, 0, []string{`"certificate.expiring"`, "expires soon"}},
	} {
		if c.show != 0 {
			f.show(t, g.clock.now().Add(c.show))
		}
		g.clock.forward(c.pass)
		got := string(r.want(t, n+1)[n].body)
		for _, want := range c.want {
			if !strings.Contains(got, want) {
				t.Errorf("%d: %s, not %s", n, got, want)
			}
		}
		g.clock.forward(2 * time.Minute)
	}
	f.Close()
	g.clock.forward(40 * day)
	testkit.Eventually(t, 30*time.Second, func() error {
		if !g.logs.Contains("was not read") {
			return errors.New("it was not tried")
		}
		return nil
	})
	if got := len(r.want(t, 4)); got != 4 {
		t.Errorf("%d told", got)
	}
}
