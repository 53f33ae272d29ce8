package bitbucket

import (
	"net/netip"
	"net/url"
	"strings"
)

// Unreachable judges whether Bitbucket, whose API or site is at the second URL, can reach a public
// URL of ours (DESIGN.md#nothing-missed): not on loopback, a private address or by
// plain http, unless Bitbucket itself is on loopback, as the emulator is. It returns why not, as the
// end of a sentence that begins with the URL ("is on this machine only"), and "" when it can. Names
// are not looked up; one without a dot, or under a suffix that the public DNS does not have, is
// private.
func Unreachable(public, bitbucket *url.URL) string {
	if bitbucket != nil && isLoopback(bitbucket.Hostname()) {
		return ""
	}
	switch host := public.Hostname(); {
	case isLoopback(host):
		return "is on this machine only"
	case isPrivate(host):
		return "is an address of a private network"
	case public.Scheme != "https":
		return "is not https"
	}
	return ""
}

// isLoopback says whether a name or address can only be this machine (RFC 6761 section 6.3).
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
		return !ip.IsGlobalUnicast() || ip.IsPrivate() || shared.Contains(ip)
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
