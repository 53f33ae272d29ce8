package testkit

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
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

// StoreCertificate writes a certificate of a store for a name or IP address, for servers and clients, which vouches for
// itself: its file, which is the authority's too, and the key's.
func StoreCertificate(t testing.TB, host string) (certificate, key string) {
	t.Helper()
	return EndingStoreCertificate(t, host, certificateLife)
}

// EndingStoreCertificate is StoreCertificate of one that ends after life, which may be in the past.
func EndingStoreCertificate(t testing.TB, host string, life time.Duration) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(min(life, 0) - time.Minute), NotAfter: time.Now().Add(life),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certificate, key = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	writeConfig(t, certificate, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	writeConfig(t, key, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})))
	return certificate, key
}
