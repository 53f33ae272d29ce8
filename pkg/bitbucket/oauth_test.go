package bitbucket

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/seal"
)

const callback = "https://devpilot.example.test/oauth/bitbucket/callback"

var oauthNow = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)

func (s *server) oauth(t *testing.T) *OAuth {
	t.Helper()
	return NewOAuth(s.site(t), "client-id", seal.NewSecret("planted/secret+"), callback, WithNow(func() time.Time { return oauthNow }))
}

func TestOAuth_AuthorizeURL(t *testing.T) {
	site, err := NewSite(DefaultSiteURL, DefaultAPIURL)
	if err != nil {
		t.Fatal(err)
	}
	verifier := NewVerifier()
	u, err := url.Parse(NewOAuth(site, "client-id", seal.NewSecret("x"), callback).AuthorizeURL("st&te", Challenge(verifier)))
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	want := url.Values{"client_id": {"client-id"}, "response_type": {"code"}, "state": {"st&te"}, "redirect_uri": {callback},
		"code_challenge": {Challenge(verifier)}, "code_challenge_method": {"S256"}}
	if u.Scheme+"://"+u.Host+u.Path != "https://bitbucket.org/site/oauth2/authorize" || q.Encode() != want.Encode() {
		t.Errorf("AuthorizeURL = %s", u)
	}
	if len(verifier) < 43 || strings.Contains(u.String(), verifier) {
		t.Error("the verifier is too short or in the URL")
	}
}

func TestOAuth_Exchange(t *testing.T) {
	access := strings.Repeat("a=", 1500)
	s := newServer(t, func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, map[string]any{"access_token": access, "refresh_token": "r1", "token_type": "bearer", "expires_in": 7200,
			"scope": "webhook account repository", "state": "authorization_code"})
	})
	g, err := s.oauth(t).Exchange(t.Context(), "the-code", "the-verifier")
	if err != nil {
		t.Fatal(err)
	}
	if g.AccessToken.Reveal() != access || g.RefreshToken.Reveal() != "r1" || !g.Expiry.Equal(oauthNow.Add(2*time.Hour)) {
		t.Errorf("grant = %v until %s", g.AccessToken, g.Expiry)
	}
	if !slices.Equal(g.Scopes, []string{"account", "repository", "webhook"}) {
		t.Errorf("scopes = %v", g.Scopes)
	}
	r := s.requests()[0]
	form, err := url.ParseQuery(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	want := url.Values{"grant_type": {"authorization_code"}, "code": {"the-code"}, "redirect_uri": {callback}, "code_verifier": {"the-verifier"}}
	if form.Encode() != want.Encode() || r.Method != http.MethodPost || r.Path != "/site/oauth2/access_token" || r.ContentType != "application/x-www-form-urlencoded" || r.UserAgent != UserAgent {
		t.Errorf("request = %+v", r)
	}
	// RFC 6749 section 2.3.1: both halves are form-encoded before Basic.
	if want := "Basic " + base64.StdEncoding.EncodeToString([]byte("client-id:planted%2Fsecret%2B")); r.Authorization != want {
		t.Errorf("authorization = %q", r.Authorization)
	}
}

func TestOAuth_RefreshReadsEveryShape(t *testing.T) {
	tests := map[string]struct {
		body    string
		refresh string
		scopes  []string
		expiry  time.Time
	}{
		"rotated":                    {`{"access_token":"a","refresh_token":"new","expires_in":7200,"scope":"account"}`, "new", []string{"account"}, oauthNow.Add(2 * time.Hour)},
		"no refresh token keeps old": {`{"access_token":"a","expires_in":7200}`, "old", nil, oauthNow.Add(2 * time.Hour)},
		"null refresh token":         {`{"access_token":"a","refresh_token":null,"expires_in":7200}`, "old", nil, oauthNow.Add(2 * time.Hour)},
		"historic scopes":            {`{"access_token":"a","expires_in":60,"scopes":"webhook account account"}`, "old", []string{"account", "webhook"}, oauthNow.Add(time.Minute)},
		"scope wins over scopes":     {`{"access_token":"a","expires_in":60,"scopes":"x","scope":"y"}`, "old", []string{"y"}, oauthNow.Add(time.Minute)},
		"scopes as a list":           {`{"access_token":"a","expires_in":60,"scope":["b","a",7]}`, "old", []string{"a", "b"}, oauthNow.Add(time.Minute)},
		"unknown expiry":             {`{"access_token":"a","scope":""}`, "old", nil, time.Time{}},
		"zero expiry":                {`{"access_token":"a","expires_in":0}`, "old", nil, time.Time{}},
		"negative expiry":            {`{"access_token":"a","expires_in":-5}`, "old", nil, time.Time{}},
		"expiry as text":             {`{"access_token":"a","expires_in":"3600"}`, "old", nil, oauthNow.Add(time.Hour)},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, func(w http.ResponseWriter, _ *http.Request) { answerText(w, 200, "application/json", tt.body) })
			g, err := s.oauth(t).Refresh(t.Context(), seal.NewSecret("old"))
			if err != nil {
				t.Fatal(err)
			}
			if g.RefreshToken.Reveal() != tt.refresh || !slices.Equal(g.Scopes, tt.scopes) || !g.Expiry.Equal(tt.expiry) {
				t.Errorf("grant = refresh %q, scopes %v, expiry %s", g.RefreshToken.Reveal(), g.Scopes, g.Expiry)
			}
			form, _ := url.ParseQuery(s.requests()[0].Body)
			if form.Get("grant_type") != "refresh_token" || form.Get("refresh_token") != "old" || form.Has("client_secret") {
				t.Errorf("form = %v", form)
			}
		})
	}
}

func TestGrant_unknownExpiryIsExpired(t *testing.T) {
	a := seal.NewSecret("a")
	tests := map[string]struct {
		grant Grant
		want  bool
	}{
		"long enough":    {Grant{AccessToken: a, Expiry: oauthNow.Add(5 * time.Minute)}, true},
		"too short":      {Grant{AccessToken: a, Expiry: oauthNow.Add(5*time.Minute - time.Second)}, false},
		"unknown expiry": {Grant{AccessToken: a}, false},
		"no token":       {Grant{Expiry: oauthNow.Add(time.Hour)}, false},
	}
	for name, tt := range tests {
		if got := tt.grant.ValidFor(oauthNow, 5*time.Minute); got != tt.want {
			t.Errorf("%s: ValidFor = %t", name, got)
		}
	}
}

func TestOAuth_classification(t *testing.T) {
	const js = "application/json"
	e := func(code, description string) string {
		return fmt.Sprintf(`{"error":%q,"error_description":%q}`, code, description)
	}
	tests := map[string]struct {
		status      int
		contentType string
		body        string
		onRefresh   OAuthClass
		onExchange  OAuthClass
	}{
		"wrong secret, or dead token on the new backend": {400, js, e("unauthorized_client", "Invalid OAuth client credentials"), OAuthRefused, OAuthConsumerMisconfigured},
		"no Basic authentication":                        {400, js, e("unauthorized_client", "Requests must be authenticated using OAuth client credentials"), OAuthRefused, OAuthConsumerMisconfigured},
		"the same with 401":                              {401, js, e("unauthorized_client", ""), OAuthRefused, OAuthConsumerMisconfigured},
		"old backend":                                    {400, js, e("invalid_request", "Invalid refresh_token"), OAuthRefused, OAuthCodeRefused},
		"RFC 6749":                                       {400, js, e("invalid_grant", "whatever"), OAuthRefused, OAuthCodeRefused},
		"RFC 6749 client":                                {401, js, e("invalid_client", ""), OAuthConsumerMisconfigured, OAuthConsumerMisconfigured},
		"no callback URL":                                {400, js, e("invalid_request", "No callback uri defined for the OAuth client."), OAuthConsumerMisconfigured, OAuthConsumerMisconfigured},
		"another invalid_request":                        {400, js, e("invalid_request", "Something else"), OAuthTransient, OAuthCodeRefused},
		"an unknown code":                                {400, js, e("temporarily_unavailable", ""), OAuthTransient, OAuthCodeRefused},
		"refusal with 200":                               {200, js, e("invalid_grant", ""), OAuthRefused, OAuthCodeRefused},
		"429 JSON":                                       {429, js, e("unauthorized_client", ""), OAuthTransient, OAuthTransient},
		"429 text":                                       {429, "text/plain", "Rate limit for this resource has been exceeded", OAuthTransient, OAuthTransient},
		"500 JSON":                                       {500, js, e("invalid_grant", ""), OAuthTransient, OAuthTransient},
		"503 HTML":                                       {503, "text/html", "<html>error=invalid_grant</html>", OAuthTransient, OAuthTransient},
		"400 HTML":                                       {400, "text/html", "<html>Invalid redirect_uri</html>", OAuthTransient, OAuthTransient},
		"400 empty":                                      {400, js, "", OAuthTransient, OAuthTransient},
		"200 HTML":                                       {200, "text/html", "<html>planted-body</html>", OAuthTransient, OAuthTransient},
		"200 without a token":                            {200, js, `{"scope":"planted-body"}`, OAuthTransient, OAuthTransient},
		"200 cut short":                                  {200, js, `{"access_token":"planted-body`, OAuthTransient, OAuthTransient},
		"307 with the form":                              {307, "text/plain", "", OAuthTransient, OAuthTransient},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, func(w http.ResponseWriter, _ *http.Request) {
				if tt.status == 307 {
					w.Header().Set("Location", "/elsewhere")
				}
				answerText(w, tt.status, tt.contentType, tt.body)
			})
			o := s.oauth(t)
			_, refreshErr := o.Refresh(t.Context(), seal.NewSecret("planted-refresh"))
			_, exchangeErr := o.Exchange(t.Context(), "planted-code", "")
			for what, got := range map[string]struct {
				err  error
				want OAuthClass
			}{"refresh": {refreshErr, tt.onRefresh}, "exchange": {exchangeErr, tt.onExchange}} {
				var oe *OAuthError
				if !errors.As(got.err, &oe) || oe.Class != got.want || oe.Transient() != (got.want == OAuthTransient) {
					t.Errorf("%s: %v, want %s", what, got.err, got.want)
				}
				if strings.Contains(fmt.Sprintf("%+v %v", got.err, apierr.From(got.err)), "planted") {
					t.Errorf("%s: the error shows a secret: %v", what, got.err)
				}
			}
			if n := len(s.requests()); n != 2 {
				t.Errorf("%d requests, want 2: nothing may be spent twice", n)
			}
		})
	}
}

func TestOAuthError_API(t *testing.T) {
	tests := map[string]struct {
		err  *OAuthError
		want apierr.Reason
	}{
		"refused":       {&OAuthError{Class: OAuthRefused, Status: 400}, apierr.ReasonReconnectRequired},
		"code refused":  {&OAuthError{Class: OAuthCodeRefused}, apierr.ReasonHandshakeExpired},
		"misconfigured": {&OAuthError{Class: OAuthConsumerMisconfigured}, apierr.ReasonConsumerRefused},
		"429":           {&OAuthError{Status: 429, RetryAfter: time.Minute}, apierr.ReasonBitbucketRateLimited},
		"5xx":           {&OAuthError{Status: 503}, apierr.ReasonBitbucketUnavailable},
		"canceled":      {&OAuthError{cause: context.Canceled}, apierr.ReasonCanceled},
		"timed out":     {&OAuthError{cause: context.DeadlineExceeded}, apierr.ReasonBitbucketUnavailable},
	}
	for name, tt := range tests {
		if got := apierr.ReasonOf(fmt.Errorf("wrapped: %w", tt.err)); got != tt.want {
			t.Errorf("%s: reason = %s, want %s", name, got, tt.want)
		}
	}
	if got := apierr.From(&OAuthError{Status: 429, RetryAfter: time.Minute}).RetryAfter(); got != time.Minute {
		t.Errorf("retry after = %s", got)
	}
}

func TestOAuth_networkTroubleIsTransient(t *testing.T) {
	s := newServer(t, func(http.ResponseWriter, *http.Request) {})
	o := s.oauth(t)
	s.Close()
	var oe *OAuthError
	if _, err := o.Refresh(t.Context(), seal.NewSecret("r")); !errors.As(err, &oe) || !oe.Transient() || oe.Status != 0 {
		t.Errorf("err = %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := o.Refresh(ctx, seal.NewSecret("r")); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: err = %v", err)
	}
}
