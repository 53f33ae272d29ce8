package address

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
)

var fullNamePattern = regexp.MustCompile(`^[A-Za-z0-9_{][A-Za-z0-9_.{}-]{0,127}/[A-Za-z0-9_.{}-]{1,127}$`)

// CloneURL is where git finds a repository: the configured site and the full name, never the clone
// link of the API, which carries a user name (BITBUCKET.md#one-repository).
func CloneURL(site *url.URL, fullName string) (string, error) {
	workspace, slug, _ := strings.Cut(fullName, "/")
	if !fullNamePattern.MatchString(fullName) || strings.Trim(workspace, ".") == "" || strings.Trim(slug, ".") == "" {
		return "", fmt.Errorf("address: %q is not a repository's full name", fullName)
	}
	return strings.TrimRight(site.String(), "/") + "/" + (&url.URL{Path: fullName}).EscapedPath() + ".git", nil
}

// ValidBranch tells whether git could have a branch of this name (git-check-ref-format). What
// passes is never taken for an option or a pattern, since it is only ever used after refs/heads/.
func ValidBranch(name string) bool {
	if name == "" || len(name) > 244 || strings.HasPrefix(name, "/") || strings.HasSuffix(name, "/") || strings.HasSuffix(name, ".") ||
		strings.Contains(name, "..") || strings.Contains(name, "//") || strings.Contains(name, "@{") || name == "@" {
		return false
	}
	for part := range strings.SplitSeq(name, "/") {
		if strings.HasPrefix(part, ".") || strings.HasSuffix(part, ".lock") {
			return false
		}
	}
	return !strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune(`~^:?*[\`, r) })
}
