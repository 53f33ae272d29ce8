package emulator_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
)

func (f *fixture) authorizeURL(parameters ...string) string {
	query := url.Values{"client_id": {emulator.DefaultConsumer().Key}, "response_type": {"code"}, "state": {"the state"}}
	for i := 0; i+1 < len(parameters); i += 2 {
		query.Set(parameters[i], parameters[i+1])
		if parameters[i+1] == "" {
			query.Del(parameters[i])
		}
	}
	return f.server.SiteURL() + "/site/oauth2/authorize?" + query.Encode()
}

// code goes through the consent page and returns the code of the callback.
func (f *fixture) code(parameters ...string) string {
	f.t.Helper()
	location, err := f.control.Consent(f.t.Context(), f.authorizeURL(parameters...), "jane-dev", true)
	f.must(err)
	callback, err := url.Parse(location)
	f.must(err)
	return callback.Query().Get("code")
}

func TestAuthorize_wrongRequestsGetAPageAndNoRedirect(t *testing.T) {
	t.Parallel()
	f := start(t)
	for _, tc := range []struct{ name, page, parameter, value string }{
		{"other callback", "Invalid redirect_uri", "redirect_uri", "https://evil.example.test/callback"},
		{"longer path is no match", "Invalid redirect_uri", "redirect_uri", callbackURL + "/more"},
		{"query added", "Invalid redirect_uri", "redirect_uri", callbackURL + "?a=b"},
		{"unknown consumer", "Invalid client_id", "client_id", "nobody"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := f.call("GET", f.authorizeURL(tc.parameter, tc.value), "", nil).want(t, 400)
			if a.Header.Get("Location") != "" || !strings.Contains(string(a.raw), "<h1>"+tc.page+"</h1>") ||
				!strings.HasPrefix(a.Header.Get("Content-Type"), "text/html") {
				t.Errorf("got %v %s", a.Header, a.raw)
			}
			if _, err := f.control.Consent(t.Context(), f.authorizeURL(tc.parameter, tc.value), "jane-dev", true); err == nil {
				t.Error("the form was accepted")
			}
		})
	}
}

func TestAuthorize_personChoosesAccountThenGrants(t *testing.T) {
	t.Parallel()
	f := start(t)
	jar, err := cookiejar.New(nil)
	f.must(err)
	f.client.Jar = jar
	target := f.authorizeURL("redirect_uri", callbackURL)
	post := func(values url.Values) *answer {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, target, strings.NewReader(values.Encode()))
		f.must(err)
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		return f.send(request)
	}
	page := f.call("GET", target, "", nil).want(t, 200)
	if !bytes.Contains(page.raw, []byte(`name="account" value="jane-dev"`)) {
		t.Fatalf("no account choice in %s", page.raw)
	}
	post(url.Values{"account": {"jane-dev"}}).want(t, 303)
	page = f.call("GET", target, "", nil).want(t, 200)
	for _, text := range []string{"Jane Developer", "<code>webhook</code>", "Grant access", "Cancel"} {
		if !bytes.Contains(page.raw, []byte(text)) {
			t.Errorf("%q is not on the consent page", text)
		}
	}
	granted := post(url.Values{"action": {"grant"}}).want(t, 302)
	location, err := granted.Location()
	f.must(err)
	if location.Query().Get("state") != "the state" || location.Query().Get("code") == "" || !strings.HasPrefix(location.String(), callbackURL+"?") {
		t.Errorf("redirected to %s", location)
	}
	f.must(f.control.Switch(t.Context(), func(s *emulator.Switches) { s.SkipConsent = true }))
	f.form(url.Values{"grant_type": {"authorization_code"}, "code": {location.Query().Get("code")}, "redirect_uri": {callbackURL}}).want(t, 200)
	f.call("GET", target, "", nil).want(t, 302)
}

func TestAuthorize_crossSiteFormIsRefused(t *testing.T) {
	t.Parallel()
	f := start(t)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.authorizeURL(), strings.NewReader("account=jane-dev&action=grant"))
	f.must(err)
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set("Sec-Fetch-Site", "cross-site")
	f.send(request).want(t, 403)
}

func TestAuthorize_cancelComesBackAsAccessDenied(t *testing.T) {
	t.Parallel()
	f := start(t)
	location, err := f.control.Consent(t.Context(), f.authorizeURL(), "jane-dev", false)
	f.must(err)
	callback, err := url.Parse(location)
	f.must(err)
	query := callback.Query()
	if query.Get("error") != "access_denied" || query.Get("state") != "the state" || query.Get("error_description") == "" || query.Has("code") {
		t.Errorf("redirected to %s", location)
	}
}

func TestExchange_answersWithTheShapeOfSection1_4(t *testing.T) {
	t.Parallel()
	f := start(t)
	code := f.code("redirect_uri", callbackURL)
	a := f.form(url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {callbackURL}}).want(t, 200)
	if a.json["token_type"] != "bearer" || a.json["expires_in"] != 7200.0 || a.json["state"] != "authorization_code" ||
		a.json["scope"] != "account email repository webhook" || has(a.json, "scopes") || a.Header.Get("Content-Type") != "application/json; charset=utf-8" {
		t.Errorf("got %s", a.raw)
	}
	for _, name := range []string{"access_token", "refresh_token"} {
		if token, _ := a.json[name].(string); len(token) < 2600 || !strings.HasSuffix(token, "=") {
			t.Errorf("%s has %d characters", name, len(token))
		}
	}
	f.call("GET", "/user", a.json["access_token"].(string), nil).want(t, 200)
	again := f.form(url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {callbackURL}}).want(t, 400)
	if again.json["error"] != "invalid_grant" {
		t.Errorf("second use: %s", again.raw)
	}
}

func TestExchange_codeIsBoundToRedirectAndTime(t *testing.T) {
	t.Parallel()
	f := start(t)
	exchange := func(code string, more ...string) *answer {
		values := url.Values{"grant_type": {"authorization_code"}, "code": {code}}
		for i := 0; i < len(more); i += 2 {
			values.Set(more[i], more[i+1])
		}
		return f.form(values)
	}
	invalid := func(a *answer) {
		t.Helper()
		if a.want(t, 400); a.json["error"] != "invalid_grant" {
			t.Errorf("got %s", a.raw)
		}
	}
	invalid(exchange(f.code("redirect_uri", callbackURL)))
	invalid(exchange(f.code(), "redirect_uri", "https://other.example.test"))
	exchange(f.code()).want(t, 200)
	exchange(f.code(), "redirect_uri", callbackURL).want(t, 200)

	late := f.code()
	f.must(f.control.AdvanceClock(t.Context(), 10*time.Minute))
	invalid(exchange(late))
}

// TestExchange_ignoresPKCE: Bitbucket does not offer it, so no verifier, and a wrong one, buy the tokens as well.
func TestExchange_ignoresPKCE(t *testing.T) {
	t.Parallel()
	f := start(t)
	sum := sha256.Sum256([]byte("the verifier"))
	challenge := base64.RawURLEncoding.EncodeToString(sum[:])
	for _, method := range []string{"S256", "plain", "", "S512"} {
		for _, verifier := range []string{"the verifier", "another", ""} {
			code := f.code("code_challenge", challenge, "code_challenge_method", method)
			f.form(url.Values{"grant_type": {"authorization_code"}, "code": {code}, "code_verifier": {verifier}}).want(t, 200)
		}
	}
	f.form(url.Values{"grant_type": {"authorization_code"}, "code": {f.code()}, "code_verifier": {"never announced"}}).want(t, 200)
}

// TestTokenEndpoint_errors is the table of BITBUCKET.md#token-errors, by its wire values.
func TestTokenEndpoint_errors(t *testing.T) {
	t.Parallel()
	f := start(t)
	consumer := emulator.DefaultConsumer()
	const form = "application/x-www-form-urlencoded"
	for _, tc := range []struct {
		name, user, password, contentType, body, code, description string
	}{
		{"wrong secret", consumer.Key, "wrong", form, "grant_type=refresh_token&refresh_token=x", "unauthorized_client", "Invalid OAuth client credentials"},
		{"wrong key", "wrong", consumer.Secret, form, "grant_type=refresh_token&refresh_token=x", "unauthorized_client", "Invalid OAuth client credentials"},
		{"no Basic", "", "", form, "grant_type=refresh_token&client_id=" + consumer.Key + "&client_secret=" + consumer.Secret, "unauthorized_client", "Requests must be authenticated using OAuth client credentials"},
		{"dead refresh token", consumer.Key, consumer.Secret, form, "grant_type=refresh_token&refresh_token=x", "unauthorized_client", "Invalid OAuth client credentials"},
		{"unknown grant type", consumer.Key, consumer.Secret, form, "grant_type=magic", "invalid_grant", "Unsupported grant type: None"},
		{"no grant type", consumer.Key, consumer.Secret, form, "", "invalid_grant", "Unsupported grant type: None"},
		{"JSON body", consumer.Key, consumer.Secret, "application/json", `{"grant_type":"refresh_token"}`, "invalid_grant", "Unsupported grant type: None"},
		{"bad code", consumer.Key, consumer.Secret, form, "grant_type=authorization_code&code=x", "invalid_grant", "The specified code is not valid."},
	} {
		t.Run(tc.name, func(t *testing.T) {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.server.SiteURL()+"/site/oauth2/access_token", strings.NewReader(tc.body))
			f.must(err)
			request.Header.Set("Content-Type", tc.contentType)
			if tc.user != "" {
				request.SetBasicAuth(tc.user, tc.password)
			}
			a := f.send(request).want(t, 400)
			if a.json["error"] != tc.code || a.json["error_description"] != tc.description {
				t.Errorf("got %s", a.raw)
			}
		})
	}
	f.must(f.control.SetCallbackURL(t.Context(), ""))
	if a := f.refresh("x").want(t, 400); a.json["error"] != "invalid_request" || a.json["error_description"] != "No callback uri defined for the OAuth client." {
		t.Errorf("consumer without callback: %s", a.raw)
	}
	f.call("GET", f.authorizeURL(), "", nil).want(t, 400)
}

func TestTokenEndpoint_deadTokenStylesOfBothBackends(t *testing.T) {
	t.Parallel()
	f := start(t)
	for style, description := range map[string]string{
		"invalid_request": "Invalid refresh_token", "invalid_grant": "The refresh token is invalid or expired.",
	} {
		f.must(f.control.Switch(t.Context(), func(s *emulator.Switches) { s.Tokens.DeadTokenError = style }))
		if a := f.refresh("x").want(t, 400); a.json["error"] != style || a.json["error_description"] != description {
			t.Errorf("got %s", a.raw)
		}
	}
}

func TestRefresh_rotatesAndKillsTheUsedToken(t *testing.T) {
	t.Parallel()
	f := start(t)
	first := f.tokens("jane-dev")
	a := f.refresh(first.RefreshToken).want(t, 200)
	second := a.json["refresh_token"].(string)
	if second == first.RefreshToken || a.json["state"] != "refresh_token" {
		t.Fatalf("got %s", a.raw)
	}
	f.refresh(first.RefreshToken).want(t, 400)
	// Reuse of an old token does not revoke the family, and access tokens issued before stay valid (BITBUCKET.md#refresh).
	f.refresh(second).want(t, 200)
	f.call("GET", "/user", first.AccessToken, nil).want(t, 200)

	state, err := f.control.State(t.Context())
	f.must(err)
	if len(state.Grants) != 1 || state.Grants[0].Refreshes != 2 || state.Grants[0].RefreshesRefused != 1 {
		t.Errorf("grants: %+v", state.Grants)
	}
	counters, err := f.control.Counters(t.Context())
	f.must(err)
	if counters.Refreshes != 2 || counters.RefreshesDead != 1 {
		t.Errorf("counters: %+v", counters)
	}
}

func TestRefresh_graceKeepsTheUsedTokenForAWhile(t *testing.T) {
	t.Parallel()
	f := start(t, func(o *emulator.Options) { o.Tokens = emulator.TokenOptions{Rotate: true, Grace: 10 * time.Minute} })
	first := f.tokens("jane-dev")
	f.refresh(first.RefreshToken).want(t, 200)
	f.must(f.control.AdvanceClock(t.Context(), 9*time.Minute))
	again := f.refresh(first.RefreshToken).want(t, 200)
	// The grace counts from the first use: using the token again does not prolong it.
	f.must(f.control.AdvanceClock(t.Context(), time.Minute))
	f.refresh(first.RefreshToken).want(t, 400)
	f.refresh(again.json["refresh_token"].(string)).want(t, 200)
}

func TestRefresh_withoutRotationTheSameTokenComesBack(t *testing.T) {
	t.Parallel()
	f := start(t, func(o *emulator.Options) { o.Tokens = emulator.TokenOptions{Grace: time.Second, ScopeField: "scopes"} })
	first := f.tokens("jane-dev")
	for range 3 {
		a := f.refresh(first.RefreshToken).want(t, 200)
		if a.json["refresh_token"] != first.RefreshToken || a.json["access_token"] == first.AccessToken {
			t.Fatal("the refresh token changed, or the access token did not")
		}
		if a.json["scopes"] != "account email repository webhook" || has(a.json, "scope") {
			t.Errorf("old scope field: %v", a.json["scopes"])
		}
	}
}

func TestRefresh_lockOutHitsValidTokensOfTheConsumer(t *testing.T) {
	t.Parallel()
	f := start(t, func(o *emulator.Options) { o.Tokens = emulator.TokenOptions{Rotate: true, LockOut: true} })
	valid := f.tokens("acme-admin")
	f.refresh("dead").want(t, 400)
	if a := f.refresh(valid.RefreshToken).want(t, 400); a.json["error"] != "unauthorized_client" {
		t.Errorf("during the lock-out: %s", a.raw)
	}
	f.must(f.control.AdvanceClock(t.Context(), 3*time.Minute))
	f.refresh(valid.RefreshToken).want(t, 200)
	counters, err := f.control.Counters(t.Context())
	f.must(err)
	if counters.RefreshesLockedOut != 1 || counters.RefreshesDead != 1 {
		t.Errorf("counters: %+v", counters)
	}
}

func TestRefresh_idleTokenDiesAfterThreeMonths(t *testing.T) {
	t.Parallel()
	f := start(t)
	used, idle := f.tokens("jane-dev"), f.tokens("acme-admin")
	f.must(f.control.AdvanceClock(t.Context(), 60*24*time.Hour))
	a := f.refresh(used.RefreshToken).want(t, 200)
	f.must(f.control.AdvanceClock(t.Context(), 30*24*time.Hour))
	f.refresh(idle.RefreshToken).want(t, 400)
	f.refresh(a.json["refresh_token"].(string)).want(t, 200)
}

func TestGrants_independentUnlessShared(t *testing.T) {
	t.Parallel()
	f := start(t)
	first, second := f.tokens("jane-dev"), f.tokens("jane-dev")
	f.refresh(second.RefreshToken).want(t, 200)
	f.refresh(first.RefreshToken).want(t, 200)
	f.must(f.control.Switch(t.Context(), func(s *emulator.Switches) { s.Tokens.SharedGrants = true }))
	other, older := f.tokens("acme-admin"), f.tokens("jane-dev")
	f.tokens("jane-dev")
	f.refresh(older.RefreshToken).want(t, 400)
	f.refresh(other.RefreshToken).want(t, 200)
}

func TestTokens_badOnesAreRefusedInTheRecordedWordings(t *testing.T) {
	t.Parallel()
	f := start(t)
	const invalid = "Token is invalid, expired, or not supported for this endpoint."
	pair := f.tokens("jane-dev")
	f.call("GET", "/user", "garbage", nil).want(t, 401, invalid)
	f.call("GET", "/user", "", nil).want(t, 401, invalid)
	f.call("GET", "/user?access_token="+url.QueryEscape(pair.AccessToken), "", nil).want(t, 401, invalid)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, f.server.APIURL()+"/user", nil)
	f.must(err)
	request.SetBasicAuth("jane-dev", "wrong")
	if a := f.send(request).want(t, 401); a.Header.Get("WWW-Authenticate") != `Basic realm="Bitbucket.org HTTP"` || !strings.HasPrefix(a.Header.Get("Content-Type"), "text/plain") {
		t.Errorf("Basic: %v", a.Header)
	}

	if count, err := f.control.ExpireTokens(t.Context(), pair.GrantID); err != nil || count != 1 {
		t.Fatalf("expired %d tokens: %v", count, err)
	}
	f.call("GET", "/user", pair.AccessToken, nil).want(t, 401, "OAuth2 access token expired. Use your refresh token to obtain a new access token.")
	f.must(f.control.Switch(t.Context(), func(s *emulator.Switches) { s.Tokens.OldExpiredWording = true }))
	f.call("GET", "/user", pair.AccessToken, nil).want(t, 401, "Access token expired. Use your refresh token to obtain a new access token.")

	fresh := f.refresh(pair.RefreshToken).want(t, 200).json["access_token"].(string)
	f.call("GET", "/user", fresh, nil).want(t, 200)
	f.must(f.control.RevokeGrant(t.Context(), pair.GrantID))
	f.call("GET", "/user", fresh, nil).want(t, 401, invalid)
	records, err := f.control.Requests(t.Context(), 0, "GET /2.0/user")
	f.must(err)
	for _, record := range records {
		if strings.Contains(record.Query, "access_token") {
			t.Error("the journal kept a token of a query")
		}
	}
}

func TestConsumer_untickedScopesCountForNewGrantsOnly(t *testing.T) {
	t.Parallel()
	f := start(t)
	old := f.tokens("jane-dev")
	f.must(f.control.SetScopes(t.Context(), "account", "repository"))
	a := f.form(url.Values{"grant_type": {"authorization_code"}, "code": {f.code()}}).want(t, 200)
	if a.json["scope"] != "account repository" {
		t.Errorf("scope %v", a.json["scope"])
	}
	if a := f.refresh(old.RefreshToken).want(t, 200); a.json["scope"] != "account email repository webhook" {
		t.Errorf("refreshed scope %v", a.json["scope"])
	}
}

// TestRefresh_concurrentUsesOfOneTokenSpendItOnce races twenty refreshes with the same token.
func TestRefresh_concurrentUsesOfOneTokenSpendItOnce(t *testing.T) {
	t.Parallel()
	f := start(t)
	pair := f.tokens("jane-dev")
	statuses := make(chan int, 20)
	for range cap(statuses) {
		go func() {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.server.SiteURL()+"/site/oauth2/access_token",
				strings.NewReader(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {pair.RefreshToken}}.Encode()))
			if err != nil {
				t.Error(err)
				statuses <- 0
				return
			}
			request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			consumer := emulator.DefaultConsumer()
			request.SetBasicAuth(consumer.Key, consumer.Secret)
			response, err := f.client.Do(request)
			if err != nil {
				t.Error(err)
				statuses <- 0
				return
			}
			_ = response.Body.Close()
			statuses <- response.StatusCode
		}()
	}
	count := map[int]int{}
	for range cap(statuses) {
		count[<-statuses]++
	}
	if count[http.StatusOK] != 1 || count[http.StatusBadRequest] != 19 {
		t.Errorf("statuses %v", count)
	}
}
