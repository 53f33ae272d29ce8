package rpc

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
)

// schemes are those of gRPC targets that are there. gRPC takes an unknown one for a part of a host's name.
var schemes = []string{"dns", "passthrough", "unix", "unix-abstract"}

// Hosts returns the addresses that a target names, host:port each: none for a socket of this machine. A target is host:port,
// several of them joined by commas, or a gRPC target such as dns:///auth:7001 or unix:///run/auth.sock. The error is
// one sentence.
func Hosts(target string) ([]string, error) {
	if strings.Contains(target, ",") {
		var out []string
		for _, a := range addresses(target) {
			if err := hostPort(a.Addr); err != nil {
				return nil, err
			}
			out = append(out, a.Addr)
		}
		if len(out) == 0 {
			return nil, hostPort(target)
		}
		return out, nil
	}
	scheme, endpoint, named := strings.Cut(target, "://")
	if named {
		_, endpoint, _ = strings.Cut(endpoint, "/") // what stands before names who is asked
	} else if before, rest, ok := strings.Cut(target, ":"); ok && slices.Contains(schemes, before) && !isPort(rest) {
		scheme, endpoint, named = before, rest, true
	}
	switch {
	case !named:
		return []string{target}, hostPort(target)
	case !slices.Contains(schemes, scheme):
		return nil, fmt.Errorf("the address %q begins with %s://, which is not known here: give host:port, several of them joined by commas, or a target that begins with dns:/// or unix:///", target, scheme)
	case strings.HasPrefix(scheme, "unix"):
		return nil, nil
	}
	return []string{endpoint}, hostPort(endpoint)
}

func isPort(text string) bool {
	n, err := strconv.ParseUint(text, 10, 16)
	return err == nil && n > 0
}

func hostPort(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil || host == "" || !isPort(port) || strings.Contains(host, "/") {
		return fmt.Errorf("the address %q is not host:port, as in auth:7001: give that, several of them joined by commas, or a target that begins with dns:/// or unix:///", address)
	}
	return nil
}
