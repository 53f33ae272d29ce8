package bitbucket

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"strings"
)

// Default addresses of Bitbucket Cloud (BITBUCKET.md#hosts).
const (
	DefaultSiteURL = "https://bitbucket.org"
	DefaultAPIURL  = "https://api.bitbucket.org/2.0"
)

// Site is one Bitbucket: the origin for browsers, OAuth and git, and the base of the REST API.
// Both are kept normalised (lower-case scheme and host, no default port, no trailing slash), so two
// sites may be compared with ==. Make one with [NewSite]; the zero Site reaches nothing.
type Site struct {
	SiteURL string // such as https://bitbucket.org
	APIURL  string // such as https://api.bitbucket.org/2.0
}

// NewSite checks and normalises the two addresses. Both must be absolute and without user
// information, query or fragment. The scheme is https; the API may use http only where the site is
// configured with http itself (DESIGN.md#source-control).
func NewSite(siteURL, apiURL string) (Site, error) {
	site, err := normalBase(siteURL)
	if err != nil {
		return Site{}, fmt.Errorf("bitbucket site URL: %w", err)
	}
	api, err := normalBase(apiURL)
	if err != nil {
		return Site{}, fmt.Errorf("bitbucket API URL: %w", err)
	}
	if api.Scheme == "http" && site.Scheme != "http" {
		return Site{}, errors.New("bitbucket API URL: must be https because the site URL is https")
	}
	return Site{SiteURL: site.String(), APIURL: api.String()}, nil
}

// normalBase parses an address that others are built upon.
func normalBase(raw string) (*url.URL, error) {
	u, err := url.Parse(strings.TrimSpace(raw))
	if err != nil {
		return nil, errors.New("is not a URL") // the parser's own text repeats the input
	}
	switch {
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, errors.New("must begin with https:// (or http:// for a test server)")
	case u.Hostname() == "":
		return nil, errors.New("has no host")
	case u.User != nil:
		return nil, errors.New("must not hold a user name or password")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return nil, errors.New("must not have a query or a fragment")
	}
	p := strings.TrimRight(u.Path, "/")
	if p != "" && path.Clean(p) != p {
		return nil, errors.New("has an unclean path")
	}
	return &url.URL{Scheme: u.Scheme, Host: normalHost(u), Path: p}, nil
}

// normalHost is the host in lower case, with the port only where it is not the scheme's own.
func normalHost(u *url.URL) string {
	host := strings.ToLower(u.Hostname())
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	port := u.Port()
	if port == "" || (u.Scheme == "https" && port == "443") || (u.Scheme == "http" && port == "80") {
		return host
	}
	return host + ":" + port
}

// sameOrigin reports whether u has the scheme, host and port of base and nothing that could send a
// credential elsewhere.
func sameOrigin(base, u *url.URL) bool {
	return u.User == nil && u.Opaque == "" && u.Scheme == base.Scheme && normalHost(u) == normalHost(base)
}

// OnAPI reports whether u lies on the API's origin and below its base path: only such URLs may be
// followed with a token (BITBUCKET.md#pages).
func (s Site) OnAPI(u *url.URL) bool { return below(s.APIURL, u) }

// OnSite reports whether u lies on the site's origin: only there may git send the token.
func (s Site) OnSite(u *url.URL) bool { return below(s.SiteURL, u) }

func below(base string, u *url.URL) bool {
	b, err := url.Parse(base)
	if err != nil || b.Host == "" || u == nil || !sameOrigin(b, u) {
		return false
	}
	// A path that climbs ("/2.0/../x") is judged by where it ends up.
	p := path.Clean("/" + u.Path)
	return b.Path == "" || p == b.Path || strings.HasPrefix(p, b.Path+"/")
}

// AuthorizeEndpoint is where the browser is sent to consent (BITBUCKET.md#authorize).
func (s Site) AuthorizeEndpoint() string { return s.SiteURL + "/site/oauth2/authorize" }

// TokenEndpoint is where codes and refresh tokens are spent (BITBUCKET.md#token-endpoint).
func (s Site) TokenEndpoint() string { return s.SiteURL + "/site/oauth2/access_token" }

// CloneURL builds the HTTPS address of a repository from its full name. The clone link in the API's
// answers must not be used: it carries the caller's user name, which breaks authentication with the
// token (BITBUCKET.md#one-repository). It refuses names that could change the address.
func (s Site) CloneURL(fullName string) (string, error) {
	p, err := fullNamePath(fullName)
	if err != nil {
		return "", err
	}
	return s.SiteURL + "/" + p + ".git", nil
}

// RepositoryURL is the repository's page for people, or the site's front page for a name that is
// not a repository's.
func (s Site) RepositoryURL(fullName string) string {
	p, err := fullNamePath(fullName)
	if err != nil {
		return s.SiteURL
	}
	return s.SiteURL + "/" + p
}

// CommitURL is the page of one commit.
func (s Site) CommitURL(fullName, hash string) string {
	return s.RepositoryURL(fullName) + "/commits/" + url.PathEscape(hash)
}

// WebhookSettingsURL is the page on which an admin of the repository adds and removes webhooks.
func (s Site) WebhookSettingsURL(fullName string) string {
	return s.RepositoryURL(fullName) + "/admin/webhooks"
}

// AppAuthorizationsURL is the page on which a user revokes what they granted (BITBUCKET.md#revocation).
func (s Site) AppAuthorizationsURL() string {
	return s.SiteURL + "/account/settings/app-authorizations/"
}

// ErrBadFullName is returned for text that is no `workspace/slug`.
var ErrBadFullName = errors.New("not a Bitbucket repository name: want workspace/repository")

// SplitFullName splits `workspace/slug` and refuses everything that is not exactly that.
func SplitFullName(fullName string) (workspace, slug string, err error) {
	workspace, slug, ok := strings.Cut(fullName, "/")
	if !ok || !nameSegment(workspace) || !nameSegment(slug) {
		return "", "", ErrBadFullName
	}
	return workspace, slug, nil
}

// fullNamePath is the escaped path of a repository. nameSegment leaves nothing to escape.
func fullNamePath(fullName string) (string, error) {
	workspace, slug, err := SplitFullName(fullName)
	if err != nil {
		return "", err
	}
	return workspace + "/" + slug, nil
}

// nameSegment reports whether s may be a workspace's or a repository's slug: letters, digits and
// `_.-`, not beginning with a hyphen (it could be taken for an option of git) and not a dot name.
func nameSegment(s string) bool {
	if s == "" || len(s) > 255 || s == "." || s == ".." || s[0] == '-' {
		return false
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == '.', c == '-':
		default:
			return false
		}
	}
	return true
}
