package testkit

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/transport"
)

// certificateLife is longer than any test.
const certificateLife = 365 * 24 * time.Hour

// Authority makes an authority of the test's own.
func Authority(t testing.TB) *transport.Authority {
	t.Helper()
	a, err := transport.NewAuthority(time.Now(), certificateLife)
	if err != nil {
		t.Fatalf("make an authority: %v", err)
	}
	return a
}

// Certificate writes a certificate of a service, by issuer, into dir: tls.crt, tls.key and ca.crt, which holds the
// authorities that are trusted. It overwrites what is there. life may be in the past.
func Certificate(t testing.TB, dir, service string, life time.Duration, issuer *transport.Authority, trusted ...*transport.Authority) transport.Files {
	t.Helper()
	certificate, key, err := issuer.Issue(service, time.Now(), life)
	if err != nil {
		t.Fatalf("make a certificate of %s: %v", service, err)
	}
	var authorities []byte
	for _, a := range trusted {
		authorities = append(authorities, a.Certificate()...)
	}
	f := transport.Files{Certificate: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key"), Authorities: filepath.Join(dir, "ca.crt")}
	for path, content := range map[string][]byte{f.Certificate: certificate, f.Key: key, f.Authorities: authorities} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return f
}
