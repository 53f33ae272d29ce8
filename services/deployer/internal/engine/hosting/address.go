package hosting

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// CheckAddress refuses what cannot be the address at which workers of other servers reach this one's
// releases: host:port, of a host name or an address of one machine.
func CheckAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%q is no host:port", address)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || strings.HasPrefix(port, "0") {
		return fmt.Errorf("%q has no port from 1 to 65535", address)
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		if ip.IsUnspecified() || ip.IsMulticast() || ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
			return fmt.Errorf("%q is not the address of one machine", address)
		}
		return nil
	}
	if len(host) > maxName {
		return fmt.Errorf("%q has no host name", address)
	}
	for label := range strings.SplitSeq(strings.ToLower(strings.TrimSuffix(host, ".")), ".") {
		if !hostLabel.MatchString(label) {
			return fmt.Errorf("%q has no host name", address)
		}
	}
	return nil
}

// AddressOf is the address at which others reach what listens on l; where that is every address of this
// machine, its first one that is not its own alone, IPv4 before IPv6.
func AddressOf(l net.Addr) (string, error) {
	tcp, ok := l.(*net.TCPAddr)
	if !ok {
		return "", fmt.Errorf("%s is no address of a network", l)
	}
	if ip := tcp.AddrPort().Addr().Unmap(); ip.IsValid() && !ip.IsUnspecified() {
		return netip.AddrPortFrom(ip, tcp.AddrPort().Port()).String(), nil
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		return "", errors.Join(errors.New("the addresses of this machine are not known"), err)
	}
	found := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	for _, a := range all {
		prefix, err := netip.ParsePrefix(a.String())
		if err != nil {
			continue
		}
		ip := prefix.Addr().Unmap()
		if ip.IsGlobalUnicast() && (found.IsLoopback() || found.Is6() && ip.Is4()) {
			found = ip
		}
	}
	return netip.AddrPortFrom(found, tcp.AddrPort().Port()).String(), nil
}
