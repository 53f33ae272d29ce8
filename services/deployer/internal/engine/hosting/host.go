package hosting

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"devpilot.io/bitbucket/pkg/logs"
)

// ErrHost says that a host name names no site below the live host.
var ErrHost = errors.New("live: the host names no site")

const (
	maxLabel = 63  // octets of one label of a DNS name, RFC 1035 section 2.3.4
	maxName  = 253 // octets of a whole name in text form
	// explicit marks a label whose rest is an app id, whatever it looks like.
	explicit = "0--"
)

// slug is the form of workspace and app ids (DESIGN.md#words).
var slug = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

var hostLabel = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Name is what a host name says.
type Name struct {
	Workspace, App string
	// Number is the release's; 0 is the live one.
	Number int32
}

// attrs are for a line of the log.
func (n Name) attrs() []any {
	return []any{slog.String(logs.KeyWorkspace, n.Workspace), slog.String(logs.KeyApp, n.App), slog.Int(logs.KeyDeployment, int(n.Number))}
}

// ParseHost reads the Host header of a request (with or without port and trailing dot, any case). The
// answer depends on the name alone, never on which apps exist. App ids may hold "--" and begin with
// digits, so the first label is read as
//
//	0--<app>         the live release of <app>, whatever <app> looks like
//	<number>--<app>  release <number>, without leading zeros, at most 2147483647
//	<app>            anything else: the live release
//
// An app called "12--web" is thus reached at 0--12--web, and that is the name [Host] gives it.
// Errors are ErrHost.
func ParseHost(host, liveHost string) (Name, error) {
	h := strings.ToLower(strings.TrimSuffix(stripPort(host), "."))
	rest, ok := strings.CutSuffix(h, "."+liveHost)
	if !ok {
		return Name{}, ErrHost
	}
	label, workspace, ok := strings.Cut(rest, ".")
	if !ok || len(label) > maxLabel || !slug.MatchString(workspace) {
		return Name{}, ErrHost
	}
	number, app, ok := splitNumber(label)
	if !ok {
		number, app = 0, label
	}
	if !slug.MatchString(app) {
		return Name{}, ErrHost
	}
	return Name{Workspace: workspace, App: app, Number: number}, nil
}

// stripPort also takes a bracketed IPv6 address apart; such a host never matches.
func stripPort(host string) string {
	if !strings.Contains(host, ":") {
		return host
	}
	if h, _, err := net.SplitHostPort(host); err == nil {
		return h
	}
	return host
}

// splitNumber takes "<number>--<app>" apart; ok is false when the label is not of that form.
func splitNumber(label string) (number int32, app string, ok bool) {
	digits, app, found := strings.Cut(label, "--")
	if !found || len(digits) == 0 || len(digits) > 10 || (digits[0] == '0' && digits != "0") || !slug.MatchString(app) {
		return 0, "", false
	}
	for _, c := range []byte(digits) {
		if c < '0' || c > '9' {
			return 0, "", false
		}
	}
	n, err := strconv.ParseInt(digits, 10, 32)
	if err != nil {
		return 0, "", false // too large to be a release: then it is part of the app's id
	}
	return int32(n), app, true
}

// Host is the host name of a release (number 0: the live one). It reports false when there is none: an
// id that is not a slug, a negative number, a label of more than 63 characters, or a name over 253. ParseHost reads
// back what Host made.
func Host(app, workspace string, number int32, liveHost string) (string, bool) {
	if !slug.MatchString(app) || !slug.MatchString(workspace) || number < 0 || strings.HasPrefix(workspace, "xn--") {
		return "", false
	}
	label := app
	switch _, _, ambiguous := splitNumber(app); {
	case number > 0:
		label = strconv.Itoa(int(number)) + "--" + app
	case ambiguous, strings.HasPrefix(app, "xn--"): // xn-- would be taken for an internationalised name
		label = explicit + app
	}
	host := label + "." + workspace + "." + liveHost
	return host, len(label) <= maxLabel && len(host) <= maxName
}

// URL is the address of a release (number 0: the live one). Scheme and port are those of base, whose
// host is the live host: "http://localhost:8083" gives http://web.default.localhost:8083/. It reports
// false where Host does.
func URL(base *url.URL, app, workspace string, number int32) (string, bool) {
	host, ok := Host(app, workspace, number, base.Hostname())
	if !ok {
		return "", false
	}
	if port := base.Port(); port != "" {
		host = net.JoinHostPort(host, port)
	}
	return (&url.URL{Scheme: base.Scheme, Host: host, Path: "/"}).String(), true
}

// CheckHost refuses a live host that cannot carry sites: a port, an address, something that is no host
// name; and one where a site could get the console's own name. consoleHost is the host of the console's
// public URL, without port; empty skips that check. It returns the host in the form New expects.
//
// A live host below the console's registrable domain (live.example.com beside devpilot.example.com) is
// accepted, but a site could then set cookies for the whole domain: a domain of its own is better.
func CheckHost(liveHost, consoleHost string) (string, error) {
	host := strings.ToLower(strings.TrimSuffix(liveHost, "."))
	if _, err := netip.ParseAddr(host); err == nil {
		return "", fmt.Errorf("live host %q is an address: sites need names below it, such as localhost or a domain", liveHost)
	}
	if len(host) > maxName {
		return "", fmt.Errorf("live host has %d characters, of %d at most", len(host), maxName)
	}
	for label := range strings.SplitSeq(host, ".") {
		if !hostLabel.MatchString(label) {
			return "", fmt.Errorf("live host %q is not a host name (without scheme and port)", liveHost)
		}
	}
	console := strings.ToLower(strings.TrimSuffix(consoleHost, "."))
	if _, err := ParseHost(console, host); err == nil {
		return "", fmt.Errorf("live host %q would serve a site at the console's own name, %s", liveHost, console)
	}
	return host, nil
}
