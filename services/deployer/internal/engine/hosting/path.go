package hosting

import (
	"errors"
	"net/url"
	"strings"
)

const (
	maxPath    = 4096 // bytes of a request's path
	maxSegment = 255  // bytes of a file name, on every file system we know
)

// errPath says that a request's path can name no file of a release.
var errPath = errors.New("live: malformed path")

// cleanPath turns a request's path into a slash-separated one relative to the served directory ("" for
// the root) and tells whether it ended in a slash. Nothing is repaired: ".." and "//", encoded or not, are errors,
// as browsers never send them and a cleaned path would only be another name for the same file. So are
// encoded slashes and backslashes, which proxies before us may read otherwise, and control characters.
func cleanPath(u *url.URL) (path string, slash bool, err error) {
	p := u.Path
	if p == "" {
		p = "/"
	}
	if p[0] != '/' || len(p) > maxPath || strings.Contains(p, "\\") || encodedSlash(u.RawPath) {
		return "", false, errPath
	}
	for i := range len(p) {
		if p[i] < 0x20 || p[i] == 0x7f {
			return "", false, errPath
		}
	}
	p = p[1:]
	p, slash = strings.CutSuffix(p, "/")
	if p == "" {
		if slash { // "//"
			return "", false, errPath
		}
		return "", true, nil
	}
	for segment := range strings.SplitSeq(p, "/") {
		if segment == "" || segment == "." || segment == ".." || len(segment) > maxSegment {
			return "", false, errPath
		}
	}
	return p, slash, nil
}

// encodedSlash looks for %2f and %5c; the raw path is kept by net/url whenever it holds one.
func encodedSlash(raw string) bool {
	for {
		i := strings.IndexByte(raw, '%')
		if i < 0 || i+2 >= len(raw) {
			return false
		}
		if code := strings.ToLower(raw[i+1 : i+3]); code == "2f" || code == "5c" {
			return true
		}
		raw = raw[i+1:]
	}
}

// hidden tells whether a name is never served; above is the directory it lies in, relative to the served
// one and free of links. Cases are folded: a volume may do so, too.
func hidden(above, name string) bool {
	if strings.HasPrefix(name, ".") {
		return above != "" || name != ".well-known"
	}
	return above == "" && (strings.EqualFold(name, headersFile) || strings.EqualFold(name, redirectsFile))
}
