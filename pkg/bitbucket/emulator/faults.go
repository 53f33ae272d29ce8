package emulator

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// FaultKind names what goes wrong. The zero kind is a plain fault: its own Status, Body, RetryAfter, Delay and Drop. A
// Status without a Body is answered in the words and the shape of the plane that was asked (see Fault.Route).
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
	FaultReset            FaultKind = "reset"               // resets the connection (RST) before the request takes effect; clients may repeat a GET at once
	FaultTruncated        FaultKind = "truncated"           // processes it, sends half of the answer, cuts the connection
	FaultHalved           FaultKind = "halved"              // processes it, sends half of the answer as if it were whole
	FaultTrickle          FaultKind = "trickle"             // processes it, sends the answer piece by piece over Delay (30 s)
	FaultWrongBody        FaultKind = "wrong-body"          // Status (200) with what is not the plane's: HTML from REST and OAuth, else JSON
	FaultFlush            FaultKind = "flush"               // git only: `0000` and nothing else, to ls-refs unless Route says otherwise
	FaultForeignNext      FaultKind = "next-foreign-origin" // "next" points to another origin
	FaultIPAllowList      FaultKind = "ip-allow-list"       // git only: 403 "an admin must whitelist your IP"
	FaultTwoStep          FaultKind = "two-step"            // git only: 403 "enable two-step authentication"
)

// Kinds that change deliveries; Repository limits them to one.
const (
	FaultDuplicateDelivery  FaultKind = "duplicate-delivery"    // sends it twice, same ids
	FaultOutOfOrderDelivery FaultKind = "out-of-order-delivery" // holds it back until the next one was sent
	FaultDropDelivery       FaultKind = "drop-delivery"         // never sends it
	FaultLateDelivery       FaultKind = "late-delivery"         // sends it after Delay (30 s), past those that came later
	FaultEmptyChanges       FaultKind = "empty-changes"         // push.changes is []
	FaultManyChanges        FaultKind = "many-changes"          // adds 60 changes of other branches before the real ones
	FaultMissingAccountID   FaultKind = "missing-account-id"    // actor without account_id
	FaultMissingActor       FaultKind = "missing-actor"         // actor is null
	FaultMissingAuthorUser  FaultKind = "missing-author-user"   // commits without author.user
)

// Kinds that change what is true. All need Repository; the last two are done at once and for good.
const (
	FaultPermissionDowngrade FaultKind = "permission-downgrade" // nobody has more than Permission (read)
	FaultRotatedSlug         FaultKind = "rotated-slug"         // renames the repository to Slug (old + "-renamed")
	FaultNameTaken           FaultKind = "name-taken"           // the same, and another repository gets the old name at once
)

var requestKinds = []FaultKind{
	"", FaultTokenExpired, FaultTokenExpiredOld, FaultTokenInvalid, FaultMissingScope, FaultRateLimited, FaultRateLimitedText,
	FaultRateLimitedReset, FaultServerErrorHTML, FaultSlow, FaultLostAnswer, FaultForeignNext, FaultIPAllowList, FaultTwoStep,
	FaultReset, FaultTruncated, FaultHalved, FaultTrickle, FaultWrongBody, FaultFlush,
}

var deliveryKinds = []FaultKind{
	FaultDuplicateDelivery, FaultOutOfOrderDelivery, FaultDropDelivery, FaultLateDelivery, FaultEmptyChanges, FaultManyChanges,
	FaultMissingAccountID, FaultMissingActor, FaultMissingAuthorUser,
}

var worldKinds = []FaultKind{FaultPermissionDowngrade, FaultRotatedSlug, FaultNameTaken}

// Fault is one thing that goes wrong, explicitly injected. Requests match if all of Method, Route, Path, Repository
// and Account do; empty ones match everything but pages and the control API.
type Fault struct {
	ID   string    `json:"id"`
	Kind FaultKind `json:"kind"`

	Method string `json:"method"`
	// Route is a pattern of the routing table, e.g. "/2.0/repositories/{workspace}/{repository}/hooks", with or without
	// its method before it; or a plane: "api", "git", "oauth" (the token endpoint), "site" (consent and other pages); or
	// a step of git: "git:refs" (GET info/refs), "git:ls-refs", "git:fetch", "git:push".
	Route string `json:"route"`
	// Path is a prefix of the escaped path, e.g. "/2.0/repositories/acme/web".
	Path string `json:"path"`
	// Repository is "workspace/slug", or a UUID in braces that holds through renames. Requests match that name it by
	// either; listings name none. Deliveries match that are about it.
	Repository string `json:"repository"`
	// Account is the user name of whose OAuth tokens, or code, a request carries. Those of people with a password and of
	// nobody are left alone then.
	Account string `json:"account"`

	// After lets so many matches pass first; Times is how many are hit then (0: until removed). For ends it so long after
	// it was injected (0: until removed); in JSON like Delay.
	After int           `json:"after"`
	Times int           `json:"times"`
	For   time.Duration `json:"for"`

	Status   int               `json:"status"`
	Body     string            `json:"body"`
	BodyKind string            `json:"body_kind"` // json, text, html or none; the default is json where Body starts with "{"
	Headers  map[string]string `json:"headers"`
	// RetryAfter adds the header in whole seconds, rounded up.
	RetryAfter time.Duration `json:"retry_after"`
	Delay      time.Duration `json:"delay"` // in JSON nanoseconds or a text like "250ms"
	// Late makes the delay come after the request took effect, before its answer is sent.
	Late bool `json:"late"`
	// Drop lets the request take effect and cuts the connection instead of answering.
	Drop bool `json:"drop"`

	Permission string `json:"permission"`
	Slug       string `json:"slug"`

	// Hits counts matches that were hit.
	Hits int `json:"hits"`

	until time.Time
}

type faultSet struct {
	mu   sync.Mutex
	list []*Fault
}

// inject validates and adds a fault.
func (e *Emulator) inject(ctx context.Context, fault Fault) (string, error) {
	if err := e.checkFault(&fault); err != nil {
		return "", err
	}
	switch fault.Kind { //nolint:exhaustive // the others need nothing
	case FaultSlow, FaultTrickle, FaultLateDelivery:
		setDefault(&fault.Delay, 30*time.Second)
	case FaultLostAnswer:
		fault.Drop = true
	case FaultIPAllowList, FaultTwoStep:
		setDefault(&fault.Route, routeGit)
	case FaultFlush:
		setDefault(&fault.Route, routeLsRefs)
	case FaultPermissionDowngrade:
		setDefault(&fault.Permission, "read")
		if _, err := e.findRepository(fault.Repository); err != nil {
			return "", err
		}
	case FaultRotatedSlug, FaultNameTaken:
		_, slug, _ := strings.Cut(fault.Repository, "/")
		body := renameBody{Slug: cmp.Or(fault.Slug, slug+"-renamed")}
		if fault.Kind == FaultNameTaken {
			body.TakenBy = &RepositoryInput{Seed: "stranger"}
		}
		if err := e.renameRepository(fault.Repository, body); err != nil {
			return "", err
		}
	}
	e.opts.Logger.InfoContext(ctx, "fault injected", "kind", string(fault.Kind), "route", fault.Route)
	return e.faults.add(fault), nil
}

// checkFault refuses what could never match or mean anything, so that a test does not pass for a typing error.
func (e *Emulator) checkFault(fault *Fault) error {
	known := slices.Contains(requestKinds, fault.Kind) || slices.Contains(deliveryKinds, fault.Kind) || slices.Contains(worldKinds, fault.Kind)
	switch {
	case !known:
		return fmt.Errorf("no fault kind %q", fault.Kind)
	case !slices.Contains([]string{"", "json", "text", "html", "none"}, fault.BodyKind):
		return fmt.Errorf("body_kind %q is none of json, text, html, none", fault.BodyKind)
	case fault.Repository != "" && !strings.Contains(fault.Repository, "/") && !strings.HasPrefix(fault.Repository, "{"):
		return fmt.Errorf("repository %q is neither workspace/slug nor a UUID in braces", fault.Repository)
	case slices.Contains(requestKinds, fault.Kind) && !e.knownRoute(fault.Route):
		return fmt.Errorf("there is no route %q", fault.Route)
	}
	return nil
}

func (s *faultSet) add(fault Fault) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	fault.ID, fault.Hits = newUUID(), 0
	if fault.For > 0 {
		fault.until = time.Now().Add(fault.For)
	}
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

// dropEnded forgets faults whose time is over. Callers hold s.mu.
func (s *faultSet) dropEnded() {
	now := time.Now()
	s.list = slices.DeleteFunc(s.list, func(f *Fault) bool { return f.For > 0 && !now.Before(f.until) })
}

func (s *faultSet) all() []Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropEnded()
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
	s.dropEnded()
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

// capPermission is the highest permission that active downgrades leave on a repository.
func (s *faultSet) capPermission(fullName, permission string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropEnded()
	for _, f := range s.list {
		if f.Kind == FaultPermissionDowngrade && strings.EqualFold(f.Repository, fullName) &&
			permissionRank(f.Permission) < permissionRank(permission) {
			permission = f.Permission
		}
	}
	return permission
}
