package transport_test

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/pkg/transport"
)

const day = 24 * time.Hour

func TestOpen_refusesWhatOthersWouldRefuse(t *testing.T) {
	t.Parallel()
	ours, logger := testkit.Authority(t), testkit.Logger(t).Logger
	for name, c := range map[string]struct {
		spoil func(t *testing.T, f *transport.Files)
		life  time.Duration
		want  string
	}{
		"no certificate":    {func(_ *testing.T, f *transport.Files) { f.Certificate += ".gone" }, day, "tls.crt.gone"},
		"no key":            {func(_ *testing.T, f *transport.Files) { f.Key += ".gone" }, day, "tls.key.gone"},
		"no authorities":    {func(_ *testing.T, f *transport.Files) { f.Authorities += ".gone" }, day, "ca.crt.gone"},
		"empty authorities": {func(t *testing.T, f *transport.Files) { write(t, f.Authorities, "") }, day, "no certificate of an authority"},
		"another's key": {func(t *testing.T, f *transport.Files) {
			f.Key = testkit.Certificate(t, t.TempDir(), "auth", day, ours, ours).Key
		}, day, "are not a certificate and its key"},
		"ended": {func(*testing.T, *transport.Files) {}, -time.Minute, "ended 20"},
		"another service's": {func(t *testing.T, f *transport.Files) {
			*f = testkit.Certificate(t, t.TempDir(), "repo", day, ours, ours)
		}, day, "is of the service repo: service auth needs one with the DNS name auth.devpilot.internal"},
		"by another authority": {func(t *testing.T, f *transport.Files) {
			*f = testkit.Certificate(t, t.TempDir(), "auth", day, ours, testkit.Authority(t))
		}, day, "is not by the authorities in"},
		"a certificate as key":  {func(_ *testing.T, f *transport.Files) { f.Key = f.Certificate }, day, "are not a certificate and its key"},
		"no PEM for a key file": {func(t *testing.T, f *transport.Files) { write(t, f.Key, "s3cr3t") }, day, "are not a certificate and its key"},
	} {
		f := testkit.Certificate(t, t.TempDir(), "auth", c.life, ours, ours)
		c.spoil(t, &f)
		_, err := transport.Open(transport.Config{Files: f, Service: "auth", Logger: logger})
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// What is broken is told in the log, once, and by a metric, for as long as it is.
func TestReload_aBrokenFileKeepsTheCertificate(t *testing.T) {
	t.Parallel()
	ours, logs, registry, dir := testkit.Authority(t), testkit.Logger(t), prometheus.NewRegistry(), t.TempDir()
	files := testkit.Certificate(t, dir, "auth", 10*day, ours, ours)
	c, err := transport.Open(transport.Config{Files: files, Service: "auth", Logger: logs.Logger, Registerer: registry})
	if err != nil {
		t.Fatal(err)
	}
	first := c.Ends()
	holds := func(when string, end time.Time, days, failing, used, refused string) {
		t.Helper()
		if !c.Ends().Equal(end) {
			t.Errorf("%s: the certificate ends %s, not %s", when, c.Ends(), end)
		}
		if err := testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP devpilot_tls_reload_failing 1 while the certificate's files hold what cannot be used.
# TYPE devpilot_tls_reload_failing gauge
devpilot_tls_reload_failing{use="services"} `+failing+`
# HELP devpilot_tls_reloads_total New contents of the certificate's files: used, or refused.
# TYPE devpilot_tls_reloads_total counter
devpilot_tls_reloads_total{result="refused",use="services"} `+refused+`
devpilot_tls_reloads_total{result="used",use="services"} `+used+`
`), "devpilot_tls_reload_failing", "devpilot_tls_reloads_total"); err != nil {
			t.Errorf("%s: %v", when, err)
		}
		metrics, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range metrics {
			if m.GetName() == "devpilot_tls_certificate_days_left" {
				if got := m.GetMetric()[0].GetGauge().GetValue(); days == "10" && (got < 9.9 || got > 10) || days == "20" && (got < 19.9 || got > 20) {
					t.Errorf("%s: %v days left", when, got)
				}
				return
			}
		}
		t.Errorf("%s: no days left are told", when)
	}
	holds("at first", first, "10", "0", "0", "0")
	good, err := os.ReadFile(files.Key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, files.Key, "broken")
	for range 3 {
		c.Reload(t.Context())
	}
	holds("broken", first, "10", "1", "0", "1")
	if got := strings.Count(logs.Text(), "the new certificate cannot be used"); got != 1 {
		t.Errorf("told %d times", got)
	}
	write(t, files.Key, string(good))
	c.Reload(t.Context())
	holds("as before", first, "10", "0", "0", "1")
	testkit.Certificate(t, dir, "auth", -time.Minute, ours, ours)
	c.Reload(t.Context())
	holds("a new one that has ended", first, "10", "1", "0", "2")
	testkit.Certificate(t, dir, "auth", 20*day, ours, ours)
	c.Reload(t.Context())
	if !c.Ends().After(first) || !logs.Contains("a new certificate is in use") {
		t.Errorf("the new certificate is not in use: it ends %s", c.Ends())
	}
	holds("renewed", c.Ends(), "20", "0", "1", "2")
}

// What mounts Secrets exchanges a link to a directory.
func TestReload_followsExchangedLinks(t *testing.T) {
	t.Parallel()
	ours, dir := testkit.Authority(t), t.TempDir()
	for name, life := range map[string]time.Duration{"first": 10 * day, "second": 20 * day} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		testkit.Certificate(t, filepath.Join(dir, name), "auth", life, ours, ours)
	}
	link := func(name string) {
		t.Helper()
		if err := os.Symlink(name, filepath.Join(dir, "new")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "data")); err != nil {
			t.Fatal(err)
		}
	}
	link("first")
	at := func(name string) string { return filepath.Join(dir, "data", name) }
	c, err := transport.Open(transport.Config{
		Files:   transport.Files{Certificate: at("tls.crt"), Key: at("tls.key"), Authorities: at("ca.crt")},
		Service: "auth", Logger: testkit.Logger(t).Logger,
	})
	if err != nil {
		t.Fatal(err)
	}
	first := c.Ends()
	link("second")
	c.Reload(t.Context())
	if !c.Ends().After(first) {
		t.Errorf("it still ends %s", c.Ends())
	}
}

func TestServiceOf(t *testing.T) {
	t.Parallel()
	for want, names := range map[string][]string{
		"auth": {"auth.devpilot.internal"}, "repo": {"repo.team.svc", "REPO.devpilot.internal"},
		"": {"auth"}, "several": {"auth.devpilot.internal", "repo.devpilot.internal"},
	} {
		got, err := transport.ServiceOf(&x509.Certificate{DNSNames: names})
		switch want {
		case "":
			if err == nil {
				t.Errorf("%v: %s", names, got)
			}
		case "several":
			if err == nil || !strings.Contains(err.Error(), "several services: auth, repo") {
				t.Errorf("%v: %s, %v", names, got, err)
			}
		default:
			if err != nil || got != want {
				t.Errorf("%v: %s, %v", names, got, err)
			}
		}
	}
}

func TestLoopback(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]bool{
		"127.0.0.1:7001": true, "127.8.0.1": true, "[::1]:7001": true, "::1": true, "localhost:7001": true, "LOCALHOST": true, "[::ffff:127.0.0.1]:1": true,
		":7001": false, "0.0.0.0:7001": false, "[::]:7001": false, "10.0.0.1:7001": false, "auth:7001": false, "localhost.example.com:1": false, "127.0.0.1.example.com:1": false, "": false,
	} {
		if got := transport.Loopback(address); got != want {
			t.Errorf("%s: %v", address, got)
		}
	}
}

// An authority whose key is lost vouches for services and nothing else.
func TestAuthority_vouchesForServicesOnly(t *testing.T) {
	t.Parallel()
	a := testkit.Authority(t)
	key, err := a.Key()
	if err != nil {
		t.Fatal(err)
	}
	again, err := transport.ReadAuthority(a.Certificate(), key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := transport.ReadAuthority(testkit.Authority(t).Certificate(), key); err == nil {
		t.Error("another authority's key is taken")
	}
	text, _, err := again.Issue("auth", time.Now(), 1000*day)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if leaf.NotAfter.After(a.Ends()) || leaf.IsCA {
		t.Errorf("it ends %s, after its authority; an authority itself: %v", leaf.NotAfter, leaf.IsCA)
	}
	block, _ = pem.Decode(a.Certificate())
	authority, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if len(authority.PermittedDNSDomains) != 1 || authority.PermittedDNSDomains[0] != "devpilot.internal" || !authority.PermittedDNSDomainsCritical {
		t.Errorf("it vouches for %v", authority.PermittedDNSDomains)
	}
}
