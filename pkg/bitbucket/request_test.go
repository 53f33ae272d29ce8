package bitbucket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/seal"
)

func TestRequest_sendsTheTokenInTheHeaderOnly(t *testing.T) {
	s := newServer(t, func(w http.ResponseWriter, _ *http.Request) { answerText(w, 200, "application/json", userJSON) })
	if _, err := s.account(t, ClientOptions{}).User(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := seenRequest{Method: "GET", Path: "/2.0/user", Authorization: "Bearer token-1", UserAgent: UserAgent}
	if got := s.requests(); len(got) != 1 || got[0] != want {
		t.Errorf("requests = %+v, want %+v", got, want)
	}
}

func TestRequest_takesTokensOfAnyLength(t *testing.T) {
	long := strings.Repeat("x=_-", 4096) // 16 KiB
	s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+long {
			answer(w, 401, map[string]any{})
			return
		}
		answerText(w, 200, "application/json", userJSON)
	})
	c := NewClient(s.site(t), ClientOptions{})
	if _, err := c.As(StaticToken(seal.NewSecret(long))).User(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestRequest_401RenewsOnceAndRepeatsOnce(t *testing.T) {
	s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "Bearer token-1" {
			answer(w, 401, map[string]any{"type": "error", "error": map[string]any{"message": "OAuth2 access token expired. Use your refresh token to obtain a new access token."}})
			return
		}
		answerText(w, 200, "application/json", userJSON)
	})
	b := &budget{}
	u, err := s.account(t, ClientOptions{Budget: b}).User(t.Context())
	if err != nil || u.Label() != "jane-dev" {
		t.Fatalf("User = %+v, %v", u, err)
	}
	if got := len(s.requests()); got != 2 {
		t.Errorf("%d requests, want 2", got)
	}
	if want := []string{"other/interactive", "other/interactive"}; !slices.Equal(b.taken, want) {
		t.Errorf("budget taken = %v, want %v", b.taken, want)
	}
}

func TestRequest_second401NeedsAttention(t *testing.T) {
	s := newServer(t, func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 401, map[string]any{"type": "error", "error": map[string]any{"message": "Token is invalid, expired, or not supported for this endpoint."}})
	})
	_, err := s.account(t, ClientOptions{}).User(t.Context())
	if !IsKind(err, KindUnauthorized) || apierr.ReasonOf(err) != apierr.ReasonTokenExpired {
		t.Errorf("err = %v", err)
	}
	if got := len(s.requests()); got != maxTokens { // each of them was another one
		t.Errorf("%d requests, want %d", got, maxTokens)
	}
}

func TestRequest_401ToATokenThatIsAcceptedElsewhere(t *testing.T) {
	s := newServer(t, func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 401, map[string]any{"type": "error", "error": map[string]any{"message": "Token is invalid, expired, or not supported for this endpoint."}})
	})
	reported := 0
	source := TokenSourceFunc(func(_ context.Context, rejected seal.Secret) (seal.Secret, error) {
		if !rejected.IsZero() {
			reported++
		}
		return seal.NewSecret("good"), nil
	})
	_, err := NewClient(s.site(t), ClientOptions{}).As(source).Branches(t.Context(), Ref{Workspace: "acme", Repository: "old"}, BranchesOptions{})
	var e *Error
	if !errors.As(err, &e) || e.Kind != KindRefused || !e.Temporary() || apierr.ReasonOf(err) != apierr.ReasonAccessRefused {
		t.Errorf("err = %v", err)
	}
	if m := apierr.From(err).Message(); !strings.Contains(m, "acme/old") || !strings.Contains(m, "check") {
		t.Errorf("the message does not say what to check: %q", m)
	}
	if got := len(s.requests()); got != 1 || reported != 1 {
		t.Errorf("%d requests and %d reports, want one of each", got, reported)
	}
}

func TestRequest_401WithoutANewTokenIsNotRepeated(t *testing.T) {
	s := newServer(t, func(w http.ResponseWriter, _ *http.Request) { answer(w, 401, map[string]any{}) })
	c := NewClient(s.site(t), ClientOptions{})
	if _, err := c.As(StaticToken(seal.NewSecret("only"))).User(t.Context()); !IsKind(err, KindUnauthorized) {
		t.Errorf("err = %v", err)
	}
	if got := len(s.requests()); got != 1 {
		t.Errorf("%d requests, want 1", got)
	}
}

func TestRequest_tokenSourceErrorPassesThrough(t *testing.T) {
	s := newServer(t, func(w http.ResponseWriter, _ *http.Request) { answer(w, 401, map[string]any{}) })
	refused := apierr.New(apierr.ReasonReconnectRequired, "Connect Bitbucket again.")
	_, err := NewClient(s.site(t), ClientOptions{}).As(&tokens{n: 1, err: refused}).User(t.Context())
	if !errors.Is(err, refused) || apierr.ReasonOf(err) != apierr.ReasonReconnectRequired {
		t.Errorf("err = %v", err)
	}
}

func TestRequest_concurrent401sShareTheRenewal(t *testing.T) {
	ts := &tokens{n: 1}
	s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "Bearer token-1" {
			answer(w, 401, map[string]any{})
			return
		}
		answerText(w, 200, "application/json", userJSON)
	})
	a := NewClient(s.site(t), ClientOptions{}).As(ts)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := a.User(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if ts.n != 2 {
		t.Errorf("%d renewals, want 1", ts.n-1)
	}
}

func TestRequest_followsRedirectsOnTheAPIOnly(t *testing.T) {
	var stolen atomic.Int32
	elsewhere := newServer(t, func(w http.ResponseWriter, _ *http.Request) { stolen.Add(1); answer(w, 200, map[string]any{}) })
	tests := map[string]struct {
		location string
		status   int
		ok       bool
	}{
		"same origin, 301":          {"/2.0/moved", 301, true},
		"same origin, 302":          {"/2.0/moved", 302, true},
		"same origin, 307":          {"moved", 307, true},
		"same origin, 308":          {"/2.0/moved", 308, true},
		"another origin":            {elsewhere.URL + "/2.0/moved", 301, false},
		"another origin, no scheme": {strings.TrimPrefix(elsewhere.URL, "http:") + "/2.0/moved", 301, false},
		"outside the API's path":    {"/site/moved", 301, false},
		"user information":          {"//user@%HOST%/2.0/moved", 301, false},
		"in a circle":               {"/2.0/user", 301, false},
		"no location":               {"", 301, false},
		"303":                       {"/2.0/moved", 303, false},
		"304":                       {"/2.0/moved", 304, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/2.0/moved" {
					answerText(w, 200, "application/json", userJSON)
					return
				}
				if tt.location != "" {
					w.Header().Set("Location", strings.ReplaceAll(tt.location, "%HOST%", r.Host))
				}
				w.WriteHeader(tt.status)
			})
			_, err := s.account(t, ClientOptions{}).User(t.Context())
			if tt.ok != (err == nil) || (!tt.ok && !IsKind(err, KindBadResponse)) {
				t.Errorf("err = %v", err)
			}
			if stolen.Load() != 0 {
				t.Error("another origin was asked")
			}
		})
	}
}

func TestRequest_neverFollowsARedirectOfAWrite(t *testing.T) {
	s := newServer(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "/2.0/moved")
		w.WriteHeader(http.StatusPermanentRedirect)
	})
	err := s.account(t, ClientOptions{}).DeleteHook(t.Context(), Ref{Workspace: "acme", Repository: "web"}, "x")
	if !IsKind(err, KindBadResponse) || len(s.requests()) != 1 {
		t.Errorf("err = %v after %d requests", err, len(s.requests()))
	}
}

func TestRequest_unusableAnswers(t *testing.T) {
	for name, body := range map[string]string{
		"HTML":       "<html>login</html>",
		"truncated":  `{"uuid":"{0b7c`,
		"wrong type": `{"uuid":7}`,
		"no UUID":    `{"display_name":"x"}`,
		"too large":  `{"uuid":"` + strings.Repeat("x", maxAnswerBytes) + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, func(w http.ResponseWriter, _ *http.Request) { answerText(w, 200, "text/html", body) })
			_, err := s.account(t, ClientOptions{}).User(t.Context())
			if !IsKind(err, KindBadResponse) || apierr.ReasonOf(err) != apierr.ReasonBitbucketUnavailable {
				t.Errorf("err = %.200v", err)
			}
			if len(err.Error()) > 500 {
				t.Errorf("the error quotes the document: %d bytes", len(err.Error()))
			}
		})
	}
}

func TestRequest_timeLimits(t *testing.T) {
	release, arrived := make(chan struct{}), make(chan struct{})
	s := newServer(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case arrived <- struct{}{}:
		case <-release:
		case <-r.Context().Done():
		}
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	defer close(release)

	_, err := s.account(t, ClientOptions{Timeout: 30 * time.Millisecond}).User(t.Context())
	if !IsKind(err, KindNetwork) || !errors.Is(err, context.DeadlineExceeded) || apierr.ReasonOf(err) != apierr.ReasonBitbucketUnavailable {
		t.Errorf("own limit: err = %v", err) // be it before or after its request has arrived
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-arrived
		cancel()
	}()
	_, err = s.account(t, ClientOptions{}).User(ctx)
	if !errors.Is(err, context.Canceled) || apierr.ReasonOf(err) != apierr.ReasonCanceled {
		t.Errorf("canceled: err = %v", err)
	}
}

func TestRequest_noServer(t *testing.T) {
	s := newServer(t, func(http.ResponseWriter, *http.Request) {})
	a := s.account(t, ClientOptions{})
	s.Close()
	_, err := a.User(t.Context())
	if !IsKind(err, KindNetwork) || apierr.ReasonOf(err) != apierr.ReasonBitbucketUnavailable {
		t.Errorf("err = %v", err)
	}
	var e *Error
	if !errors.As(err, &e) || !e.Temporary() {
		t.Errorf("%v is not temporary", err)
	}
}

func TestRequest_zeroSiteReachesNothing(t *testing.T) {
	if _, err := NewClient(Site{}, ClientOptions{}).As(&tokens{n: 1}).User(t.Context()); err == nil {
		t.Error("no error")
	}
}

func TestRequest_budget(t *testing.T) {
	s := newServer(t, func(w http.ResponseWriter, _ *http.Request) { answerText(w, 200, "application/json", `{"values":[]}`) })
	b := &budget{}
	reg := prometheus.NewRegistry()
	a := s.account(t, ClientOptions{Budget: b, Registerer: reg})
	ref := Ref{Workspace: "acme", Repository: "web"}
	if _, err := a.Workspaces(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Background().Branches(t.Context(), ref, BranchesOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Of("acme-inc").Hooks(t.Context(), ref); err != nil {
		t.Fatal(err)
	}
	if want := []string{"other/interactive", "repositories/background", "hooks/interactive of acme-inc"}; !slices.Equal(b.taken, want) {
		t.Errorf("taken = %v, want %v", b.taken, want)
	}

	b.wait = 42 * time.Second
	_, err := a.Hooks(t.Context(), ref)
	api := apierr.From(err)
	if api.Reason() != apierr.ReasonBitbucketRateLimited || api.RetryAfter() != b.wait || len(s.requests()) != 3 {
		t.Errorf("err = %v (retry after %s) after %d requests", err, api.RetryAfter(), len(s.requests()))
	}
	if len(b.exhausted) != 0 {
		t.Errorf("our own refusal was reported as Bitbucket's: %v", b.exhausted)
	}
	want := `# HELP devpilot_bitbucket_budget_refused_total Calls to Bitbucket that our own budget held back.
# TYPE devpilot_bitbucket_budget_refused_total counter
devpilot_bitbucket_budget_refused_total{priority="background",route="branches"} 0
devpilot_bitbucket_budget_refused_total{priority="interactive",route="hooks"} 1
devpilot_bitbucket_budget_refused_total{priority="interactive",route="workspaces"} 0
# HELP devpilot_bitbucket_requests_total Requests to Bitbucket by route class and outcome (ok or the kind of error).
# TYPE devpilot_bitbucket_requests_total counter
devpilot_bitbucket_requests_total{outcome="ok",route="branches"} 1
devpilot_bitbucket_requests_total{outcome="ok",route="hooks"} 1
devpilot_bitbucket_requests_total{outcome="ok",route="workspaces"} 1
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "devpilot_bitbucket_requests_total", "devpilot_bitbucket_budget_refused_total"); err != nil {
		t.Error(err)
	}
}

func TestRequest_429TellsTheBudget(t *testing.T) {
	s := newServer(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "17")
		answerText(w, 429, "text/plain", "Rate limit for this resource has been exceeded")
	})
	b := &budget{}
	_, err := s.account(t, ClientOptions{Budget: b}).Repositories(t.Context(), Workspace{Slug: "acme"}, RepositoriesOptions{})
	if !IsKind(err, KindRateLimited) || apierr.From(err).RetryAfter() != 17*time.Second {
		t.Errorf("err = %v", err)
	}
	if want := []string{"repositories repositories acme/17s"}; !slices.Equal(b.exhausted, want) {
		t.Errorf("exhausted = %v, want %v", b.exhausted, want)
	}
}

func TestRequest_parallelBoundsWhatIsInFlight(t *testing.T) {
	var inFlight, most atomic.Int32
	three := make(chan struct{}) // closed once three requests are in flight; nobody is answered before
	s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		n := inFlight.Add(1)
		defer inFlight.Add(-1)
		if m := most.Load(); n > m && most.CompareAndSwap(m, n) && n == 3 {
			close(three)
		}
		select {
		case <-three:
		case <-r.Context().Done():
		}
		answerText(w, 200, "application/json", userJSON)
	})
	a := s.account(t, ClientOptions{}).Parallel(3)
	var wg sync.WaitGroup
	for range 30 {
		wg.Go(func() {
			if _, err := a.Background().User(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if most.Load() != 3 {
		t.Errorf("at most %d in flight, want 3", most.Load())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	full := a.Parallel(1)
	full.slots <- struct{}{}
	if _, err := full.User(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting for a slot: err = %v", err)
	}
}

func TestRequest_secretsReachNoLogAndNoError(t *testing.T) {
	var logs bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		answerText(w, 400, "text/plain", "Bad Request")
	})
	c := NewClient(s.site(t), ClientOptions{Logger: logger})
	a := c.As(StaticToken(seal.NewSecret("planted-token")))
	_, err := a.CreateHook(t.Context(), Ref{Workspace: "acme", Repository: "web"}, HookInput{URL: "https://x.example.test", Secret: seal.NewSecret("planted-secret")})
	if err == nil {
		t.Fatal("no error")
	}
	for where, text := range map[string]string{
		"log": logs.String(), "error": err.Error(), "error with %+v": fmt.Sprintf("%+v", err),
		"account": fmt.Sprintf("%+v", a), "input": fmt.Sprintf("%+v", HookInput{Secret: seal.NewSecret("planted-secret")}),
	} {
		if strings.Contains(text, "planted") {
			t.Errorf("%s shows a secret: %s", where, text)
		}
	}
	if !strings.Contains(logs.String(), "route=hooks") {
		t.Errorf("log = %q", logs.String())
	}
}
