package emulator

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Planes and steps of git, as Fault.Route names them.
const (
	routeAPI    = "api"
	routeGit    = "git"
	routeOAuth  = "oauth"
	routeSite   = "site"
	routeLsRefs = "git:ls-refs"

	stepRefs  = "refs"    // GET info/refs
	stepLs    = "ls-refs" // POST git-upload-pack, command ls-refs
	stepFetch = "fetch"   // any other POST git-upload-pack
	stepPush  = "push"    // POST git-receive-pack
)

var faultRoutes = []string{"", routeAPI, routeGit, routeOAuth, routeSite,
	routeGit + ":" + stepRefs, routeLsRefs, routeGit + ":" + stepFetch, routeGit + ":" + stepPush}

func (e *Emulator) knownRoute(name string) bool {
	return slices.Contains(faultRoutes, name) ||
		slices.ContainsFunc(e.table, func(rt *route) bool { return rt.pattern == name || rt.name() == name })
}

// target is what a request is about, as faults see it.
type target struct {
	rt    *route
	r     *http.Request
	plane string
	step  string // of git
	// old tells that git speaks a version before 2, in which info/refs lists the refs.
	old bool
	// names are the repository's: as in the path, and if there is one its current full name and its UUID in braces.
	names []string
	// account is the user name of whom the request's token or code stands for, live or dead.
	account string
}

func (e *Emulator) targetOf(rt *route, r *http.Request, p params) *target {
	t := &target{rt: rt, r: r, plane: rt.plane()}
	if t.plane == routeGit {
		t.old = !strings.Contains(r.Header.Get("Git-Protocol"), "version=2")
		t.step = gitStep(rt, r)
	}
	var form url.Values
	if t.plane == routeOAuth {
		form = peekForm(r)
	}
	e.mu.RLock()
	defer e.mu.RUnlock()
	t.account = e.st.holder(r, form)
	if p["repository"] == "" {
		return t
	}
	slug := strings.TrimSuffix(p["repository"], ".git")
	t.names = []string{p["workspace"] + "/" + slug}
	if repo := e.st.repository(p["workspace"], slug); repo != nil {
		t.names = append(t.names, e.st.fullName(repo), "{"+repo.UUID+"}")
	}
	return t
}

// holder is the user name of whom a request's OAuth token or code was given to. Callers hold Emulator.mu.
func (st *state) holder(r *http.Request, form url.Values) string {
	token, isBearer := cutPrefixFold(r.Header.Get("Authorization"), "Bearer ")
	if user, password, isBasic := r.BasicAuth(); isBasic && user == "x-token-auth" {
		token, isBearer = password, true
	}
	var account string
	if code := st.codes[hashToken(form.Get("code"))]; code != nil {
		account = code.Account
	}
	grant := ""
	if known := st.refresh[hashToken(form.Get("refresh_token"))]; known != nil {
		grant = known.Grant
	}
	if known := st.access[hashToken(token)]; isBearer && known != nil {
		grant = known.Grant
	}
	if known := st.grants[grant]; known != nil {
		account = known.Account
	}
	if known := st.accounts[account]; known != nil {
		return known.Username
	}
	return ""
}

// peekForm reads the form in a request's body and leaves the body whole.
func peekForm(r *http.Request) url.Values {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody))
	r.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(body), r.Body), r.Body}
	if err != nil {
		return nil
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil
	}
	return form
}

func (rt *route) plane() string {
	switch {
	case rt.api != nil:
		return routeAPI
	case rt.pattern == pathAccessToken:
		return routeOAuth
	case slices.Contains([]string{routeInfoRefs, routeUploadPack, routeReceivePack}, rt.pattern):
		return routeGit
	default:
		return routeSite
	}
}

func gitStep(rt *route, r *http.Request) string {
	switch rt.pattern {
	case routeInfoRefs:
		return stepRefs
	case routeReceivePack:
		return stepPush
	}
	if bytes.Contains(peekBody(r), []byte("command=ls-refs")) {
		return stepLs
	}
	return stepFetch
}

// peekBody reads the first line of a request's body, packed or not, and leaves the body whole.
func peekBody(r *http.Request) []byte {
	kept := bufio.NewReader(r.Body)
	start, _ := kept.Peek(4096) // shorter bodies end with an error
	r.Body = struct {
		io.Reader
		io.Closer
	}{kept, r.Body}
	if r.Header.Get("Content-Encoding") != "gzip" {
		return start[:min(len(start), 64)]
	}
	unzip, err := gzip.NewReader(bytes.NewReader(start))
	if err != nil {
		return nil
	}
	line := make([]byte, 64)
	n, _ := io.ReadFull(unzip, line) // what there is will do
	return line[:n]
}

func (s *faultSet) takeRequest(t *target) []Fault {
	return s.take(func(f *Fault) bool { return slices.Contains(requestKinds, f.Kind) && f.matches(t) })
}

func (f *Fault) matches(t *target) bool {
	return f.matchesRoute(t) && (f.Method == "" || f.Method == t.r.Method) && strings.HasPrefix(t.r.URL.EscapedPath(), f.Path) &&
		(f.Account == "" || strings.EqualFold(f.Account, t.account)) &&
		(f.Repository == "" || slices.ContainsFunc(t.names, func(name string) bool { return strings.EqualFold(name, f.Repository) }))
}

func (f *Fault) matchesRoute(t *target) bool {
	switch f.Route {
	case "":
		return f.Path != "" || t.plane != routeSite
	case routeLsRefs:
		return t.step == stepLs || (t.step == stepRefs && t.old)
	default:
		return f.Route == t.plane || f.Route == t.plane+":"+t.step || f.Route == t.rt.pattern || f.Route == t.rt.name()
	}
}

// deliveryFaults are the faults that a delivery meets.
type deliveryFaults map[FaultKind]Fault

func (d deliveryFaults) has(kind FaultKind) bool {
	_, has := d[kind]
	return has
}

// takeDelivery hits the delivery faults of a repository.
func (s *faultSet) takeDelivery(fullName, uuid string) deliveryFaults {
	kinds := deliveryFaults{}
	for _, f := range s.take(func(f *Fault) bool {
		return slices.Contains(deliveryKinds, f.Kind) &&
			(f.Repository == "" || strings.EqualFold(f.Repository, fullName) || strings.EqualFold(f.Repository, "{"+uuid+"}"))
	}) {
		kinds[f.Kind] = f
	}
	return kinds
}
