package notify

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
)

// errPrivate refuses a receiver in a network that a stranger must not reach through us.
var errPrivate = errors.New("the address is private or reserved. An operator allows it with DEVPILOT_NOTIFY_ALLOW")

// reserved are networks that no receiver on the internet is in (RFC 6890 and its registries), beyond
// those that net/netip knows. Those that carry an IPv4 address in an IPv6 one are among them: what they
// lead to is not checked.
var reserved = prefixes("0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24",
	"203.0.113.0/24", "240.0.0.0/4", "::/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16", "fec0::/10")

func prefixes(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, text := range list {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}

// Addresses say which addresses receivers may have.
type Addresses struct{ allow []netip.Prefix }

// ParseAddresses reads the private networks and addresses that an operator allows.
func ParseAddresses(list []string) (Addresses, error) {
	var a Addresses
	for _, text := range list {
		p, err := netip.ParsePrefix(strings.TrimSpace(text))
		if err != nil {
			one, err := netip.ParseAddr(strings.TrimSpace(text))
			if err != nil {
				return a, fmt.Errorf("%q is no network like 10.20.0.0/24 and no address", text)
			}
			p = netip.PrefixFrom(one.Unmap(), one.Unmap().BitLen())
		}
		a.allow = append(a.allow, p.Masked())
	}
	return a, nil
}

func (a Addresses) allowed(ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	for _, p := range a.allow {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}

// Check refuses an address that a receiver must not have.
func (a Addresses) Check(ip netip.Addr) error {
	ip = ip.Unmap()
	if a.allowed(ip) {
		return nil
	}
	if !ip.IsGlobalUnicast() || ip.IsPrivate() || ip.Zone() != "" {
		return errPrivate
	}
	for _, p := range reserved {
		if p.Contains(ip) {
			return errPrivate
		}
	}
	return nil
}

// control refuses a connection by the address that is really about to be connected to, after the name
// was looked up: a name that was harmless a moment before may lead elsewhere now.
func (a Addresses) control(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return &net.AddrError{Err: "no address", Addr: address}
	}
	return a.Check(ap.Addr())
}
