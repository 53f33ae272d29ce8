package checkup

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// Untrusted says why a certificate that was shown is not trusted; empty where the error is none of that.
func Untrusted(err error) string {
	var expired x509.CertificateInvalidError
	var stranger x509.UnknownAuthorityError
	var name x509.HostnameError
	var other *tls.CertificateVerificationError
	switch {
	case errors.As(err, &expired) && expired.Reason == x509.Expired && expired.Cert != nil:
		if time.Now().Before(expired.Cert.NotBefore) {
			return fmt.Sprintf("its certificate begins only %s", expired.Cert.NotBefore.UTC().Format(time.RFC3339))
		}
		return fmt.Sprintf("its certificate ended %s", expired.Cert.NotAfter.UTC().Format(time.RFC3339))
	case errors.As(err, &stranger):
		return "its certificate is by an authority that is not known here"
	case errors.As(err, &name):
		return "its certificate is for another name: " + name.Error()
	case errors.As(err, &other):
		return "its certificate is refused: " + other.Error()
	}
	return ""
}
