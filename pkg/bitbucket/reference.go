package bitbucket

import (
	"net/url"
	"strings"
)

// ParseRepository reads what a person may paste to name a repository: `workspace/slug`, its page
// (any page below it), an HTTPS or SSH clone address, or the whole `git clone …` line that
// Bitbucket's Clone button copies. User information in the address is ignored. It reports false for
// anything else, and for addresses on other hosts.
func (s Site) ParseRepository(text string) (workspace, slug string, ok bool) {
	text = strings.TrimSpace(text)
	if rest, isClone := strings.CutPrefix(text, "git clone "); isClone {
		text = strings.TrimSpace(rest)
		text, _, _ = strings.Cut(text, " ") // an optional target directory follows
	}
	site, err := url.Parse(s.SiteURL)
	if err != nil || text == "" || strings.ContainsAny(text, " \t\r\n") {
		return "", "", false
	}
	p, ok := repositoryPath(site, text)
	if !ok {
		return "", "", false
	}
	segments := strings.Split(strings.Trim(p, "/"), "/")
	if len(segments) < 2 {
		return "", "", false
	}
	workspace, slug = segments[0], segments[1]
	if len(segments) == 2 {
		slug = strings.TrimSuffix(slug, ".git")
	}
	if !nameSegment(workspace) || !nameSegment(slug) {
		return "", "", false
	}
	return workspace, slug, true
}

// repositoryPath returns the part of a pasted text that begins with the workspace.
func repositoryPath(site *url.URL, text string) (string, bool) {
	if strings.Contains(text, "://") {
		u, err := url.Parse(text)
		if err != nil || !strings.EqualFold(u.Hostname(), site.Hostname()) {
			return "", false
		}
		switch u.Scheme {
		case "ssh":
			return u.Path, true
		case "https", "http":
			// The port tells a test server from another program on the same host.
			if normalHost(&url.URL{Scheme: site.Scheme, Host: u.Host}) != normalHost(site) {
				return "", false
			}
			return strings.CutPrefix(u.Path, site.Path)
		default:
			return "", false
		}
	}
	// scp-like: git@bitbucket.org:acme/web.git
	if userHost, p, found := strings.Cut(text, ":"); found && !strings.Contains(userHost, "/") {
		_, host, hasUser := strings.Cut(userHost, "@")
		if hasUser && strings.EqualFold(host, site.Hostname()) {
			return p, true
		}
	}
	// A page without its scheme: bitbucket.org/acme/web
	if host, p, found := strings.Cut(text, "/"); found && strings.EqualFold(host, site.Host) && strings.Contains(p, "/") {
		return p, true
	}
	// The bare full name, which has exactly one slash.
	if strings.Count(strings.Trim(text, "/"), "/") == 1 {
		return text, true
	}
	return "", false
}
