package bitbucket_test

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/pkg/seal"
)

// The emulator defines its own JSON from BITBUCKET.md; here the client meets it.

const callback = "https://devpilot.example.test/oauth/bitbucket/callback"

type fixture struct {
	t       *testing.T
	server  *emulator.Server
	control *emulator.Control
	site    bitbucket.Site
	client  *bitbucket.Client
	oauth   *bitbucket.OAuth
}

func startEmulator(t *testing.T, change ...func(*emulator.Options)) *fixture {
	t.Helper()
	options := emulator.Options{Scenario: "sample", DataDir: t.TempDir(), Consumer: emulator.DefaultConsumer()}
	options.Consumer.CallbackURL = callback
	for _, c := range change {
		c(&options)
	}
	server, err := emulator.Start("127.0.0.1:0", options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Errorf("close emulator: %v", err)
		}
	})
	site, err := bitbucket.NewSite(server.SiteURL(), server.APIURL())
	if err != nil {
		t.Fatal(err)
	}
	h := &http.Client{Transport: bitbucket.NewTransport()}
	t.Cleanup(h.CloseIdleConnections)
	return &fixture{
		t: t, server: server, control: server.Control(), site: site,
		client: bitbucket.NewClient(site, bitbucket.ClientOptions{HTTPClient: h}),
		oauth: bitbucket.NewOAuth(site, options.Consumer.Key, seal.NewSecret(options.Consumer.Secret), callback,
			bitbucket.WithHTTPClient(h)),
	}
}

func (f *fixture) do(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// consent goes through the consent page and returns the code of the redirect.
func (f *fixture) consent(account, state, verifier string) string {
	f.t.Helper()
	to, err := f.control.Consent(f.t.Context(), f.oauth.AuthorizeURL(state, bitbucket.Challenge(verifier)), account, true)
	f.do(err)
	u, err := url.Parse(to)
	f.do(err)
	if !strings.HasPrefix(to, callback+"?") || u.Query().Get("state") != state {
		f.t.Fatalf("redirected to %s", to)
	}
	return u.Query().Get("code")
}

func (f *fixture) account(username string) *bitbucket.Account {
	f.t.Helper()
	pair, err := f.control.IssueTokens(f.t.Context(), username)
	f.do(err)
	return f.client.As(bitbucket.StaticToken(seal.NewSecret(pair.AccessToken)))
}

func wantClass(t *testing.T, err error, want bitbucket.OAuthClass) {
	t.Helper()
	var e *bitbucket.OAuthError
	if !errors.As(err, &e) || e.Class != want {
		t.Errorf("err = %v, want class %s", err, want)
	}
}

func TestEmulator_connectAndRefresh(t *testing.T) {
	f := startEmulator(t)
	verifier := bitbucket.NewVerifier()
	code := f.consent("jane-dev", "state-1", verifier)
	grant, err := f.oauth.Exchange(t.Context(), code, verifier)
	f.do(err)
	if len(grant.AccessToken.Reveal()) < 2500 || len(grant.RefreshToken.Reveal()) < 2500 {
		t.Error("the emulator's tokens are not of today's length")
	}
	if !slices.Equal(grant.Scopes, []string{"account", "email", "repository", "webhook"}) || !grant.ValidFor(time.Now(), 119*time.Minute) {
		t.Errorf("scopes %v, expiry %s", grant.Scopes, grant.Expiry)
	}
	_, err = f.oauth.Exchange(t.Context(), code, verifier)
	wantClass(t, err, bitbucket.OAuthCodeRefused)

	next, err := f.oauth.Refresh(t.Context(), grant.RefreshToken)
	f.do(err)
	if next.RefreshToken.Equal(grant.RefreshToken) || next.AccessToken.Equal(grant.AccessToken) {
		t.Error("the tokens were not rotated")
	}
	_, err = f.oauth.Refresh(t.Context(), grant.RefreshToken)
	wantClass(t, err, bitbucket.OAuthRefused)
	u, err := f.client.As(bitbucket.StaticToken(next.AccessToken)).User(t.Context())
	if err != nil || u.Label() != "jane-dev" || u.UUID != emulator.SeededUUID("account", "jane-dev") {
		t.Errorf("user = %+v, %v", u, err)
	}
}

func TestEmulator_tokenEndpointVariants(t *testing.T) {
	for name, tt := range map[string]struct {
		tokens emulator.TokenOptions
		check  func(*testing.T, bitbucket.Grant, bitbucket.Grant, *fixture)
	}{
		"no rotation": {emulator.TokenOptions{AccessTTL: time.Hour}, func(t *testing.T, first, second bitbucket.Grant, _ *fixture) {
			if !first.RefreshToken.Equal(second.RefreshToken) {
				t.Error("the refresh token changed")
			}
		}},
		"historic field of scopes": {emulator.TokenOptions{Rotate: true, ScopeField: "scopes"}, func(t *testing.T, _, second bitbucket.Grant, _ *fixture) {
			if len(second.Scopes) != 4 {
				t.Errorf("scopes = %v", second.Scopes)
			}
		}},
		"grace": {emulator.TokenOptions{Rotate: true, Grace: 10 * time.Minute}, func(t *testing.T, first, _ bitbucket.Grant, f *fixture) {
			if _, err := f.oauth.Refresh(t.Context(), first.RefreshToken); err != nil {
				t.Errorf("within the grace: %v", err)
			}
		}},
		"old backend's refusal": {emulator.TokenOptions{Rotate: true, DeadTokenError: "invalid_request"}, func(t *testing.T, first, _ bitbucket.Grant, f *fixture) {
			_, err := f.oauth.Refresh(t.Context(), first.RefreshToken)
			wantClass(t, err, bitbucket.OAuthRefused)
		}},
		"lock-out": {emulator.TokenOptions{Rotate: true, LockOut: true}, func(t *testing.T, first, second bitbucket.Grant, f *fixture) {
			for _, token := range []seal.Secret{first.RefreshToken, second.RefreshToken} {
				_, err := f.oauth.Refresh(t.Context(), token)
				wantClass(t, err, bitbucket.OAuthRefused)
			}
			f.do(f.control.AdvanceClock(t.Context(), 5*time.Minute))
			if _, err := f.oauth.Refresh(t.Context(), second.RefreshToken); err != nil {
				t.Errorf("after the lock-out: %v", err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			f := startEmulator(t, func(o *emulator.Options) { o.Tokens = tt.tokens })
			verifier := bitbucket.NewVerifier()
			first, err := f.oauth.Exchange(t.Context(), f.consent("jane-dev", "s", verifier), verifier)
			f.do(err)
			second, err := f.oauth.Refresh(t.Context(), first.RefreshToken)
			f.do(err)
			tt.check(t, first, second, f)
		})
	}
}

func TestEmulator_consumerAtFault(t *testing.T) {
	f := startEmulator(t)
	verifier := bitbucket.NewVerifier()
	code := f.consent("jane-dev", "s", verifier)
	f.do(f.control.SetConsumerSecret(t.Context(), strings.Repeat("another-secret", 4)))
	_, err := f.oauth.Exchange(t.Context(), code, verifier)
	wantClass(t, err, bitbucket.OAuthConsumerMisconfigured)
	_, err = f.oauth.Refresh(t.Context(), seal.NewSecret("whatever"))
	wantClass(t, err, bitbucket.OAuthRefused) // indistinguishable, as BITBUCKET.md#lock-out says
}

func TestEmulator_renewsAfter401(t *testing.T) {
	f := startEmulator(t)
	verifier := bitbucket.NewVerifier()
	grant, err := f.oauth.Exchange(t.Context(), f.consent("jane-dev", "s", verifier), verifier)
	f.do(err)
	if n, err := f.control.ExpireTokens(t.Context(), ""); err != nil || n != 1 {
		t.Fatalf("expired %d tokens, %v", n, err)
	}
	refreshes := 0
	source := bitbucket.TokenSourceFunc(func(ctx context.Context, rejected seal.Secret) (seal.Secret, error) {
		if rejected.Equal(grant.AccessToken) {
			refreshes++
			if grant, err = f.oauth.Refresh(ctx, grant.RefreshToken); err != nil {
				return seal.Secret{}, err
			}
		}
		return grant.AccessToken, nil
	})
	if _, err := f.client.As(source).Workspaces(t.Context()); err != nil || refreshes != 1 {
		t.Errorf("after %d refreshes: %v", refreshes, err)
	}
}

func TestEmulator_listings(t *testing.T) {
	f := startEmulator(t)
	a := f.account("jane-dev").Parallel(4)
	workspaces, err := a.Workspaces(t.Context())
	f.do(err)
	if len(workspaces.Values) != 2 || workspaces.Values[0].Slug != "acme" || workspaces.Values[0].UUID != emulator.SeededUUID("workspace", "acme") {
		t.Errorf("workspaces = %+v", workspaces.Values)
	}
	repositories, err := a.Repositories(t.Context(), workspaces.Values[0].Workspace, bitbucket.RepositoriesOptions{Role: bitbucket.RoleMember})
	f.do(err)
	if len(repositories.Values) != 5 || repositories.Size != 5 {
		t.Errorf("repositories = %+v", repositories.Values)
	}
	for _, r := range repositories.Values {
		if r.UUID == "" || r.FullName == "" || r.Workspace.Slug != "acme" || r.UpdatedOn.IsZero() {
			t.Errorf("repository = %+v", r)
		}
		p, err := a.RepositoryPermission(t.Context(), r.Workspace, r.UUID)
		want := map[string]bitbucket.Permission{"docs": bitbucket.PermissionWrite, "legacy": bitbucket.PermissionRead}[r.Slug]
		if want == "" {
			want = bitbucket.PermissionAdmin
		}
		if err != nil || p != want {
			t.Errorf("permission on %s = %s, %v", r.FullName, p, err)
		}
		for _, ref := range []bitbucket.Ref{r.Ref(), bitbucket.RefByID("", r.UUID, ""), {Workspace: "acme", Repository: r.Slug}} {
			if again, err := a.Repository(t.Context(), ref); err != nil || again != r {
				t.Errorf("Repository(%+v) = %+v, %v", ref, again, err)
			}
		}
	}
	branches, err := a.Branches(t.Context(), bitbucket.Ref{Workspace: "acme", Repository: "web"}, bitbucket.BranchesOptions{Sort: "-target.date"})
	f.do(err)
	if len(branches.Values) != 4 || branches.Values[0].Name != "feature/login" {
		t.Errorf("branches = %+v", branches.Values)
	}
	for _, b := range branches.Values {
		if again, err := a.Branch(t.Context(), bitbucket.Ref{Workspace: "acme", Repository: "web"}, b.Name); err != nil || again != b {
			t.Errorf("Branch(%s) = %+v, %v; want %+v", b.Name, again, err, b)
		}
	}
}

func TestEmulator_renamedRepositoryIsFollowedByUUID(t *testing.T) {
	f := startEmulator(t)
	a := f.account("jane-dev")
	web, err := a.Repository(t.Context(), bitbucket.Ref{Workspace: "acme", Repository: "web"})
	f.do(err)
	f.do(f.control.RenameRepository(t.Context(), "acme/web", "website"))
	if again, err := a.Repository(t.Context(), web.Ref()); err != nil || again.FullName != "acme/website" {
		t.Errorf("by UUID: %+v, %v", again, err)
	}
	if again, err := a.Repository(t.Context(), bitbucket.Ref{Workspace: "acme", Repository: "web"}); err == nil && again.UUID != web.UUID {
		t.Errorf("by its old name: %+v", again)
	}
}

func TestEmulator_faults(t *testing.T) {
	f := startEmulator(t)
	a := f.account("jane-dev")
	for kind, want := range map[emulator.FaultKind]bitbucket.Kind{
		emulator.FaultTokenExpired:     bitbucket.KindUnauthorized,
		emulator.FaultTokenExpiredOld:  bitbucket.KindUnauthorized,
		emulator.FaultTokenInvalid:     bitbucket.KindUnauthorized,
		emulator.FaultMissingScope:     bitbucket.KindScopeMissing,
		emulator.FaultRateLimited:      bitbucket.KindRateLimited,
		emulator.FaultRateLimitedText:  bitbucket.KindRateLimited,
		emulator.FaultRateLimitedReset: bitbucket.KindRateLimited,
		emulator.FaultServerErrorHTML:  bitbucket.KindUnavailable,
		emulator.FaultLostAnswer:       bitbucket.KindNetwork,
	} {
		_, err := f.control.Inject(t.Context(), emulator.Fault{Kind: kind, Route: "api"})
		f.do(err)
		if _, err := a.User(t.Context()); !bitbucket.IsKind(err, want) {
			t.Errorf("%s: err = %v, want %s", kind, err, want)
		}
		f.do(f.control.ClearFaults(t.Context()))
	}
	for i := range 150 {
		_, err := f.control.PutRepository(t.Context(), "acme/r"+strings.Repeat("x", i%7)+string(rune('a'+i%26))+strings.Repeat("y", i/26),
			emulator.RepositoryInput{Permissions: map[string]string{"jane-dev": "read"}})
		f.do(err)
	}
	_, err := f.control.Inject(t.Context(), emulator.Fault{Kind: emulator.FaultForeignNext, Route: "api"})
	f.do(err)
	if _, err := a.Repositories(t.Context(), bitbucket.Workspace{Slug: "acme"}, bitbucket.RepositoriesOptions{}); !bitbucket.IsKind(err, bitbucket.KindBadResponse) {
		t.Errorf("foreign next: err = %v", err)
	}
}
