package emulator

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// FaultKind names what goes wrong. The zero kind is a plain fault: its own Status, Body, Delay and Drop.
type FaultKind string

// Kinds that replace the answer of matching requests.
const (
	FaultTokenExpired     FaultKind = "token-expired"       // 401, wording of 2026
	FaultTokenExpiredOld  FaultKind = "token-expired-old"   // 401, wording before
	FaultTokenInvalid     FaultKind = "token-invalid"       // 401 as for a garbage token
	FaultMissingScope     FaultKind = "missing-scope"       // 403 with detail as an object
	FaultRateLimited      FaultKind = "rate-limited"        // 429 as JSON; Headers may add Retry-After
	FaultRateLimitedText  FaultKind = "rate-limited-text"   // 429 as bare text
	FaultRateLimitedReset FaultKind = "rate-limited-reset"  // 429 with x-ratelimit-reset in seconds
	FaultServerErrorHTML  FaultKind = "server-error-html"   // Status (502) with a gateway's HTML page
	FaultSlow             FaultKind = "slow"                // answers after Delay (30 s)
	FaultLostAnswer       FaultKind = "lost-answer"         // processes the request, then cuts the connection
	FaultForeignNext      FaultKind = "next-foreign-origin" // "next" points to another origin
	FaultIPAllowList      FaultKind = "ip-allow-list"       // git only: 403 "an admin must whitelist your IP"
	FaultTwoStep          FaultKind = "two-step"            // git only: 403 "enable two-step authentication"
)

// Kinds that change deliveries; Repository limits them to one.
const (
	FaultDuplicateDelivery  FaultKind = "duplicate-delivery"    // sends it twice, same ids
	FaultOutOfOrderDelivery FaultKind = "out-of-order-delivery" // holds it back until the next one was sent
	FaultDropDelivery       FaultKind = "drop-delivery"         // never sends it
	FaultEmptyChanges       FaultKind = "empty-changes"         // push.changes is []
	FaultManyChanges        FaultKind = "many-changes"          // adds 60 changes of other branches before the real ones
	FaultMissingAccountID   FaultKind = "missing-account-id"    // actor without account_id
	FaultMissingActor       FaultKind = "missing-actor"         // actor is null
	FaultMissingAuthorUser  FaultKind = "missing-author-user"   // commits without author.user
)

// Kinds that change what is true while they last. Both need Repository.
const (
	FaultPermissionDowngrade FaultKind = "permission-downgrade" // nobody has more than Permission (read)
	FaultRotatedSlug         FaultKind = "rotated-slug"         // renames the repository to Slug (old + "-renamed") for good
)

var requestKinds = []FaultKind{
	"", FaultTokenExpired, FaultTokenExpiredOld, FaultTokenInvalid, FaultMissingScope, FaultRateLimited, FaultRateLimitedText,
	FaultRateLimitedReset, FaultServerErrorHTML, FaultSlow, FaultLostAnswer, FaultForeignNext, FaultIPAllowList, FaultTwoStep,
}

var deliveryKinds = []FaultKind{
	FaultDuplicateDelivery, FaultOutOfOrderDelivery, FaultDropDelivery, FaultEmptyChanges, FaultManyChanges,
	FaultMissingAccountID, FaultMissingActor, FaultMissingAuthorUser,
}

// Fault is one thing that goes wrong, explicitly injected. Requests match if all of Method, Route and Path do; empty
// ones match everything but pages and the control API.
type Fault struct {
	ID   string    `json:"id"`
	Kind FaultKind `json:"kind"`

	Method string `json:"method"`
	// Route is a pattern of the routing table, e.g. "/2.0/repositories/{workspace}/{repository}/hooks", or "git" for
	// the three git routes, or "api" for the whole REST API.
	Route string `json:"route"`
	// Path is a prefix of the escaped path, e.g. "/2.0/repositories/acme/web".
	Path string `json:"path"`
	// Repository is "workspace/slug", for kinds about deliveries and repositories.
	Repository string `json:"repository"`

	// After lets so many matches pass first; Times is how many are hit then (0: until removed).
	After int `json:"after"`
	Times int `json:"times"`

	Status   int               `json:"status"`
	Body     string            `json:"body"`
	BodyKind string            `json:"body_kind"` // json, text or html; the default is json where Body starts with "{"
	Headers  map[string]string `json:"headers"`
	Delay    time.Duration     `json:"delay"` // in JSON nanoseconds or a text like "250ms"
	// Late makes the delay come after the request took effect, before its answer is sent.
	Late bool `json:"late"`
	// Drop lets the request take effect and cuts the connection instead of answering.
	Drop bool `json:"drop"`

	Permission string `json:"permission"`
	Slug       string `json:"slug"`

	// Hits counts matches that were hit.
	Hits int `json:"hits"`
}

type faultSet struct {
	mu   sync.Mutex
	list []*Fault
}

// inject validates and adds a fault.
func (e *Emulator) inject(ctx context.Context, fault Fault) (string, error) {
	known := slices.Contains(requestKinds, fault.Kind) || slices.Contains(deliveryKinds, fault.Kind) ||
		fault.Kind == FaultPermissionDowngrade || fault.Kind == FaultRotatedSlug
	if !known {
		return "", fmt.Errorf("no fault kind %q", fault.Kind)
	}
	switch fault.Kind { //nolint:exhaustive // the others need nothing
	case FaultSlow:
		setDefault(&fault.Delay, 30*time.Second)
	case FaultLostAnswer:
		fault.Drop = true
	case FaultIPAllowList, FaultTwoStep:
		setDefault(&fault.Route, "git")
	case FaultPermissionDowngrade:
		setDefault(&fault.Permission, "read")
		if _, err := e.findRepository(fault.Repository); err != nil {
			return "", err
		}
	case FaultRotatedSlug:
		_, slug, _ := strings.Cut(fault.Repository, "/")
		if err := e.renameRepository(fault.Repository, cmp.Or(fault.Slug, slug+"-renamed"), ""); err != nil {
			return "", err
		}
	}
	e.opts.Logger.InfoContext(ctx, "fault injected", "kind", string(fault.Kind), "route", fault.Route)
	return e.faults.add(fault), nil
}

func (s *faultSet) add(fault Fault) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	fault.ID, fault.Hits = newUUID(), 0
	s.list = append(s.list, &fault)
	return fault.ID
}

// remove removes one fault, or all for an empty id, and reports whether there was one.
func (s *faultSet) remove(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := len(s.list)
	s.list = slices.DeleteFunc(s.list, func(f *Fault) bool { return id == "" || f.ID == id })
	return len(s.list) < before
}

func (s *faultSet) all() []Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	faults := make([]Fault, 0, len(s.list))
	for _, fault := range s.list {
		faults = append(faults, *fault)
	}
	return faults
}

// take hits the faults that match: it counts them and retires those that were hit Times times.
func (s *faultSet) take(matches func(*Fault) bool) []Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	var hit []Fault
	s.list = slices.DeleteFunc(s.list, func(f *Fault) bool {
		if !matches(f) {
			return false
		}
		if f.After > 0 {
			f.After--
			return false
		}
		f.Hits++
		hit = append(hit, *f)
		return f.Times > 0 && f.Hits >= f.Times
	})
	return hit
}

func (s *faultSet) takeRequest(rt *route, r *http.Request) []Fault {
	return s.take(func(f *Fault) bool {
		return slices.Contains(requestKinds, f.Kind) && f.matchesRequest(rt, r)
	})
}

func (f *Fault) matchesRequest(rt *route, r *http.Request) bool {
	isGit := strings.HasSuffix(rt.pattern, "/info/refs") || strings.Contains(rt.pattern, "/git-")
	switch f.Route {
	case "":
		if f.Path == "" && !rt.delayed && !isGit {
			return false
		}
	case "git":
		if !isGit {
			return false
		}
	case "api":
		if rt.api == nil {
			return false
		}
	default:
		if f.Route != rt.pattern && f.Route != rt.name() {
			return false
		}
	}
	return (f.Method == "" || f.Method == r.Method) && strings.HasPrefix(r.URL.EscapedPath(), f.Path)
}

// takeDelivery hits the delivery faults of a repository.
func (s *faultSet) takeDelivery(fullName string) map[FaultKind]bool {
	kinds := map[FaultKind]bool{}
	for _, f := range s.take(func(f *Fault) bool {
		return slices.Contains(deliveryKinds, f.Kind) && (f.Repository == "" || strings.EqualFold(f.Repository, fullName))
	}) {
		kinds[f.Kind] = true
	}
	return kinds
}

// capPermission is the highest permission that active downgrades leave on a repository.
func (s *faultSet) capPermission(fullName, permission string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.list {
		if f.Kind == FaultPermissionDowngrade && strings.EqualFold(f.Repository, fullName) &&
			permissionRank(f.Permission) < permissionRank(permission) {
			permission = f.Permission
		}
	}
	return permission
}

// answer is what the fault answers instead of the emulator, if it does.
func (f *Fault) answer() (response, bool) {
	var answer response
	switch f.Kind {
	case FaultTokenExpired:
		answer = failure(http.StatusUnauthorized, msgTokenExpired)
	case FaultTokenExpiredOld:
		answer = failure(http.StatusUnauthorized, msgTokenExpiredOld)
	case FaultTokenInvalid:
		answer = failure(http.StatusUnauthorized, msgTokenInvalid)
	case FaultMissingScope:
		answer = missingScope([]string{"account", "email"}, []string{"repository"})
	case FaultRateLimited:
		answer = tooManyRequests(false, false, 0)
	case FaultRateLimitedText:
		answer = tooManyRequests(true, false, 0)
	case FaultRateLimitedReset:
		answer = tooManyRequests(false, false, 0).with("x-ratelimit-limit", "60, 60;w=3600").
			with("x-ratelimit-remaining", "0").with("x-ratelimit-reset", "745")
	case FaultServerErrorHTML:
		status := cmp.Or(f.Status, http.StatusBadGateway)
		answer = plain(status, "<!DOCTYPE html><html><head><title>"+strconv.Itoa(status)+"</title></head><body><h1>"+
			strconv.Itoa(status)+" "+http.StatusText(status)+"</h1></body></html>").with("Content-Type", "text/html")
	case FaultIPAllowList:
		answer = plain(http.StatusForbidden, "To access this repository, an admin must whitelist your IP.")
	case FaultTwoStep:
		answer = plain(http.StatusForbidden, "To access this repository, enable two-step authentication.")
	default:
		if f.Status == 0 && f.Body == "" {
			return response{}, false
		}
		answer = plain(cmp.Or(f.Status, http.StatusInternalServerError), f.Body).with("Content-Type", f.contentType())
	}
	for name, value := range f.Headers {
		answer = answer.with(name, value)
	}
	return answer, true
}

func (f *Fault) contentType() string {
	kind := f.BodyKind
	if kind == "" && strings.HasPrefix(strings.TrimSpace(f.Body), "{") {
		kind = "json"
	}
	switch kind {
	case "json":
		return "application/json; charset=utf-8"
	case "html":
		return "text/html; charset=utf-8"
	default:
		return "text/plain; charset=utf-8"
	}
}
