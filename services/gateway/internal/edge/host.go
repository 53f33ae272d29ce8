package edge

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"devpilot.io/bitbucket/pkg/apierr"
)

// Hosts are the names under which the gateway may be called. Any other is refused: a page of a
// stranger whose name was made to point at us (DNS rebinding) would else speak with our cookies'
// origin.
type Hosts struct {
	known []string // host, or host:port unless the port is the scheme's own
	local bool     // loopback names are fine
}

// NewHosts allows the public URL's host, the address we listen on, and loopback names where one of
// these is a loopback one.
func NewHosts(public *url.URL, listen string) Hosts {
	h := Hosts{known: []string{normalHost(public.Host)}, local: Loopback(public.Hostname())}
	if host, _, err := net.SplitHostPort(listen); err == nil && host != "" {
		h.known = append(h.known, normalHost(listen))
		h.local = h.local || Loopback(host)
	}
	return h
}

func (h Hosts) allow(host string) bool {
	normal := normalHost(host)
	for _, k := range h.known {
		if k == normal {
			return true
		}
	}
	name, _, err := net.SplitHostPort(normal)
	if err != nil {
		name = normal
	}
	return h.local && Loopback(name)
}

// Loopback says whether a name or address can only be this machine (RFC 6761 section 6.3).
func Loopback(host string) bool {
	host = strings.Trim(host, "[]")
	if a, err := netip.ParseAddr(host); err == nil {
		return a.IsLoopback()
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// normalHost is in lower case, without a final dot and without the ports of http and https.
func normalHost(host string) string {
	host = strings.ToLower(host)
	name, port, err := net.SplitHostPort(host)
	if err != nil {
		return strings.TrimSuffix(host, ".")
	}
	name = strings.TrimSuffix(name, ".")
	if port == "80" || port == "443" {
		if strings.Contains(name, ":") {
			return "[" + name + "]"
		}
		return name
	}
	return net.JoinHostPort(name, port)
}

func (h Hosts) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !h.allow(r.Host) {
			Of(r.Context()).Route = "unknown host"
			Fail(w, r, apierr.New(apierr.ReasonHostUnknown,
				"Devpilot does not answer under this host name. Use the address in DEVPILOT_PUBLIC_URL, or have the operator correct that setting."))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Proxies are the networks whose X-Forwarded-For is believed.
type Proxies []netip.Prefix

// ParseProxies reads addresses and networks.
func ParseProxies(list []string) (Proxies, error) {
	var out Proxies
	for _, s := range list {
		if a, err := netip.ParseAddr(s); err == nil {
			out = append(out, netip.PrefixFrom(a, a.BitLen()))
			continue
		}
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("--trusted-proxies (DEVPILOT_TRUSTED_PROXIES): %q is no address or network such as 10.0.0.0/8", s)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

func (p Proxies) trusts(a netip.Addr) bool {
	for _, n := range p {
		if n.Contains(a.Unmap()) {
			return true
		}
	}
	return false
}

// client walks X-Forwarded-For from the end, which the nearest proxy wrote, to the first address
// that is not a trusted proxy's. What lies before that can be anybody's invention.
func (p Proxies) client(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	current, err := netip.ParseAddr(host)
	if err != nil {
		return ""
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0 && p.trusts(current); i-- {
		a, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		current = a
	}
	return current.Unmap().String()
}
