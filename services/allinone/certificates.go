package allinone

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/transport"
)

// authorityLife is how long an authority vouches for certificates.
const authorityLife = 3650 * 24 * time.Hour

// CertificateSettings say which certificates are made.
type CertificateSettings struct {
	Directory string `arg:"" help:"Directory of the authority (ca.crt, ca.key), with one for each service in it (tls.crt, tls.key, ca.crt)."`
	Days      int    `name:"days" default:"365" min:"1" max:"3650" help:"Days that the certificates are valid for."`
	CA        string `name:"ca" default:"keep" enum:"keep,add,forget" help:"keep: the authority stays, and certificates are made by it; add: a new authority is made beside it, which makes them from the next time on; forget: only the last one is trusted from now on."`
}

// MakeCertificates makes the certificates by which the services know each other, by an authority that it makes where there is none.
// Where there are certificates, new ones take their place: processes read them by themselves. A file belongs to whom its
// directory belongs to. What was made is printed, never a key.
func MakeCertificates(w io.Writer, s CertificateSettings, now time.Time) error {
	d := certificates{directory: s.Directory, out: w, now: now}
	if err := os.MkdirAll(s.Directory, 0o700); err != nil {
		return fmt.Errorf("make the certificates' directory: %w", err)
	}
	if _, err := os.Stat(d.path("ca.crt")); errors.Is(err, fs.ErrNotExist) {
		s.CA = "new"
	}
	authority, trusted, err := d.authority(s.CA)
	if err != nil {
		return err
	}
	for _, service := range Services() {
		if err := errors.Join(os.MkdirAll(d.path(service), 0o700), d.write(trusted, service, "ca.crt")); err != nil {
			return err
		}
	}
	if s.CA == "add" || s.CA == "forget" {
		return nil // certificates of the new authority are for those who know it by then
	}
	for _, service := range Services() {
		if err := d.issue(authority, service, time.Duration(s.Days)*24*time.Hour); err != nil {
			return err
		}
	}
	if left := authority.Ends().Sub(now); left < authorityLife/10 {
		_, err = fmt.Fprintf(w, "The authority ends %s: run this with --ca=add, a minute later without, and a minute later with --ca=forget.\n", authority.Ends().UTC().Format(time.DateOnly))
	}
	return err
}

type certificates struct {
	directory string
	out       io.Writer
	now       time.Time
}

func (d certificates) path(names ...string) string {
	return filepath.Join(append([]string{d.directory}, names...)...)
}

// write replaces a file, and says so.
func (d certificates) write(content []byte, names ...string) error {
	path := d.path(names...)
	if err := seal.ReplaceSecretFile(path, content); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err := fmt.Fprintln(d.out, path)
	return err
}

// authority returns the one that makes certificates, and those that are trusted, in PEM.
func (d certificates) authority(what string) (*transport.Authority, []byte, error) {
	if what == "new" {
		return d.newAuthority(nil)
	}
	trusted, err := os.ReadFile(d.path("ca.crt"))
	if err != nil {
		return nil, nil, err
	}
	if what == "add" {
		return d.newAuthority(trusted)
	}
	key, err := os.ReadFile(d.path("ca.key"))
	if err != nil {
		return nil, nil, fmt.Errorf("the authority's key, which makes certificates: %w", err)
	}
	authority, err := transport.ReadAuthority(trusted, key)
	if err != nil {
		return nil, nil, fmt.Errorf("%s, %s: %w", d.path("ca.crt"), d.path("ca.key"), err)
	}
	if what != "forget" {
		return authority, trusted, nil
	}
	for _, service := range Services() {
		if err := d.madeBy(authority, service); err != nil {
			return nil, nil, err
		}
	}
	return authority, authority.Certificate(), d.write(authority.Certificate(), "ca.crt")
}

// newAuthority makes one, which is trusted beside those before.
func (d certificates) newAuthority(before []byte) (*transport.Authority, []byte, error) {
	a, err := transport.NewAuthority(d.now, authorityLife)
	if err != nil {
		return nil, nil, err
	}
	key, err := a.Key()
	if err != nil {
		return nil, nil, err
	}
	trusted := append(a.Certificate(), before...)
	return a, trusted, errors.Join(d.write(key, "ca.key"), d.write(trusted, "ca.crt"))
}

// madeBy refuses to forget an authority that a certificate in use is by.
func (d certificates) madeBy(authority *transport.Authority, service string) error {
	text, err := os.ReadFile(d.path(service, "tls.crt"))
	if err != nil {
		return err
	}
	pool, _, err := transport.Pool(authority.Certificate())
	if err != nil {
		return err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return fmt.Errorf("%s is not in PEM", d.path(service, "tls.crt"))
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err == nil {
		_, err = leaf.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: leaf.NotBefore, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	}
	if err != nil {
		return fmt.Errorf("the certificate of %s is still by an authority that would be forgotten: run this without --ca first, and again with --ca=forget once every process has the new ones (%w)", service, err)
	}
	return nil
}

func (d certificates) issue(authority *transport.Authority, service string, life time.Duration) error {
	certificate, key, err := authority.Issue(service, d.now, life)
	if err != nil {
		return err
	}
	return errors.Join(d.write(key, service, "tls.key"), d.write(certificate, service, "tls.crt"))
}
