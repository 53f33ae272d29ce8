package transport

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// domain is what the names of services stand below.
const domain = ".devpilot.internal"

// NameOf is the DNS name that the certificate of a service has.
func NameOf(service string) string { return service + domain }

// ServiceOf tells which service a certificate is of. It must have been verified. A certificate of no service and
// one of several are errors.
func ServiceOf(c *x509.Certificate) (string, error) {
	var found []string
	for _, name := range c.DNSNames {
		if service, ok := strings.CutSuffix(strings.ToLower(name), domain); ok {
			found = append(found, service)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", errors.New("the certificate has no DNS name <service>" + domain)
	default:
		return "", fmt.Errorf("the certificate is of several services: %s", strings.Join(found, ", "))
	}
}

// Loopback tells whether a host, with or without a port, is this machine as nobody else reaches it.
func Loopback(address string) bool {
	host := address
	if h, _, err := net.SplitHostPort(address); err == nil {
		host = h
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && ip.Unmap().IsLoopback()
}
