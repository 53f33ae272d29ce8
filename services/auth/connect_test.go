package auth_test

import (
	"context"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/seal"
	authv1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/v1"
	"devpilot.io/bitbucket/services/auth"
)

func wantReason(t *testing.T, err error, want apierr.Reason) *apierr.Error {
	t.Helper()
	if !apierr.Has(err, want) {
		t.Errorf("got %v, want %s", err, want)
	}
	return apierr.From(err)
}

func TestConnect_wholeWay(t *testing.T) {
	s := newStack(t, emulator.Options{Tokens: emulator.TokenOptions{Rotate: true, Length: 8192}})
	i := s.start("P1")

	before := s.get(i, "acme-inc")
	if before.GetState() != authv1.Integration_NOT_CONNECTED || before.GetSetup().GetCallbackUrl() != publicURL+"/oauth/bitbucket/callback" ||
		!slices.Equal(before.GetSetup().GetRequiredScopes(), []string{"repository", "account", "webhook"}) || !before.GetSetup().GetConsumerConfigured() {
		t.Fatalf("before: %v", before)
	}
	c, err := i.gateway.ConnectIntegration(s.admin("acme-inc"), &authv1.ConnectIntegrationRequest{Workspace: "acme-inc", ReturnPath: "//evil.example/x"})
	if err != nil {
		t.Fatal(err)
	}
	start, err := url.Parse(c.GetAuthorizeUrl())
	if err != nil || !strings.HasPrefix(c.GetAuthorizeUrl(), publicURL+"/oauth/bitbucket/start?handshake=") {
		t.Fatalf("%s %v", c.GetAuthorizeUrl(), err)
	}
	id := start.Query().Get("handshake")
	look, err := i.gateway.LookUpHandshake(t.Context(), &authv1.LookUpHandshakeRequest{Handshake: id})
	if err != nil || look.GetWorkspace() != "acme-inc" || look.GetSubject() != "jane" || look.GetReturnPath() != "/" {
		t.Fatalf("%v %v", look, err)
	}
	a, err := i.gateway.BeginAuthorization(s.admin("acme-inc"), &authv1.BeginAuthorizationRequest{Workspace: "acme-inc", Handshake: id})
	if err != nil {
		t.Fatal(err)
	}
	q := mustURL(t, a.GetAuthorizeUrl()).Query()
	if q.Get("code_challenge_method") != "S256" || len(q.Get("code_challenge")) != 43 || len(q.Get("state")) < 43 || q.Get("scope") != "" ||
		!strings.HasPrefix(a.GetAuthorizeUrl(), s.site.SiteURL+"/site/oauth2/authorize?") || a.GetLife().AsDuration() != 10*time.Minute {
		t.Fatalf("%s for %v", a.GetAuthorizeUrl(), a.GetLife().AsDuration())
	}
	if again, err := i.gateway.LookUpHandshake(t.Context(), &authv1.LookUpHandshakeRequest{State: q.Get("state")}); err != nil || again.GetBindingName() != a.GetBindingName() {
		t.Fatalf("%v %v", again, err)
	}
	req := s.answer(begun{"acme-inc", a.GetAuthorizeUrl(), map[string]string{a.GetBindingName(): a.GetBinding()}}, "jane-dev", true)
	done, err := i.gateway.CompleteAuthorization(s.admin("acme-inc"), req)
	if err != nil {
		t.Fatal(err)
	}
	v := done.GetIntegration()
	if v.GetState() != authv1.Integration_CONNECTED || v.GetAccount().GetLabel() != "jane-dev" || len(v.GetAccount().GetUuid()) != 36 ||
		v.GetConnectedBy() != "Jane Developer" || v.GetConnectionId() == "" || v.GetEtag() == "" || v.GetLastError() != nil ||
		len(v.GetMissingScopes()) != 0 || !slices.Equal(v.GetExtraScopes(), []string{"email"}) || v.GetSiteUrl() != s.site.SiteURL ||
		!strings.HasSuffix(v.GetAuthorizationsUrl(), "/account/settings/app-authorizations/") {
		t.Errorf("%v", v)
	}
	if left := time.Until(v.GetTokenExpireTime().AsTime()); left < 110*time.Minute || left > 2*time.Hour {
		t.Errorf("the token expires in %v", left)
	}
	if got := s.get(i, "acme-inc"); !proto.Equal(got, v) || got.GetPendingHandshake() != nil {
		t.Errorf("read again: %v", got)
	}
	tok, err := i.repo.IssueToken(t.Context(), &authv1.IssueTokenRequest{Workspace: "acme-inc"})
	if err != nil || len(tok.GetAccessToken()) != 8192 || tok.GetSiteUrl() != s.site.SiteURL || tok.GetApiUrl() != s.site.APIURL ||
		tok.GetConnectionId() != v.GetConnectionId() || tok.GetAccountUuid() != v.GetAccount().GetUuid() {
		t.Fatalf("%d characters: %v", len(tok.GetAccessToken()), err)
	}
	if err := s.works(tok.GetAccessToken()); err != nil {
		t.Error(err)
	}
	// The same redirect once more: a reload of the page.
	_, err = i.gateway.CompleteAuthorization(s.admin("acme-inc"), req)
	wantReason(t, err, apierr.ReasonHandshakeExpired)
	if n := s.counters().CodeExchanges; n != 1 {
		t.Errorf("%d code exchanges", n)
	}
	s.logs.MustNotContain(t, tok.GetAccessToken(), req.GetCode(), req.GetState(), a.GetBinding(), id)
}

func mustURL(t *testing.T, raw string) *url.URL {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestConnect_theCodeIsExchangedOnce(t *testing.T) {
	s := newStack(t, emulator.Options{})
	is := []*instance{s.start("P1"), s.start("P2")}
	req := s.answer(s.begin(is[0], "acme-inc"), "jane-dev", true)
	var ok atomic.Int32
	var wg sync.WaitGroup
	for n := range 10 {
		wg.Go(func() {
			if _, err := is[n%2].gateway.CompleteAuthorization(s.admin("acme-inc"), proto.CloneOf(req)); err == nil {
				ok.Add(1)
			} else if !apierr.Has(err, apierr.ReasonHandshakeExpired) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if ok.Load() != 1 || s.counters().CodeExchanges != 1 {
		t.Errorf("%d completions, %d exchanges", ok.Load(), s.counters().CodeExchanges)
	}
}

func TestConnect_cancelChangesNothing(t *testing.T) {
	s := newStack(t, emulator.Options{})
	i := s.start("P1")
	first := s.connect(i, "acme-inc", "jane-dev")
	_, err := i.gateway.CompleteAuthorization(s.admin("acme-inc"), s.answer(s.begin(i, "acme-inc"), "jane-dev", false))
	e := wantReason(t, err, apierr.ReasonConsentDenied)
	if !strings.Contains(e.Message(), "pressed Cancel") {
		t.Error(e.Message())
	}
	if got := s.get(i, "acme-inc"); got.GetConnectionId() != first.GetConnectionId() || got.GetPendingHandshake() != nil {
		t.Errorf("%v", got)
	}
	// Whatever the redirect says about an error is not repeated to people.
	req := s.answer(s.begin(i, "acme-inc"), "jane-dev", false)
	req.Error, req.ErrorDescription = "server_error", "<b>call 555-0100 now</b>"
	_, err = i.gateway.CompleteAuthorization(s.admin("acme-inc"), req)
	if e := wantReason(t, err, apierr.ReasonConsentDenied); strings.Contains(e.Message(), "555") || strings.Contains(e.Message(), "server_error") {
		t.Error(e.Message())
	}
}

func TestConnect_onlyWhoBeganInTheSameBrowser(t *testing.T) {
	s := newStack(t, emulator.Options{})
	i := s.start("P1")
	req := s.answer(s.begin(i, "acme-inc"), "jane-dev", true)
	_, err := i.gateway.CompleteAuthorization(s.as("acme-inc", identity.RoleOwner, "mallory"), req)
	wantReason(t, err, apierr.ReasonHandshakeMismatch)
	stolen := proto.CloneOf(req)
	stolen.Bindings = map[string]string{"x": "y"}
	_, err = i.gateway.CompleteAuthorization(s.admin("acme-inc"), stolen)
	wantReason(t, err, apierr.ReasonHandshakeMismatch)
	other := proto.CloneOf(req)
	other.Workspace = "other"
	_, err = i.gateway.CompleteAuthorization(s.admin("other"), other)
	wantReason(t, err, apierr.ReasonHandshakeMismatch)
	// Today's role counts, not that of when it was begun.
	_, err = i.gateway.CompleteAuthorization(s.as("acme-inc", identity.RoleMember, "jane"), req)
	wantReason(t, err, apierr.ReasonPermissionDenied)
	if _, err := i.gateway.CompleteAuthorization(s.admin("acme-inc"), req); err != nil {
		t.Error(err)
	}
}

func TestConnect_missingScopeReplacesNothing(t *testing.T) {
	for _, c := range []struct {
		name      string
		scopes    []string
		untold    bool // not by the token endpoint
		unheard   bool // nor by the API
		missing   string
		checkbox  string
		connected bool
		extra     []string
	}{
		{name: "no webhooks", scopes: []string{"account", "repository"}, missing: "webhook", checkbox: "Webhooks: Read and write"},
		{name: "admin is not read", scopes: []string{"account", "repository:admin", "webhook"}, missing: "repository", checkbox: "Repositories: Read"},
		{name: "write implies read", scopes: []string{"account", "repository:write", "webhook"}, connected: true, extra: []string{"repository:write"}},
		{name: "told by the header only", scopes: []string{"account", "repository", "webhook"}, untold: true, connected: true},
		{name: "missing, told by the header only", scopes: []string{"account", "repository"}, untold: true, missing: "webhook", checkbox: "Webhooks: Read and write"},
		{name: "nobody tells", scopes: []string{"account", "repository", "webhook"}, untold: true, unheard: true, missing: "repository account webhook", checkbox: "Repositories: Read"},
		{name: "no account, told by the refusal only", scopes: []string{"repository", "webhook"}, untold: true, missing: "account", checkbox: "Account: Read"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStack(t, emulator.Options{})
			i := s.start("P1")
			first := s.connect(i, "acme-inc", "jane-dev")
			if err := s.control.SetScopes(t.Context(), c.scopes...); err != nil {
				t.Fatal(err)
			}
			s.gate.set(func(g *gate) {
				if g.noScopeHeader = c.unheard; c.untold {
					g.hide = []string{"scope"}
				}
			})
			done, err := i.gateway.CompleteAuthorization(s.admin("acme-inc"), s.answer(s.begin(i, "acme-inc"), "jane-dev", true))
			if c.connected {
				if err != nil || done.GetIntegration().GetConnectionId() == first.GetConnectionId() || !slices.Equal(done.GetIntegration().GetExtraScopes(), c.extra) {
					t.Errorf("%v %v", done, err)
				}
				return
			}
			e := wantReason(t, err, apierr.ReasonScopeMissing)
			if e.Detail("missingScopes") != c.missing || !strings.Contains(e.Message(), c.checkbox) {
				t.Errorf("%v: %s", e.Details(), e.Message())
			}
			if got := s.get(i, "acme-inc"); got.GetConnectionId() != first.GetConnectionId() || got.GetState() != authv1.Integration_CONNECTED {
				t.Errorf("the stored connection was touched: %v", got)
			}
		})
	}
}

func TestConnect_consumerTrouble(t *testing.T) {
	s := newStack(t, emulator.Options{})
	none := s.start("none", func(c *auth.Config) { c.ClientID, c.ClientSecret = "", seal.Secret{} })
	_, err := none.gateway.ConnectIntegration(s.admin("acme-inc"), &authv1.ConnectIntegrationRequest{Workspace: "acme-inc"})
	wantReason(t, err, apierr.ReasonConsumerRefused)
	if got := s.get(none, "acme-inc"); got.GetSetup().GetConsumerConfigured() {
		t.Error("a consumer is said to be configured")
	}
	wrong := s.start("wrong", func(c *auth.Config) { c.ClientSecret = seal.NewSecret("wrong-secret-of-the-consumer") })
	_, err = wrong.gateway.CompleteAuthorization(s.admin("acme-inc"), s.answer(s.begin(wrong, "acme-inc"), "jane-dev", true))
	wantReason(t, err, apierr.ReasonConsumerRefused)
	if got := s.get(wrong, "acme-inc"); got.GetState() != authv1.Integration_NOT_CONNECTED {
		t.Errorf("%v", got)
	}
	s.logs.MustNotContain(t, "wrong-secret-of-the-consumer", emulator.DefaultConsumer().Secret)
}

// A grant that cannot be renewed would be a connection for two hours.
func TestConnect_noRefreshToken(t *testing.T) {
	s := newStack(t, emulator.Options{})
	i := s.start("P1")
	s.gate.set(func(g *gate) { g.hide = []string{"refresh_token"} })
	_, err := i.gateway.CompleteAuthorization(s.admin("acme-inc"), s.answer(s.begin(i, "acme-inc"), "jane-dev", true))
	if e := wantReason(t, err, apierr.ReasonConsumerRefused); !strings.Contains(e.Message(), "private consumer") {
		t.Error(e.Message())
	}
}

// Where Bitbucket does not say how long a token lives it counts as expired.
func TestConnect_unknownExpiry(t *testing.T) {
	s := newStack(t, emulator.Options{})
	i := s.start("P1")
	s.gate.set(func(g *gate) { g.hide = []string{"expires_in"} })
	if v := s.connect(i, "acme-inc", "jane-dev"); v.GetTokenExpireTime() != nil {
		t.Errorf("%v", v)
	}
	for n := range 2 {
		r, err := issue(t, i.repo, &authv1.IssueTokenRequest{Workspace: "acme-inc"})
		if err != nil || r.GetExpireTime() != nil || s.works(r.GetAccessToken()) != nil {
			t.Fatalf("%v %v", r.GetExpireTime(), err)
		}
		if got := s.counters().Refreshes; got != n+1 {
			t.Errorf("%d refreshes for %d callers, one after the other", got, n+1)
		}
	}
}

func TestConnect_temporaryTroubleWithTheAccount(t *testing.T) {
	s := newStack(t, emulator.Options{})
	i := s.start("P1")
	if _, err := s.control.Inject(t.Context(), emulator.Fault{Route: "/2.0/user", Status: 503, Body: "{}", Times: 2}); err != nil {
		t.Fatal(err)
	}
	if v := s.connect(i, "acme-inc", "jane-dev"); v.GetAccount().GetLabel() != "jane-dev" {
		t.Errorf("%v", v)
	}
	if _, err := s.control.Inject(t.Context(), emulator.Fault{Route: "/2.0/user", Status: 503, Body: "{}"}); err != nil {
		t.Fatal(err)
	}
	_, err := i.gateway.CompleteAuthorization(s.admin("other"), s.answer(s.begin(i, "other"), "jane-dev", true))
	wantReason(t, err, apierr.ReasonBitbucketUnavailable)
	if got := s.get(i, "other"); got.GetState() != authv1.Integration_NOT_CONNECTED {
		t.Errorf("%v", got)
	}
}

func TestConnect_unansweredHandshakeSaysWhatBitbucketsPageMeans(t *testing.T) {
	s := newStack(t, emulator.Options{})
	i := s.start("P1")
	s.begin(i, "acme-inc")
	p := s.get(i, "acme-inc").GetPendingHandshake()
	if p == nil || p.GetHint() != "" || p.GetExpireTime().AsTime().Sub(p.GetStartTime().AsTime()) != 10*time.Minute {
		t.Fatalf("at once: %v", p)
	}
	s.ahead.Store(int64(2*time.Minute + time.Second))
	hint := s.get(i, "acme-inc").GetPendingHandshake().GetHint()
	if !strings.Contains(hint, "Invalid redirect_uri") || !strings.Contains(hint, publicURL+"/oauth/bitbucket/callback") {
		t.Errorf("after two minutes: %q", hint)
	}
	s.ahead.Store(int64(11 * time.Minute))
	if p := s.get(i, "acme-inc").GetPendingHandshake(); p != nil {
		t.Errorf("after eleven minutes: %v", p)
	}
}

func TestConnect_everyConnectIsANewConnection(t *testing.T) {
	s := newStack(t, emulator.Options{})
	i := s.start("P1")
	a, b := s.connect(i, "acme-inc", "jane-dev"), s.connect(i, "acme-inc", "jane-dev")
	if a.GetConnectionId() == b.GetConnectionId() || a.GetAccount().GetUuid() != b.GetAccount().GetUuid() {
		t.Errorf("%s and %s", a.GetConnectionId(), b.GetConnectionId())
	}
}

// A browser that goes away while we talk to Bitbucket has connected all the same.
func TestConnect_callerGoesTheConnectStays(t *testing.T) {
	s := newStack(t, emulator.Options{})
	i := s.start("P1")
	req := s.answer(s.begin(i, "acme-inc"), "jane-dev", true)
	ctx, cancel := context.WithCancel(s.admin("acme-inc"))
	defer cancel()
	s.gate.set(func(g *gate) { g.onExchange = cancel })
	if _, err := i.gateway.CompleteAuthorization(ctx, req); err == nil {
		t.Fatal("answered a caller who is gone")
	}
	eventually(t, func() bool { return s.get(i, "acme-inc").GetState() == authv1.Integration_CONNECTED })
}
