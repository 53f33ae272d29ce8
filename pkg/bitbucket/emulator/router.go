package emulator

import (
	"net/http"
	"net/url"
	"strings"
)

// params are the decoded values of a pattern's {names}.
type params map[string]string

// route is one line of the routing table. Patterns have {name} for one segment and {name...} for the rest, which keeps
// its slashes: branch names come both with "/" and "%2F". Segments are split before they are decoded.
type route struct {
	method  string
	pattern string
	// API routes set api; the others serve.
	api   func(*call) response
	serve func(w http.ResponseWriter, r *http.Request, p params)
	// delayed routes are subject to Switches.Latency.
	delayed bool
	// scopes must all be granted; user routes refuse anonymous callers; bucket is the rate limit it counts for.
	scopes []string
	user   bool
	bucket string

	segments []string
}

func (rt *route) name() string { return rt.method + " " + rt.pattern }

// routes is ordered: the first match wins.
type routes []*route

func (rs *routes) add(rt route) {
	rt.segments = strings.Split(strings.Trim(rt.pattern, "/"), "/")
	*rs = append(*rs, &rt)
}

// match finds the route of a request. If only the method differs, it returns the methods that would do.
func (rs routes) match(method, escapedPath string) (found *route, p params, allowed []string) {
	segments := splitPath(escapedPath)
	for _, rt := range rs {
		p, ok := rt.matches(segments)
		if !ok {
			continue
		}
		if rt.method == method || (method == http.MethodHead && rt.method == http.MethodGet) {
			return rt, p, nil
		}
		allowed = append(allowed, rt.method)
	}
	return nil, nil, allowed
}

func (rt *route) matches(segments []string) (params, bool) {
	p := params{}
	for i, want := range rt.segments {
		name, isParam := strings.CutPrefix(want, "{")
		if rest, ok := strings.CutSuffix(name, "...}"); isParam && ok {
			if i >= len(segments) {
				return nil, false
			}
			p[rest] = strings.Join(segments[i:], "/")
			return p, true
		}
		if i >= len(segments) {
			return nil, false
		}
		if isParam {
			p[strings.TrimSuffix(name, "}")] = segments[i]
		} else if segments[i] != want {
			return nil, false
		}
	}
	return p, len(segments) == len(rt.segments)
}

// splitPath splits an escaped path at its real slashes, drops one trailing slash (tolerated, BITBUCKET.md#hosts) and decodes
// each segment. An undecodable segment stays as it is.
func splitPath(escaped string) []string {
	segments := strings.Split(strings.TrimSuffix(strings.TrimPrefix(escaped, "/"), "/"), "/")
	for i, segment := range segments {
		if decoded, err := url.PathUnescape(segment); err == nil {
			segments[i] = decoded
		}
	}
	return segments
}
