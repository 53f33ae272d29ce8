package bitbucket

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
)

// Kind says what went wrong with a REST call, as far as Bitbucket's answer tells.
type Kind int

// The kinds. Each is decided from the status and, only where BITBUCKET.md gives no other sign, from
// the text.
const (
	KindUnknown          Kind = iota // an answer that BITBUCKET.md does not describe
	KindUnauthorized                 // 401: the token is not accepted (BITBUCKET.md#presenting-a-token)
	KindRefused                      // 401 to a token that is accepted elsewhere: about this one thing (BITBUCKET.md#presenting-a-token)
	KindScopeMissing                 // 403: the grant lacks a scope (BITBUCKET.md#presenting-a-token)
	KindForbidden                    // 403: the account may not do this (BITBUCKET.md#no-access and BITBUCKET.md#webhook-errors)
	KindAccessRestricted             // 403: IP allow-list, two-step verification, SSO (BITBUCKET.md#git, gotcha 18)
	KindNotFound                     // 404: missing or invisible, Bitbucket does not say which (BITBUCKET.md#no-access)
	KindGone                         // 410: the workspace was deleted (BITBUCKET.md#repositories)
	KindCallRemoved                  // 410: the call itself was removed from the API (BITBUCKET.md#lists-that-are-gone)
	KindRateLimited                  // 429, also when met with 403 (BITBUCKET.md#budgets), or our own budget is spent
	KindInvalid                      // 400 and other 4xx: Bitbucket refused the request as such (BITBUCKET.md#webhook-errors)
	KindUnavailable                  // 5xx, 555 (gotcha 30)
	KindNetwork                      // no answer: connection, TLS, time limit
	KindBadResponse                  // an answer that cannot be used: not JSON, too large, leads to another origin
)

var kindNames = [...]string{
	KindUnknown:          "unknown",
	KindUnauthorized:     "unauthorized",
	KindRefused:          "refused",
	KindScopeMissing:     "scope_missing",
	KindForbidden:        "forbidden",
	KindAccessRestricted: "access_restricted",
	KindNotFound:         "not_found",
	KindGone:             "gone",
	KindCallRemoved:      "call_removed",
	KindRateLimited:      "rate_limited",
	KindInvalid:          "invalid",
	KindUnavailable:      "unavailable",
	KindNetwork:          "network",
	KindBadResponse:      "bad_response",
}

// String is the kind in snake_case, as used in logs and metrics.
func (k Kind) String() string {
	if k < 0 || int(k) >= len(kindNames) {
		return "unknown"
	}
	return kindNames[k]
}

// Error is the error of every REST call that Bitbucket did not answer as hoped. It never holds a
// token. errors.As with a *apierr.Error target yields its public form ([Error.API]), and errors.Is
// accepts the kinds of apierr.
type Error struct {
	Kind    Kind
	Route   Route  // what kind of call it was
	Subject string // whom it was about, for people: "acme/web", a branch, a Bitbucket workspace
	Status  int    // HTTP status; 0 without an answer

	Message    string              // Bitbucket's own words, one line, capped; may be empty
	Detail     string              // error.detail where it is text
	Granted    []string            // scopes the grant has, with KindScopeMissing
	Required   []string            // scopes the call wants, with KindScopeMissing
	Fields     map[string][]string // validation errors per field; "" for those without a name
	RetryAfter time.Duration       // with KindRateLimited and KindUnavailable: how long to wait; 0 when not known

	cause error
}

// Error is for logs.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "bitbucket %s", e.Route)
	if e.Subject != "" {
		fmt.Fprintf(&b, " %q", e.Subject)
	}
	fmt.Fprintf(&b, ": %s", e.Kind)
	if e.Status != 0 {
		fmt.Fprintf(&b, " (HTTP %d)", e.Status)
	}
	if e.Message != "" {
		fmt.Fprintf(&b, ": %s", e.Message)
	}
	for _, k := range sortedKeys(e.Fields) {
		fmt.Fprintf(&b, "; %s: %s", k, strings.Join(e.Fields[k], ", "))
	}
	if e.cause != nil {
		fmt.Fprintf(&b, ": %v", e.cause)
	}
	return b.String()
}

// Unwrap returns what led to the error: a network error, a context's end, the budget's refusal.
func (e *Error) Unwrap() error { return e.cause }

// As lets errors.As turn the error into its public form.
func (e *Error) As(target any) bool {
	t, ok := target.(**apierr.Error)
	if ok {
		*t = e.API()
	}
	return ok
}

// Is makes errors.Is(err, apierr.NotFound) and the like work.
func (e *Error) Is(target error) bool {
	switch target.(type) {
	case apierr.Kind, *apierr.Error:
		return e.API().Is(target)
	default:
		return false
	}
}

// Temporary reports whether the same call may succeed later without anybody's doing.
func (e *Error) Temporary() bool {
	switch e.Kind {
	case KindRateLimited, KindUnavailable, KindNetwork, KindBadResponse, KindRefused:
		return true
	case KindUnknown, KindUnauthorized, KindScopeMissing, KindForbidden, KindAccessRestricted,
		KindNotFound, KindGone, KindCallRemoved, KindInvalid:
		return false
	}
	return false
}

// Unreachable reports whether the account cannot reach the repository: Bitbucket answers 403 and
// 404 alike (BITBUCKET.md#no-access). One such answer is no proof that it is gone.
func (e *Error) Unreachable() bool {
	return e.Kind == KindNotFound || e.Kind == KindForbidden || e.Kind == KindGone
}

// KindOf returns the kind of the Bitbucket error in err's tree; ok is false where there is none.
func KindOf(err error) (kind Kind, ok bool) {
	var e *Error
	if !errors.As(err, &e) {
		return KindUnknown, false
	}
	return e.Kind, true
}

// IsKind reports whether err's tree holds a Bitbucket error of one of the kinds.
func IsKind(err error, kinds ...Kind) bool {
	k, ok := KindOf(err)
	if !ok {
		return false
	}
	for _, want := range kinds {
		if k == want {
			return true
		}
	}
	return false
}

// API is the public form: a reason, and a sentence that says what happened and what to do next.
func (e *Error) API() *apierr.Error {
	switch e.Kind {
	case KindUnauthorized:
		return e.api(apierr.ReasonTokenExpired,
			"Bitbucket no longer accepts this connection's token. Press Refresh Token under Integrations; if that does not help, connect Bitbucket again.")
	case KindRefused:
		return e.api(apierr.ReasonAccessRefused, fmt.Sprintf(
			"Bitbucket answers 401 for %s, although it accepts the connection's token elsewhere. It does so now and then for a moment. If it stays, check at Bitbucket that the connected account may still read %s.",
			e.subject("this call"), e.subject("what was asked for")))
	case KindScopeMissing:
		return e.scopeMissing()
	case KindForbidden, KindNotFound:
		return e.unreachable()
	case KindAccessRestricted:
		return e.api(apierr.ReasonAccessRestricted, fmt.Sprintf(
			"Bitbucket restricts access to %s%s. Ask an admin of that Bitbucket workspace to allow this server's address, or switch on two-step verification for the connected account.",
			e.subject("it"), e.quoted()))
	case KindGone:
		return e.api(apierr.ReasonRepositoryNotFound, fmt.Sprintf(
			"Bitbucket says that %s was deleted%s.", e.subject("it"), e.quoted()))
	case KindCallRemoved:
		return e.api(apierr.ReasonBitbucketUnavailable,
			"Bitbucket has removed a call that this version of Devpilot uses. Update Devpilot.")
	case KindRateLimited:
		wait := e.RetryAfter
		if wait <= 0 {
			wait = DefaultHold
		}
		return apierr.New(apierr.ReasonBitbucketRateLimited, fmt.Sprintf(
			"Bitbucket's limit of calls per hour is reached. Try again in %s.", humanDuration(wait)),
			apierr.WithRetryAfter(wait), apierr.WithCause(e))
	case KindInvalid:
		return e.invalid()
	case KindUnavailable:
		var opts []apierr.Option
		if e.RetryAfter > 0 {
			opts = append(opts, apierr.WithRetryAfter(e.RetryAfter))
		}
		return e.api(apierr.ReasonBitbucketUnavailable, fmt.Sprintf(
			"Bitbucket has trouble at the moment (it answered %d). Try again in a few minutes.", e.Status), opts...)
	case KindNetwork:
		return e.network()
	case KindBadResponse:
		return e.api(apierr.ReasonBitbucketUnavailable,
			"Bitbucket gave an answer that cannot be used. Try again in a few minutes.")
	case KindUnknown:
		return e.api(apierr.ReasonBitbucketUnavailable, fmt.Sprintf(
			"Bitbucket gave an unexpected answer (%d)%s. Try again in a few minutes.", e.Status, e.quoted()))
	}
	return e.api(apierr.ReasonInternal, "Bitbucket could not be asked because of a fault inside Devpilot. Try again; if it stays, tell the operator when it happened.")
}

func (e *Error) api(r apierr.Reason, message string, opts ...apierr.Option) *apierr.Error {
	return apierr.New(r, message, append(opts, apierr.WithCause(e))...)
}

func (e *Error) scopeMissing() *apierr.Error {
	required := strings.Join(e.Required, " ")
	message := "The connection to Bitbucket lacks a permission that this needs"
	if required != "" {
		message += " (" + required + ")"
	}
	message += ". Tick it in the OAuth consumer at Bitbucket, then connect Bitbucket again."
	return e.api(apierr.ReasonScopeMissing, message,
		apierr.WithDetail("requiredScopes", required), apierr.WithDetail("grantedScopes", strings.Join(e.Granted, " ")))
}

// NotAdmin says why Devpilot cannot work on a repository's webhooks; without a full stop, for more to follow.
func NotAdmin(repository string) string {
	return "The connected account is not an admin of " + repository
}

// unreachable words 403 and 404, which mean something else on every route.
func (e *Error) unreachable() *apierr.Error {
	switch e.Route {
	case RouteHooks:
		if e.Kind == KindForbidden && e.aboutLimit() {
			return e.hookLimit()
		}
		if e.Kind == KindForbidden {
			return e.api(apierr.ReasonNotRepositoryAdmin, fmt.Sprintf(
				"%s. Ask an admin for that right, or add the webhook by hand with the URL and secret shown.",
				NotAdmin(e.subject("the repository"))))
		}
		if strings.Contains(strings.ToLower(e.Message), "not a valid hook") { // BITBUCKET.md#webhook-errors
			return e.api(apierr.ReasonWebhookNotFound, fmt.Sprintf(
				"The webhook is no longer on %s at Bitbucket. Register it again.", e.subject("the repository")))
		}
	case RouteBranch:
		if e.Kind == KindNotFound && !aboutRepository(e.Message) {
			return e.api(apierr.ReasonBranchNotFound, fmt.Sprintf(
				"The branch %s does not exist at Bitbucket. Choose another one, or push it first.", e.subject("asked for")))
		}
	case RouteTag:
		if e.Kind == KindNotFound && !aboutRepository(e.Message) {
			return e.api(apierr.ReasonTagNotFound, fmt.Sprintf(
				"The tag %s does not exist at Bitbucket. Choose another one, or push it first.", e.subject("asked for")))
		}
	case RouteCommit:
		if e.Kind == KindNotFound && !aboutRepository(e.Message) {
			return e.api(apierr.ReasonCommitNotFound, fmt.Sprintf(
				"Bitbucket has no commit %s in this repository. Check the hash, or push the commit first.", e.subject("asked for")))
		}
	case RouteWorkspaces, RouteRepositories, RoutePermissions:
		if e.Kind == KindForbidden {
			return e.api(apierr.ReasonAccessRestricted, fmt.Sprintf(
				"Bitbucket refused to list %s%s. Ask an admin of that Bitbucket workspace.", e.subject("it"), e.quoted()))
		}
		return e.api(apierr.ReasonRepositoryNotFound, fmt.Sprintf(
			"The connected Bitbucket account cannot reach %s, or it does not exist.", e.subject("it")))
	case RouteStatuses:
		if e.Kind == KindForbidden {
			return e.api(apierr.ReasonAccessRestricted, fmt.Sprintf(
				"Bitbucket refused a build status on %s%s.", e.subject("the repository"), e.quoted()))
		}
	case RouteUser:
		return e.api(apierr.ReasonReconnectRequired,
			"Bitbucket knows no user for this connection. Connect Bitbucket again with a personal account.")
	case RouteRepository, RouteBranches, RouteTags, RouteCommits, RouteSource, RouteToken:
	}
	return e.api(apierr.ReasonRepositoryNotFound, fmt.Sprintf(
		"The connected Bitbucket account cannot reach %s, or it does not exist. Check its name and the account's access at Bitbucket.",
		e.subject("the repository")))
}

// aboutRepository reports whether a 404 on a branch speaks of the repository (BITBUCKET.md#no-access
// lists the wordings). The text is only a hint; both are NotFound.
func aboutRepository(message string) bool {
	m := strings.ToLower(message)
	return strings.Contains(m, "repository") && !strings.Contains(m, "branch")
}

func (e *Error) network() *apierr.Error {
	switch {
	case errors.Is(e.cause, context.Canceled):
		return apierr.New(apierr.ReasonCanceled, "The request was canceled.", apierr.WithCause(e))
	case errors.Is(e.cause, context.DeadlineExceeded):
		return e.api(apierr.ReasonBitbucketUnavailable, "Bitbucket did not answer in time. Try again in a moment.")
	default:
		return e.api(apierr.ReasonBitbucketUnavailable, "Bitbucket cannot be reached. Try again in a moment.")
	}
}

// subject is what the call was about, or a word for it.
func (e *Error) subject(otherwise string) string {
	if e.Subject == "" {
		return otherwise
	}
	return e.Subject
}

// quoted is Bitbucket's own text as a clause. It is shown to people, as an admin may need the words.
func (e *Error) quoted() string {
	if e.Message == "" {
		return ""
	}
	return fmt.Sprintf(" (it said: %q)", strings.TrimRight(e.Message, "."))
}

// humanDuration rounds up to what people say: seconds below a minute and a half, then minutes.
func humanDuration(d time.Duration) string {
	if d < 90*time.Second {
		n := int((d + time.Second - 1) / time.Second)
		if n == 1 {
			return "1 second"
		}
		return fmt.Sprintf("%d seconds", n)
	}
	return fmt.Sprintf("%d minutes", int((d+time.Minute-1)/time.Minute))
}
