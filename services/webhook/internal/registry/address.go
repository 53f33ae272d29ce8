package registry

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
)

// Address is where Bitbucket reaches the webhooks, and whether it can.
type Address struct {
	base string
	// unreachable says why Bitbucket cannot call us; nil when it can.
	unreachable *apierr.Error
}

// NewAddress judges the public URL (design.md section 5, "Nothing missed"): on loopback, on a
// private address or by plain http it is out of Bitbucket's reach, unless Bitbucket itself is on
// loopback, as the emulator is. Names are not looked up; one without a dot, or under a suffix that
// the public DNS does not have, is private.
func NewAddress(publicURL string, site bitbucket.Site) (Address, error) {
	u, err := url.Parse(publicURL)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return Address{}, errors.New("registry: the public URL is not an http or https URL")
	}
	a := Address{base: strings.TrimRight(u.Scheme+"://"+u.Host+u.EscapedPath(), "/")}
	if api, err := url.Parse(site.APIURL); err == nil && isLoopback(api.Hostname()) {
		return a, nil
	}
	why := ""
	switch host := u.Hostname(); {
	case isLoopback(host):
		why = "is on this machine only"
	case isPrivate(host):
		why = "is an address of a private network"
	case u.Scheme != "https":
		why = "is not https"
	}
	if why != "" {
		a.unreachable = apierr.New(apierr.ReasonNoPublicURL, fmt.Sprintf(
			"Bitbucket cannot reach Devpilot: its public URL %s %s. Pushes are found by asking Bitbucket at intervals instead. Set DEVPILOT_PUBLIC_URL to an https address that Bitbucket can reach to have webhooks.", a.base, why))
	}
	return a, nil
}

// URL is what Bitbucket calls for a webhook.
func (a Address) URL(id string) string { return a.base + "/webhooks/bitbucket/" + id }

// Unreachable is the error NO_PUBLIC_URL when Bitbucket cannot call us, else nil.
func (a Address) Unreachable() *apierr.Error { return a.unreachable }

func isLoopback(host string) bool {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// privateSuffixes are names that only a local resolver knows (RFC 6761, RFC 6762, RFC 8375, and
// .internal as ICANN reserved it).
var privateSuffixes = []string{".local", ".internal", ".home.arpa", ".test", ".invalid", ".example"}

// shared is the range of carrier-grade NAT (RFC 6598).
var shared = netip.MustParsePrefix("100.64.0.0/10")

func isPrivate(host string) bool {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if ip, err := netip.ParseAddr(host); err == nil {
		ip = ip.Unmap().WithZone("")
		return ip.IsPrivate() || ip.IsLinkLocalUnicast() || ip.IsUnspecified() || ip.IsMulticast() || shared.Contains(ip)
	}
	if !strings.Contains(host, ".") {
		return true
	}
	for _, s := range privateSuffixes {
		if strings.HasSuffix(host, s) {
			return true
		}
	}
	return false
}
