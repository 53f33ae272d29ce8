package address

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// Submodule is the full name of the repository that an address means, seen from the
// repository that holds .gitmodules; or why it is none that is fetched. Whatever the address says,
// the repository is asked for at the configured site, the one way that we ask for any: our credential
// goes nowhere else, and so does no question.
func Submodule(site *url.URL, parent, address string) (fullName, why string) {
	at := strings.TrimRight(site.String(), "/")
	remedy := fmt.Sprintf("Write its address as ../<repository>, or as %s/<workspace>/<repository>, in .gitmodules.", at)
	var ok bool
	if strings.HasPrefix(address, "./") || strings.HasPrefix(address, "../") {
		if fullName, ok = relative(parent, address); !ok {
			return "", "its address leads out of the site. " + remedy
		}
	} else if fullName, ok = ofSite(site, address); !ok {
		return "", fmt.Sprintf("only repositories of %s are fetched, over %s. %s", site.Host, site.Scheme, remedy)
	}
	fullName = strings.TrimSuffix(strings.TrimRight(fullName, "/"), ".git")
	if _, err := CloneURL(site, fullName); err != nil {
		return "", "its address names no repository of Bitbucket. " + remedy
	}
	return fullName, ""
}

// relative follows a relative address from a repository, as git does.
func relative(parent, address string) (string, bool) {
	segments := strings.Split(parent, "/")
	for rest := range strings.SplitSeq(strings.TrimRight(address, "/"), "/") {
		switch rest {
		case ".", "":
		case "..":
			if len(segments) == 0 {
				return "", false
			}
			segments = segments[:len(segments)-1]
		default:
			segments = append(segments, rest)
		}
	}
	return strings.Join(segments, "/"), true
}

// overSSH are the schemes that git speaks SSH for. The user at Bitbucket is always called git.
var overSSH = []string{"ssh", "git+ssh", "ssh+git"}

const sshUser = "git"

// ofSite is the path below the site that an address of it leads to: over the site's own scheme, http
// where the site is https, or SSH, which names the same repositories.
func ofSite(site *url.URL, address string) (string, bool) {
	if below, ok := likeSCP(site, address); ok {
		return below, true
	}
	u, err := url.Parse(address)
	if err != nil || u.Opaque != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.RawPath != "" {
		return "", false
	}
	if slices.Contains(overSSH, u.Scheme) {
		// The port is that of SSH, and says nothing about the site's.
		return strings.TrimPrefix(u.Path, "/"), strings.EqualFold(u.Hostname(), site.Hostname()) && (u.User == nil || u.User.String() == sshUser)
	}
	if u.Scheme == "http" && site.Scheme == "https" && port(u) == "80" {
		u.Scheme, u.Host = "https", u.Hostname()
	}
	if u.Scheme != site.Scheme || !strings.EqualFold(u.Hostname(), site.Hostname()) || port(u) != port(site) {
		return "", false
	}
	return strings.CutPrefix(u.Path, strings.TrimRight(site.Path, "/")+"/")
}

// likeSCP reads git's short form of an SSH address, git@<host>:<path>. It is one only where no slash
// comes before the colon.
func likeSCP(site *url.URL, address string) (string, bool) {
	rest, ok := strings.CutPrefix(address, sshUser+"@")
	for _, host := range []string{site.Host, site.Hostname()} { // people write a port of the site's along
		if ok && len(rest) > len(host) && strings.EqualFold(rest[:len(host)], host) && rest[len(host)] == ':' {
			return strings.TrimPrefix(rest[len(host)+1:], "/"), true
		}
	}
	return "", false
}

func port(u *url.URL) string {
	if p := u.Port(); p != "" {
		return p
	}
	return map[string]string{"http": "80", "https": "443"}[u.Scheme]
}

var workspacePattern = regexp.MustCompile(`^[A-Za-z0-9_{][A-Za-z0-9_.{}-]{0,127}$`)

// ValidSubmoduleSource tells whether s can be one of the sources that submodules may come from: a Bitbucket
// workspace, a repository's full name, or *.
func ValidSubmoduleSource(s string) bool {
	return s == "*" || workspacePattern.MatchString(s) || fullNamePattern.MatchString(s)
}
