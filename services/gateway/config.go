package gateway

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/services/gateway/internal/edge"
)

// Defaults of what an operator need not set.
const (
	defaultHeartbeat = 15 * time.Second
	defaultTimeout   = 30 * time.Second
)

// Config is what an operator sets.
type Config struct {
	// PublicURL is where people and Bitbucket reach this installation, without a path.
	PublicURL string
	// Listen is the address that the handler is served on, as bound; it is a known host. May be
	// empty where it is not known.
	Listen string
	// AllowedOrigins are origins whose pages may call the API.
	AllowedOrigins []string
	// TrustedProxies are addresses and networks whose X-Forwarded-For counts.
	TrustedProxies []string
	// AdminToken signs the local owner in and makes sign-in codes; without one, only codes do.
	AdminToken seal.Secret

	// Version, Emulator and BitbucketSiteURL are shown by /v1/info.
	Version          string
	Emulator         bool
	BitbucketSiteURL string

	// Replicas of the gateway's buckets; 0: one.
	Replicas int
	// SessionIdle and SessionLife bound a browser session; 0: 14 and 90 days.
	SessionIdle, SessionLife time.Duration
	// Heartbeat of streams, at which their caller is checked again; 0: 15 s.
	Heartbeat time.Duration
	// Timeout of a request that is not a stream; 0: 30 s.
	Timeout time.Duration
}

// web is the checked part of a Config that the HTTP side needs.
type web struct {
	public  *url.URL
	hosts   edge.Hosts
	origins edge.Origins
	proxies edge.Proxies
}

func (c *Config) check() (web, error) {
	if c.Heartbeat == 0 {
		c.Heartbeat = defaultHeartbeat
	}
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	if c.PublicURL == "" {
		return web{}, errors.New("gateway: Config.PublicURL is missing")
	}
	u, err := url.Parse(c.PublicURL)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return web{}, fmt.Errorf("gateway: the public URL must be like https://devpilot.example.com")
	}
	u.Path = ""
	w := web{public: u, hosts: edge.NewHosts(u, c.Listen)}
	if w.origins, err = edge.NewOrigins(u, c.AllowedOrigins); err != nil {
		return web{}, fmt.Errorf("gateway: %w", err)
	}
	if w.proxies, err = edge.ParseProxies(c.TrustedProxies); err != nil {
		return web{}, fmt.Errorf("gateway: trusted proxies: %w", err)
	}
	return w, nil
}

// webhooksReachable says whether Bitbucket can call us (design.md section 5, "Nothing missed"): not
// on loopback, a private address or plain http, unless Bitbucket itself is on loopback. It only
// informs; webhook decides, by the same rule.
func webhooksReachable(public *url.URL, siteURL string) bool {
	if site, err := url.Parse(siteURL); err == nil && site.Host != "" && edge.Loopback(site.Hostname()) {
		return true
	}
	return public.Scheme == "https" && !edge.Loopback(public.Hostname()) && !private(public.Hostname())
}

// privateSuffixes are names that only a local resolver knows (RFC 6761, RFC 6762, RFC 8375, and
// .internal as ICANN reserved it).
var privateSuffixes = []string{".local", ".internal", ".home.arpa", ".test", ".invalid", ".example"}

// shared is the range of carrier-grade NAT (RFC 6598).
var shared = netip.MustParsePrefix("100.64.0.0/10")

func private(host string) bool {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if a, err := netip.ParseAddr(host); err == nil {
		a = a.Unmap().WithZone("")
		return !a.IsGlobalUnicast() || a.IsPrivate() || shared.Contains(a)
	}
	return !strings.Contains(host, ".") || slices.ContainsFunc(privateSuffixes, func(s string) bool { return strings.HasSuffix(host, s) })
}
