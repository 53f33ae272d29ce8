package transport

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"time"
)

// Files are the PEM files of a certificate.
type Files struct {
	Certificate string // the certificate, and those between it and its authority
	Key         string // its private key
	// Authorities are the certificates that others are verified by, several while one takes the place of another.
	// Empty for a server whose clients show none.
	Authorities string
}

// contents is what stood in the files.
type contents struct {
	certificate, key, authorities []byte
	sum                           [sha256.Size]byte
}

func (f Files) read() (contents, error) {
	var c contents
	var err error
	if c.certificate, err = os.ReadFile(f.Certificate); err != nil {
		return contents{}, fmt.Errorf("the certificate: %w", err)
	}
	if c.key, err = os.ReadFile(f.Key); err != nil {
		return contents{}, fmt.Errorf("the key: %w", err)
	}
	if f.Authorities != "" {
		if c.authorities, err = os.ReadFile(f.Authorities); err != nil {
			return contents{}, fmt.Errorf("the authorities: %w", err)
		}
	}
	h := sha256.New()
	for _, part := range [][]byte{c.certificate, c.key, c.authorities} {
		sum := sha256.Sum256(part)
		h.Write(sum[:])
	}
	h.Sum(c.sum[:0])
	return c, nil
}

// pair is a certificate in use, with those it verifies others by.
type pair struct {
	certificate tls.Certificate // its Leaf is there
	roots       *x509.CertPool  // nil without authorities
	authority   time.Time       // when the last of the authorities ends
}

// use makes the pair, and refuses one that others would refuse. service is empty for a web server.
func (f Files) use(c contents, service string, now time.Time) (*pair, error) {
	certificate, err := tls.X509KeyPair(c.certificate, c.key)
	if err != nil {
		return nil, fmt.Errorf("%s and %s are not a certificate and its key in PEM: %w", f.Certificate, f.Key, err)
	}
	p := &pair{certificate: certificate}
	leaf := certificate.Leaf
	switch {
	case now.After(leaf.NotAfter):
		return nil, fmt.Errorf("the certificate in %s ended %s: have a new one made", f.Certificate, leaf.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(leaf.NotBefore):
		return nil, fmt.Errorf("the certificate in %s begins only %s: is this machine's clock right?", f.Certificate, leaf.NotBefore.UTC().Format(time.RFC3339))
	case service == "":
		return p, nil
	}
	if p.roots, p.authority, err = Pool(c.authorities); err != nil {
		return nil, fmt.Errorf("%s: %w", f.Authorities, err)
	}
	of, err := ServiceOf(leaf)
	if err == nil && of != service {
		err = fmt.Errorf("the certificate is of the service %s", of)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w: service %s needs one with the DNS name %s", f.Certificate, err, service, NameOf(service))
	}
	between := x509.NewCertPool()
	for _, der := range certificate.Certificate[1:] {
		if c, err := x509.ParseCertificate(der); err == nil {
			between.AddCert(c)
		}
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: p.roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
			return nil, fmt.Errorf("%s is not by the authorities in %s, for servers and clients: %w", f.Certificate, f.Authorities, err)
		}
	}
	return p, nil
}

// Pool reads the certificates of authorities in PEM, and tells when the last of them ends.
func Pool(text []byte) (*x509.CertPool, time.Time, error) {
	pool := x509.NewCertPool()
	var last time.Time
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, time.Time{}, fmt.Errorf("a certificate of an authority cannot be read: %w", err)
		}
		pool.AddCert(c)
		if c.NotAfter.After(last) {
			last = c.NotAfter
		}
	}
	if last.IsZero() {
		return nil, time.Time{}, errors.New("there is no certificate of an authority in PEM")
	}
	return pool, last, nil
}
