package transport

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// Authority makes the certificates of an installation's services. Its keys are of the curve P-256.
type Authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// early is how long before now a certificate begins: clocks differ.
const early = 5 * time.Minute

// NewAuthority makes one that ends after life.
func NewAuthority(now time.Time, life time.Duration) (*Authority, error) {
	key, serial, err := fresh()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "Devpilot services " + now.UTC().Format(time.DateOnly)},
		NotBefore: now.Add(-early), NotAfter: now.Add(life),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		// It vouches for nothing but services, should its key be lost.
		PermittedDNSDomainsCritical: true, PermittedDNSDomains: []string{domain[1:]},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make the authority's certificate: %w", err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &Authority{certificate, key}, nil
}

// ReadAuthority reads what Certificate and Key wrote.
func ReadAuthority(certificate, key []byte) (*Authority, error) {
	block, _ := pem.Decode(certificate)
	if block == nil {
		return nil, errors.New("the authority's certificate is not in PEM")
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("the authority's certificate cannot be read: %w", err)
	}
	if block, _ = pem.Decode(key); block == nil {
		return nil, errors.New("the authority's key is not in PEM")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	k, ok := parsed.(*ecdsa.PrivateKey)
	if err != nil || !ok || !k.PublicKey.Equal(c.PublicKey) {
		return nil, errors.New("the authority's key is not that of its certificate")
	}
	return &Authority{c, k}, nil
}

// Certificate is the authority's own, in PEM.
func (a *Authority) Certificate() []byte { return asPEM("CERTIFICATE", a.certificate.Raw) }

// Key is the authority's private key, in PEM.
func (a *Authority) Key() ([]byte, error) { return keyPEM(a.key) }

// Ends is when the authority ends.
func (a *Authority) Ends() time.Time { return a.certificate.NotAfter }

// Issue makes a certificate of a service, and its private key, in PEM. It ends after life, or with the authority.
func (a *Authority) Issue(service string, now time.Time, life time.Duration) (certificate, key []byte, err error) {
	private, serial, err := fresh()
	if err != nil {
		return nil, nil, err
	}
	end := now.Add(life)
	if end.After(a.certificate.NotAfter) {
		end = a.certificate.NotAfter
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: service}, DNSNames: []string{NameOf(service)},
		NotBefore: now.Add(-early), NotAfter: end,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, private.Public(), a.key)
	if err != nil {
		return nil, nil, fmt.Errorf("make the certificate of %s: %w", service, err)
	}
	key, err = keyPEM(private)
	return asPEM("CERTIFICATE", der), key, err
}

func fresh() (*ecdsa.PrivateKey, *big.Int, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	return key, serial, err
}

func keyPEM(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return asPEM("PRIVATE KEY", der), err
}

func asPEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
