package apierr_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"devpilot.io/bitbucket/pkg/apierr"
)

// published are the reasons that DESIGN.md#errors lists: callers rely on them.
var published = strings.Fields(`UNAUTHENTICATED PERMISSION_DENIED INVALID_ARGUMENT PAGE_TOKEN_INVALID
	ETAG_MISMATCH RATE_LIMITED STORAGE_UNAVAILABLE WORKSPACE_NOT_FOUND APP_NOT_FOUND APP_EXISTS
	DEPLOYMENT_NOT_FOUND WEBHOOK_NOT_FOUND REPOSITORY_NOT_FOUND BRANCH_NOT_FOUND RELEASE_GONE
	NOT_CANCELLABLE SERVER_UNKNOWN NOT_CONNECTED TOKEN_EXPIRED RECONNECT_REQUIRED SCOPE_MISSING
	CONSUMER_REFUSED NOT_REPOSITORY_ADMIN ACCESS_RESTRICTED NO_PUBLIC_URL BITBUCKET_RATE_LIMITED
	BITBUCKET_UNAVAILABLE HANDSHAKE_EXPIRED HANDSHAKE_MISMATCH CONSENT_DENIED`)

func TestTable_holdsEveryPublishedReason(t *testing.T) {
	for _, r := range published {
		if _, ok := apierr.Lookup(apierr.Reason(r)); !ok {
			t.Errorf("reason %s is not in the table", r)
		}
	}
}

func TestTable_noReasonMissesAColumn(t *testing.T) {
	seen := map[apierr.Reason]bool{}
	form := regexp.MustCompile(`^[A-Z][A-Z_]*[A-Z]$`)
	for _, row := range apierr.Table() {
		if seen[row.Reason] {
			t.Errorf("%s stands in the table twice", row.Reason)
		}
		seen[row.Reason] = true
		if !form.MatchString(string(row.Reason)) {
			t.Errorf("%q is not UPPER_SNAKE", row.Reason)
		}
		if row.Code == codes.OK || row.Code == codes.Unknown {
			t.Errorf("%s: gRPC code %s", row.Reason, row.Code)
		}
		if row.HTTPStatus < 400 || row.HTTPStatus > 599 {
			t.Errorf("%s: HTTP status %d", row.Reason, row.HTTPStatus)
		}
		if !slices.Contains([]apierr.Retry{apierr.RetryNever, apierr.RetryAfter, apierr.RetryBackoff}, row.Retry) {
			t.Errorf("%s: retry %q", row.Reason, row.Retry)
		}
		if row.Title == "" || !strings.HasSuffix(row.Remedy, ".") {
			t.Errorf("%s: title %q, remedy %q (a sentence is wanted)", row.Reason, row.Title, row.Remedy)
		}
	}
}

// Every constant of the package must have a row: New would make it Internal silently.
func TestTable_everyReasonConstantHasARow(t *testing.T) {
	src, err := os.ReadFile("table.go")
	if err != nil {
		t.Fatal(err)
	}
	constants := regexp.MustCompile(`Reason\w+\s+Reason = "(\w+)"`).FindAllSubmatch(src, -1)
	if len(constants) < len(published) {
		t.Fatalf("found %d constants in table.go", len(constants))
	}
	for _, c := range constants {
		if _, ok := apierr.Lookup(apierr.Reason(c[1])); !ok {
			t.Errorf("%s has no row", c[1])
		}
	}
}

func TestKinds_noKindMissesAColumn(t *testing.T) {
	for _, k := range apierr.Kinds() {
		if k.String() == "" || k.Code() == codes.OK || k.HTTPStatus() < 400 {
			t.Errorf("kind %d: name %q, code %s, HTTP %d", int(k), k.String(), k.Code(), k.HTTPStatus())
		}
	}
}

func TestTable_401OnlyForTheCallersOwnCredentials(t *testing.T) {
	for _, row := range apierr.Table() {
		if row.HTTPStatus == http.StatusUnauthorized && row.Reason != apierr.ReasonUnauthenticated {
			t.Errorf("%s answers 401", row.Reason)
		}
	}
}

func TestTable_bitbucketTroubleIs409Or429Or503(t *testing.T) {
	for _, r := range []apierr.Reason{
		apierr.ReasonNotConnected, apierr.ReasonTokenExpired, apierr.ReasonReconnectRequired, apierr.ReasonScopeMissing,
		apierr.ReasonConsumerRefused, apierr.ReasonNotRepositoryAdmin, apierr.ReasonAccessRestricted, apierr.ReasonNoPublicURL,
		apierr.ReasonBitbucketRateLimited, apierr.ReasonBitbucketUnavailable,
		apierr.ReasonHandshakeExpired, apierr.ReasonHandshakeMismatch, apierr.ReasonConsentDenied, apierr.ReasonAppsWouldStop,
	} {
		row, ok := apierr.Lookup(r)
		if !ok || !slices.Contains([]int{409, 429, 503}, row.HTTPStatus) {
			t.Errorf("%s answers %d", r, row.HTTPStatus)
		}
	}
}

func TestError_roundTripThroughAStatusKeepsThePublicHalfOnly(t *testing.T) {
	secret := errors.New("dial tcp 10.0.0.7: password hunter2")
	for _, row := range apierr.Table() {
		e := apierr.New(row.Reason, "It did not work. Do this.",
			apierr.WithField("app.branch", "no such branch"), apierr.WithField("appId", "taken"),
			apierr.WithRetryAfter(90*time.Second), apierr.WithDetail("missingScope", "webhook"), apierr.WithCause(secret))
		// As on the wire: the status proto is all that arrives.
		got := apierr.From(status.FromProto(e.GRPCStatus().Proto()).Err())
		if got.Reason() != row.Reason || got.Kind() != row.Kind || got.Message() != e.Message() ||
			got.RetryAfter() != e.RetryAfter() || !slices.Equal(got.Fields(), e.Fields()) || !maps.Equal(got.Details(), e.Details()) {
			t.Errorf("%s came back as %+v", row.Reason, got)
		}
		if strings.Contains(e.GRPCStatus().Proto().String(), "hunter2") {
			t.Errorf("%s: the cause is in the status", row.Reason)
		}
	}
}

func TestError_GRPCStatus_ofAWrappedErrorCarriesNoWrapping(t *testing.T) {
	e := apierr.New(apierr.ReasonNotConnected, "Bitbucket is not connected.")
	err := fmt.Errorf("list repositories of secret-project: %w", e)
	if st := apierr.From(err).GRPCStatus(); st.Message() != e.Message() {
		t.Errorf("the status says %q", st.Message())
	}
}

func TestError_Is(t *testing.T) {
	cause := errors.New("cause")
	err := fmt.Errorf("wrapped: %w", apierr.New(apierr.ReasonAppNotFound, "There is no app web.", apierr.WithCause(cause)))
	for _, tc := range []struct {
		name   string
		target error
		want   bool
	}{
		{"its kind", apierr.NotFound, true},
		{"another kind", apierr.Internal, false},
		{"the same reason", apierr.New(apierr.ReasonAppNotFound, "other words"), true},
		{"another reason of the kind", apierr.New(apierr.ReasonBranchNotFound, "x"), false},
		{"its cause", cause, true},
	} {
		if got := errors.Is(err, tc.target); got != tc.want {
			t.Errorf("%s: %v", tc.name, got)
		}
	}
	if !apierr.Has(err, apierr.ReasonAppNotFound) || apierr.Has(nil, apierr.ReasonAppNotFound) || apierr.ReasonOf(nil) != "" {
		t.Error("Has or ReasonOf")
	}
}

func TestError_WithDoesNotChangeTheOriginal(t *testing.T) {
	e := apierr.InvalidArgument("branch", "is empty")
	more := e.With(apierr.WithField("appId", "taken"), apierr.WithDetail("k", "v"))
	if len(e.Fields()) != 1 || len(e.Details()) != 0 || len(more.Fields()) != 2 || more.Detail("k") != "v" {
		t.Errorf("original %+v, copy %+v", e, more)
	}
}

func TestFrom(t *testing.T) {
	typed := apierr.New(apierr.ReasonEtagMismatch, "Changed meanwhile.")
	for _, tc := range []struct {
		name   string
		err    error
		reason apierr.Reason
		public string // must be in the message
	}{
		{"typed", typed, apierr.ReasonEtagMismatch, "Changed meanwhile."},
		{"typed, wrapped", fmt.Errorf("save: %w", typed), apierr.ReasonEtagMismatch, "Changed meanwhile."},
		{"deadline", fmt.Errorf("get: %w", context.DeadlineExceeded), apierr.ReasonTimeout, ""},
		{"canceled", fmt.Errorf("get: %w", context.Canceled), apierr.ReasonCanceled, ""},
		{"dead neighbour", status.Error(codes.Unavailable, "connection refused to 10.0.0.7"), apierr.ReasonServiceUnavailable, ""},
		{"unknown method", status.Error(codes.Unimplemented, "unknown method Foo"), apierr.ReasonUnimplemented, ""},
		{"message over the limit", status.Error(codes.ResourceExhausted, "grpc: received message larger than max (9 vs. 8)"), apierr.ReasonPayloadTooLarge, ""},
		{"overloaded", status.Error(codes.ResourceExhausted, "too many streams"), apierr.ReasonRateLimited, ""},
		{"body that is not JSON", status.Error(codes.InvalidArgument, "invalid character 'x'"), apierr.ReasonInvalidArgument, "invalid character 'x'"},
		{"deadline status", status.Error(codes.DeadlineExceeded, "context deadline exceeded"), apierr.ReasonTimeout, ""},
		{"canceled status", status.Error(codes.Canceled, "context canceled"), apierr.ReasonCanceled, ""},
		{"denied", status.Error(codes.PermissionDenied, "x"), apierr.ReasonPermissionDenied, ""},
		{"not found", status.Error(codes.NotFound, "x"), apierr.ReasonNotFound, ""},
		{"unauthenticated", status.Error(codes.Unauthenticated, "x"), apierr.ReasonUnauthenticated, ""},
		{"out of range", status.Error(codes.OutOfRange, "x"), apierr.ReasonPayloadTooLarge, ""},
		{"aborted without a reason", status.Error(codes.Aborted, "x"), apierr.ReasonInternal, ""},
		{"unknown", status.Error(codes.Unknown, "secret"), apierr.ReasonInternal, ""},
		{"data loss", status.Error(codes.DataLoss, "secret"), apierr.ReasonInternal, ""},
		{"status, wrapped", fmt.Errorf("call: %w", status.Error(codes.Unavailable, "x")), apierr.ReasonServiceUnavailable, ""},
		{"untyped", errors.New("secret"), apierr.ReasonInternal, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := apierr.From(tc.err)
			if e.Reason() != tc.reason || !strings.Contains(e.Message(), tc.public) || e.Message() == "" {
				t.Errorf("reason %s, message %q", e.Reason(), e.Message())
			}
			if strings.Contains(e.Message(), "secret") || strings.Contains(e.Message(), "10.0.0.7") {
				t.Errorf("the message shows our insides: %q", e.Message())
			}
			if !errors.Is(e, tc.err) && e.Reason() != apierr.ReasonEtagMismatch {
				t.Error("the cause is lost")
			}
		})
	}
	if apierr.From(nil) != nil {
		t.Error("From(nil) is not nil")
	}
}

func TestFrom_reasonOfANewerServiceIsKept(t *testing.T) {
	// A version that knows more sends a reason we do not know: built by hand from a known one.
	p := apierr.New(apierr.ReasonNotConnected, "New trouble.").GRPCStatus().Proto()
	p.Details[0].Value = []byte("\x0a\x0bNEW_TROUBLE\x12\x0bdevpilot.io")
	e := apierr.From(status.FromProto(p).Err())
	if e.Reason() != "NEW_TROUBLE" || e.Kind() != apierr.FailedPrecondition || e.Message() != "New trouble." || e.Retry() != apierr.RetryNever {
		t.Errorf("%+v", e)
	}
}

func TestInternalWithID_namesTheIDAndNothingElse(t *testing.T) {
	e := apierr.InternalWithID("abc123", errors.New("nats: no responders"))
	if e.Kind() != apierr.Internal || !strings.Contains(e.Message(), "abc123") || strings.Contains(e.Message(), "nats") ||
		e.Detail(apierr.DetailErrorID) != "abc123" || !strings.Contains(e.Error(), "no responders") {
		t.Errorf("%v", e)
	}
}

func TestWriteProblem(t *testing.T) {
	w := httptest.NewRecorder()
	w.Header().Set("ETag", `"x"`)
	apierr.WriteProblem(w, "req-12345678", apierr.New(apierr.ReasonBitbucketRateLimited, "Bitbucket asks us to wait.",
		apierr.WithRetryAfter(1500*time.Millisecond), apierr.WithField("query", "too many"), apierr.WithCause(errors.New("hidden"))))
	res := w.Result()
	if res.StatusCode != http.StatusTooManyRequests || res.Header.Get("Retry-After") != "2" || res.Header.Get("Content-Type") != "application/problem+json" ||
		res.Header.Get("Cache-Control") != "no-store" || res.Header.Get("ETag") != "" {
		t.Errorf("status %d, header %v", res.StatusCode, res.Header)
	}
	want := `{"type":"tag:devpilot.io,2026:problem:BITBUCKET_RATE_LIMITED","title":"Too many requests","status":429,` +
		`"detail":"Bitbucket asks us to wait.","reason":"BITBUCKET_RATE_LIMITED","fields":[{"name":"query","message":"too many"}],` +
		`"retryAfterSeconds":2,"requestId":"req-12345678"}` + "\n"
	if w.Body.String() != want {
		t.Errorf("body\n%s want\n%s", w.Body, want)
	}
}

func TestWriteProblem_everyReasonIsAWholeProblem(t *testing.T) {
	for _, row := range apierr.Table() {
		w := httptest.NewRecorder()
		apierr.WriteProblem(w, "req-12345678", apierr.New(row.Reason, "Words."))
		var m map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &m); err != nil {
			t.Fatalf("%s: %v", row.Reason, err)
		}
		for _, member := range []string{"type", "title", "status", "detail", "reason", "fields", "requestId"} {
			if m[member] == nil || m[member] == "" {
				t.Errorf("%s: member %q is missing or null", row.Reason, member)
			}
		}
		if _, ok := m["retryAfterSeconds"]; ok {
			t.Errorf("%s: retryAfterSeconds where no time is known", row.Reason)
		}
		if got := w.Header().Get("WWW-Authenticate") != ""; got != (w.Code == http.StatusUnauthorized) {
			t.Errorf("%s: status %d, WWW-Authenticate %v", row.Reason, w.Code, got)
		}
	}
}

func TestWriteProblem_nilIsInternal(t *testing.T) {
	w := httptest.NewRecorder()
	apierr.WriteProblem(w, "req-12345678", nil)
	if w.Code != http.StatusInternalServerError {
		t.Errorf("status %d", w.Code)
	}
}
