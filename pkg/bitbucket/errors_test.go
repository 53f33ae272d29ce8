package bitbucket

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"devpilot.io/bitbucket/pkg/apierr"
)

// fail makes one call of the given route against a server that answers so.
func fail(t *testing.T, route Route, status int, header http.Header, contentType, body string) error {
	t.Helper()
	s := newServer(t, func(w http.ResponseWriter, _ *http.Request) {
		for k, v := range header {
			w.Header()[k] = v
		}
		answerText(w, status, contentType, body)
	})
	a := s.account(t, ClientOptions{})
	ref := Ref{Workspace: "acme", Repository: "web"}
	var err error
	switch route {
	case RouteUser:
		_, err = a.User(t.Context())
	case RouteWorkspaces:
		_, err = a.Workspaces(t.Context())
	case RouteRepositories:
		_, err = a.Repositories(t.Context(), Workspace{Slug: "acme"}, RepositoriesOptions{})
	case RoutePermissions:
		_, err = a.RepositoryPermissions(t.Context(), Workspace{Slug: "acme"}, "")
	case RouteRepository:
		_, err = a.Repository(t.Context(), ref)
	case RouteBranches:
		_, err = a.Branches(t.Context(), ref, BranchesOptions{})
	case RouteBranch:
		_, err = a.Branch(t.Context(), ref, "main")
	case RouteHooks:
		_, err = a.CreateHook(t.Context(), ref, HookInput{URL: "https://x.example.test"})
	case RouteStatuses:
		err = a.SetBuildStatus(t.Context(), ref, strings.Repeat("a", 40), BuildStatus{Key: "k"})
	case RouteToken:
		t.Fatal("not a REST route")
	}
	if err == nil {
		t.Fatal("no error")
	}
	return err
}

func TestError_everyKind(t *testing.T) {
	const (
		js   = "application/json; charset=utf-8"
		text = "text/plain"
		html = "text/html"
	)
	tests := map[string]struct {
		route  Route
		status int
		ctype  string
		body   string
		kind   Kind
		reason apierr.Reason
		says   string // part of the public message
	}{
		"401 text": {RouteUser, 401, text, "", KindUnauthorized, apierr.ReasonTokenExpired, "Refresh Token"},
		"403 scope, detail an object": {RouteRepositories, 403, js,
			`{"type":"error","error":{"message":"Your credentials lack one or more required privilege scopes.","detail":{"granted":["account","email"],"required":["repository"]}}}`,
			KindScopeMissing, apierr.ReasonScopeMissing, "(repository)"},
		"403 scope, detail a string": {RouteHooks, 403, js,
			`{"type":"error","error":{"message":"Your credentials lack one or more required privilege scopes.","detail":"see the documentation"}}`,
			KindScopeMissing, apierr.ReasonScopeMissing, "lacks a permission"},
		"403 permission on hooks": {RouteHooks, 403, js, `{"type":"error","error":{"message":"Forbidden"}}`,
			KindForbidden, apierr.ReasonNotRepositoryAdmin, "not an admin of acme/web"},
		"403 permission on a repository": {RouteRepository, 403, js, `{"type":"error","error":{"message":"Access denied. You must have write or admin access."}}`,
			KindForbidden, apierr.ReasonRepositoryNotFound, "cannot reach acme/web"},
		"403 on a workspace": {RouteRepositories, 403, js, `{"type":"error","error":{"message":"Access denied."}}`,
			KindForbidden, apierr.ReasonAccessRestricted, `"Access denied"`},
		"403 on a status": {RouteStatuses, 403, js, `{"type":"error","error":{"message":"No."}}`,
			KindForbidden, apierr.ReasonAccessRestricted, "build status"},
		"403 IP allow-list": {RouteRepository, 403, js, `{"type":"error","error":{"message":"To access this repository, an admin must whitelist your IP."}}`,
			KindAccessRestricted, apierr.ReasonAccessRestricted, "whitelist your IP"},
		"403 two-step verification": {RouteBranches, 403, text, `To access this repository, enable two-step authentication.`,
			KindAccessRestricted, apierr.ReasonAccessRestricted, "two-step verification"},
		"403 rate limit": {RouteBranches, 403, text, "Rate limit for this resource has been exceeded",
			KindRateLimited, apierr.ReasonBitbucketRateLimited, "20 seconds"},
		"404 repository": {RouteRepository, 404, js, `{"type":"error","error":{"message":"You may not have access to this repository or it no longer exists in this workspace."}}`,
			KindNotFound, apierr.ReasonRepositoryNotFound, "acme/web"},
		"404 branch": {RouteBranch, 404, js, `{"type":"error","error":{"message":"Commit not found","data":{"shas":["main"]}},"data":{"shas":["main"]}}`,
			KindNotFound, apierr.ReasonBranchNotFound, "main"},
		"404 repository of a branch": {RouteBranch, 404, js, `{"type":"error","error":{"message":"Repository acme/web not found"}}`,
			KindNotFound, apierr.ReasonRepositoryNotFound, ""},
		"404 hook": {RouteHooks, 404, js, `{"type":"error","error":{"message":"{x} is not a valid hook"}}`,
			KindNotFound, apierr.ReasonWebhookNotFound, "Register it again"},
		"404 repository of a hook": {RouteHooks, 404, js, `{"type":"error","error":{"message":"Not found"}}`,
			KindNotFound, apierr.ReasonRepositoryNotFound, "acme/web"},
		"404 workspace": {RouteRepositories, 404, js, `{"type":"error","error":{"message":"No workspace with identifier 'acme'."}}`,
			KindNotFound, apierr.ReasonRepositoryNotFound, "acme"},
		"404 user": {RouteUser, 404, js, `{"type":"error","error":{"message":"Not found"}}`,
			KindNotFound, apierr.ReasonReconnectRequired, "Connect Bitbucket again"},
		"410 removed call": {RouteWorkspaces, 410, js,
			`{"type":"error","error":{"message":"CHANGE-2770 - Functionality has been deprecated","detail":"Please read the changelog entry for more details.","data":{"announcement_url":"https://developer.example.test/changelog"}}}`,
			KindCallRemoved, apierr.ReasonBitbucketUnavailable, "Update Devpilot"},
		"410 deleted workspace": {RouteRepositories, 410, js, `{"type":"error","error":{"message":"This workspace has been deleted"}}`,
			KindGone, apierr.ReasonRepositoryNotFound, "deleted"},
		"429 JSON": {RoutePermissions, 429, js, `{"type":"error","error":{"message":"Rate limit for this resource has been exceeded"}}`,
			KindRateLimited, apierr.ReasonBitbucketRateLimited, "Try again in 20 seconds"},
		"429 bare text": {RouteRepository, 429, text, "Rate limit for this resource has been exceeded",
			KindRateLimited, apierr.ReasonBitbucketRateLimited, "limit of calls"},
		"500 HTML": {RouteRepository, 500, html, "<html><body>Something went wrong</body></html>",
			KindUnavailable, apierr.ReasonBitbucketUnavailable, "(it answered 500)"},
		"503 empty": {RouteRepository, 503, text, "", KindUnavailable, apierr.ReasonBitbucketUnavailable, "503"},
		"555":       {RouteBranches, 555, html, "<h1>555</h1>", KindUnavailable, apierr.ReasonBitbucketUnavailable, "555"},
		"400 hook URL, fields an object": {RouteHooks, 400, js, `{"type":"error","error":{"message":"Bad request","fields":{"url":["Enter a valid URL."]}}}`,
			KindInvalid, apierr.ReasonNoPublicURL, "DEVPILOT_PUBLIC_URL"},
		"400 hook URL, fields an array": {RouteHooks, 400, js, `{"type":"error","error":{"message":"Bad request","fields":["Field: {url} Error: {required}"]}}`,
			KindInvalid, apierr.ReasonNoPublicURL, "public URL"},
		"400 text": {RouteHooks, 400, text, "Bad Request", KindInvalid, apierr.ReasonWebhookRefused, "HTTP 400"},
		"409":      {RouteStatuses, 409, js, `{"type":"error","error":{"message":"conflict"}}`, KindInvalid, apierr.ReasonInternal, "conflict"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := fail(t, tt.route, tt.status, nil, tt.ctype, tt.body)
			var e *Error
			if !errors.As(err, &e) || e.Kind != tt.kind || e.Status != tt.status || e.Route != tt.route {
				t.Fatalf("err = %+v, want kind %s", err, tt.kind)
			}
			api := apierr.From(err)
			if api.Reason() != tt.reason {
				t.Errorf("reason = %s, want %s", api.Reason(), tt.reason)
			}
			if !strings.Contains(api.Message(), tt.says) {
				t.Errorf("message = %q, want %q in it", api.Message(), tt.says)
			}
			if strings.Contains(api.Message(), "<") || strings.Contains(e.Message, "<") {
				t.Errorf("markup in the message: %q", api.Message())
			}
			if !errors.Is(err, api.Kind()) {
				t.Errorf("errors.Is(err, %s) = false", api.Kind())
			}
			if api.Kind() == apierr.Unauthenticated || api.Kind() == apierr.PermissionDenied {
				t.Errorf("trouble with Bitbucket became %s, which speaks of the caller", api.Kind())
			}
		})
	}
}

func TestError_scopeDetail(t *testing.T) {
	err := fail(t, RouteHooks, 403, nil, "application/json",
		`{"type":"error","error":{"message":"x","detail":{"granted":["account","repository"],"required":["webhook"]}}}`)
	api := apierr.From(err)
	if api.Detail("requiredScopes") != "webhook" || api.Detail("grantedScopes") != "account repository" {
		t.Errorf("details = %v", api.Details())
	}
}

func TestError_kindsAreAllNamed(t *testing.T) {
	seen := map[string]bool{}
	for k := KindUnknown; k <= KindBadResponse; k++ {
		if seen[k.String()] || k.String() == "" {
			t.Errorf("kind %d is called %q", k, k.String())
		}
		seen[k.String()] = true
		e := &Error{Kind: k, Route: RouteRepository}
		if e.API().Message() == "" {
			t.Errorf("kind %s has no message", k)
		}
	}
	if Kind(99).String() != "unknown" || (&Error{Kind: 99}).API().Reason() != apierr.ReasonInternal {
		t.Error("an unknown kind is not internal")
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	tests := map[string]struct {
		name, value string
		want        time.Duration
	}{
		"seconds":              {"Retry-After", "30", 30 * time.Second},
		"fraction":             {"Retry-After", "1.5", 1500 * time.Millisecond},
		"zero is a second":     {"Retry-After", "0", time.Second},
		"more than an hour":    {"Retry-After", "7200", 2 * time.Hour},
		"old style of a date":  {"Retry-After", "Sunday, 22-Nov-26 10:01:00 GMT", time.Minute},
		"date":                 {"Retry-After", "Sun, 22 Nov 2026 10:01:00 GMT", time.Minute},
		"date in the past":     {"Retry-After", "Sun, 22 Nov 2026 09:00:00 GMT", time.Second},
		"absurd":               {"Retry-After", "999999", 24 * time.Hour},
		"beyond any epoch":     {"Retry-After", "1e300", 24 * time.Hour},
		"negative":             {"Retry-After", "-5", 0},
		"nonsense":             {"Retry-After", "soon", 0},
		"not a number":         {"Retry-After", "NaN", 0},
		"reset in seconds":     {"X-Ratelimit-Reset", "745", 745 * time.Second},
		"reset as a Unix time": {"X-Ratelimit-Reset", "1795341620", 20 * time.Second},
		"none":                 {"X-Other", "1", 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := RetryAfter(http.Header{tt.name: {tt.value}}, now); got != tt.want {
				t.Errorf("RetryAfter = %s, want %s", got, tt.want)
			}
		})
	}
}

func TestOneLine(t *testing.T) {
	if diff := cmp.Diff("a b � c", oneLine(" a\n\tb\x1b \xff c\x00")); diff != "" {
		t.Error(diff)
	}
	if got := []rune(oneLine(strings.Repeat("é", 5000))); len(got) != maxMessage {
		t.Errorf("%d runes", len(got))
	}
}

func TestHumanDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		time.Millisecond: "1 second", 42 * time.Second: "42 seconds", 89 * time.Second: "89 seconds", 90 * time.Second: "2 minutes", time.Hour: "60 minutes",
	} {
		if got := humanDuration(d); got != want {
			t.Errorf("humanDuration(%s) = %q, want %q", d, got, want)
		}
	}
}

func FuzzAnswerError(f *testing.F) {
	f.Add(403, "application/json", []byte(`{"type":"error","error":{"message":"m","detail":{"granted":[],"required":["x"]}}}`))
	f.Add(400, "application/json", []byte(`{"error":{"fields":["a"],"message":"m"}}`))
	f.Add(429, "text/plain", []byte("Rate limit"))
	f.Add(500, "text/html", []byte("<html>"))
	f.Fuzz(func(t *testing.T, status int, contentType string, body []byte) {
		e := answerError(RouteHooks, "acme/web", status, http.Header{"Content-Type": {contentType}}, body, time.Now())
		if api := e.API(); api.Message() == "" || len(api.Message()) > 8*maxMessage {
			t.Errorf("message of %d bytes", len(api.Message()))
		}
		if strings.ContainsAny(e.Error(), "\n\r\x1b") {
			t.Errorf("control characters in %q", e.Error())
		}
	})
}

func TestError_whatBitbucketHasAgainstAWebhook(t *testing.T) {
	const js = "application/json"
	for name, tt := range map[string]struct {
		status int
		body   string
		want   apierr.Reason
		says   string
	}{
		"the limit, 400":        {400, `{"type":"error","error":{"message":"Bad request","fields":["Field: {} Error: {A repository can have at most 50 webhooks.}"]}}`, apierr.ReasonWebhookLimit, "at most 50 webhooks"},
		"the limit, 409":        {409, `{"type":"error","error":{"message":"Webhook limit reached for this repository."}}`, apierr.ReasonWebhookLimit, "Delete one"},
		"the limit, 403":        {403, `{"type":"error","error":{"message":"You have exceeded the maximum number of webhooks"}}`, apierr.ReasonWebhookLimit, "maximum number"},
		"the limit, 402":        {402, `Too many hooks`, apierr.ReasonWebhookLimit, "acme/web"},
		"the URL, as object":    {400, `{"type":"error","error":{"message":"Bad request","fields":{"url":["Enter a valid one."]}}}`, apierr.ReasonNoPublicURL, "Enter a valid one"},
		"the URL, as text":      {400, `{"type":"error","error":{"message":"Invalid webhook url."}}`, apierr.ReasonNoPublicURL, "DEVPILOT_PUBLIC_URL"},
		"the description":       {400, `{"type":"error","error":{"message":"Bad request","fields":{"description":["Too long."]}}}`, apierr.ReasonWebhookRefused, "Too long"},
		"the events":            {400, `{"type":"error","error":{"message":"events: unknown event"}}`, apierr.ReasonWebhookRefused, "unknown event"},
		"bare text":             {400, `Bad Request`, apierr.ReasonWebhookRefused, "by hand"},
		"a conflict":            {409, `{"type":"error","error":{"message":"Try again"}}`, apierr.ReasonWebhookRefused, "409"},
		"nothing":               {422, ``, apierr.ReasonWebhookRefused, "422"},
		"no rights":             {403, `{"data":{"key":"INSUFFICIENT_RIGHTS"},"type":"error","error":{"message":"Access denied. You must have write or admin access.","data":{"key":"INSUFFICIENT_RIGHTS"}}}`, apierr.ReasonNotRepositoryAdmin, "admin"},
		"the limit of requests": {403, `Rate limit for this resource has been exceeded`, apierr.ReasonBitbucketRateLimited, "calls"},
	} {
		t.Run(name, func(t *testing.T) {
			e := answerError(RouteHooks, "acme/web", tt.status, http.Header{"Content-Type": {js}}, []byte(tt.body), time.Now())
			if api := e.API(); api.Reason() != tt.want || !strings.Contains(api.Message(), tt.says) {
				t.Errorf("%s: %s", api.Reason(), api.Message())
			}
		})
	}
}
