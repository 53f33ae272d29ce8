package handshake

import (
	"net/url"
	"path"
	"strings"
)

// maxReturnPath bounds what is carried through a handshake, in bytes.
const maxReturnPath = 2048

// ReturnPath makes a safe place to return to of what a caller asked for: a path and query on our own
// origin. Anything else, such as another origin in whatever disguise, becomes "/". public is the
// public URL.
func ReturnPath(public *url.URL, raw string) string {
	const home = "/"
	if raw == "" || len(raw) > maxReturnPath || strings.ContainsFunc(raw, unsafe) {
		return home
	}
	u, err := url.Parse(raw)
	if err != nil || u.Opaque != "" || u.User != nil {
		return home
	}
	if u.Scheme != "" || u.Host != "" {
		if !strings.EqualFold(u.Scheme, public.Scheme) || !strings.EqualFold(u.Host, public.Host) {
			return home
		}
	}
	if !plain(u.Path) || !plain(u.EscapedPath()) {
		return home
	}
	// Decoded once more by whoever comes next, it must still be a path of ours.
	if twice, err := url.PathUnescape(u.Path); err != nil || !plain(twice) {
		return home
	}
	safe := url.URL{Path: u.Path, RawPath: u.RawPath, RawQuery: u.RawQuery}
	return safe.String()
}

// plain reports whether p is a rooted path without tricks: no second slash that would begin a host,
// no dot segments, no backslashes (which browsers take for slashes), no control characters.
func plain(p string) bool {
	if !strings.HasPrefix(p, "/") || strings.Contains(p, "//") || strings.ContainsFunc(p, unsafe) {
		return false
	}
	clean := path.Clean(p)
	return clean == p || clean+"/" == p
}

// unsafe characters are cut out or changed by browsers before they parse an address.
func unsafe(r rune) bool {
	return r < 0x20 || r == 0x7f || r == '\\' || r == '\u2028' || r == '\u2029' || r == '\ufffd'
}
