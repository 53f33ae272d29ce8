package emulator

import (
	"net/http"
	"net/url"
	"strings"
)

const sessionCookie = "emulator_session"

// authorizeRequest is a checked authorize request.
type authorizeRequest struct {
	consumer    Consumer
	redirectURI string // as sent; may be empty
	callback    string // where the browser goes in the end
	state       string
	hasState    bool
}

// checkAuthorize holds the request to BITBUCKET.md#authorize. PKCE is not offered: its parameters mean nothing, here and
// where the code is spent (BITBUCKET.md#authorize). On failure it has answered with an error page: Bitbucket
// does not redirect to a callback it does not know.
func (e *Emulator) checkAuthorize(w http.ResponseWriter, r *http.Request) (authorizeRequest, bool) {
	query := r.URL.Query()
	e.mu.RLock()
	consumer := e.consumer
	e.mu.RUnlock()
	request := authorizeRequest{
		consumer: consumer, redirectURI: query.Get("redirect_uri"), callback: consumer.CallbackURL,
		state: query.Get("state"), hasState: query.Has("state"),
	}
	switch {
	case query.Get("client_id") != consumer.Key:
		e.errorPage(w, http.StatusBadRequest, "Invalid client_id",
			"This integration is misconfigured: no OAuth consumer has this key. Contact the vendor of the integration.")
	case consumer.CallbackURL == "":
		e.errorPage(w, http.StatusBadRequest, "Invalid redirect_uri",
			"This integration is misconfigured: no callback uri is defined for the OAuth client. Contact the vendor of the integration.")
	case query.Has("redirect_uri") && request.redirectURI != consumer.CallbackURL:
		e.errorPage(w, http.StatusBadRequest, "Invalid redirect_uri",
			"This integration is misconfigured: its redirect_uri does not match the callback URL of its OAuth consumer. Contact the vendor of the integration.")
	case query.Get("response_type") != "code":
		request.redirect(w, r, url.Values{"error": {"unsupported_response_type"},
			"error_description": {"The emulator knows response_type code only."}})
	default:
		return request, true
	}
	return authorizeRequest{}, false
}

// redirect sends the browser back with the parameters and the state.
func (a *authorizeRequest) redirect(w http.ResponseWriter, r *http.Request, parameters url.Values) {
	if a.hasState {
		parameters.Set("state", a.state)
	}
	separator := "?"
	if strings.Contains(a.callback, "?") {
		separator = "&"
	}
	http.Redirect(w, r, a.callback+separator+parameters.Encode(), http.StatusFound)
}

// serveAuthorize shows the account choice, then the consent page.
func (e *Emulator) serveAuthorize(w http.ResponseWriter, r *http.Request, _ params) {
	request, valid := e.checkAuthorize(w, r)
	if !valid {
		return
	}
	account := e.signedIn(r)
	if account != nil && e.currentSwitches().SkipConsent && e.consented(account, request.consumer) {
		e.grantCode(w, r, request, account)
		return
	}
	e.consentPage(w, http.StatusOK, request, account, "")
}

// serveConsent takes the form of the consent page; its fields are in the package comment.
func (e *Emulator) serveConsent(w http.ResponseWriter, r *http.Request, _ params) {
	request, valid := e.checkAuthorize(w, r)
	if !valid {
		return
	}
	form := readForm(w, r)
	account := e.signedIn(r)
	if name := form.Get("account"); name != "" {
		e.mu.RLock()
		account = e.st.accountByName(name)
		e.mu.RUnlock()
		if account == nil {
			e.consentPage(w, http.StatusBadRequest, request, nil, "There is no account "+name+".")
			return
		}
		e.signIn(w, account.UUID)
	}
	switch action := form.Get("action"); {
	case action == "switch":
		e.signIn(w, "")
		http.Redirect(w, r, r.URL.RequestURI(), http.StatusSeeOther)
	case action == "" && account != nil:
		http.Redirect(w, r, r.URL.RequestURI(), http.StatusSeeOther)
	case account == nil:
		e.consentPage(w, http.StatusBadRequest, request, nil, "Choose an account first.")
	case action == "grant":
		e.grantCode(w, r, request, account)
	case action == "cancel":
		request.redirect(w, r, url.Values{"error": {"access_denied"}, "error_description": {"The user denied access."}})
	default:
		e.consentPage(w, http.StatusBadRequest, request, account, "Press one of the buttons.")
	}
}

// grantCode issues an authorization code and goes back to the callback.
func (e *Emulator) grantCode(w http.ResponseWriter, r *http.Request, request authorizeRequest, account *Account) {
	code := randomHex(9)
	e.mu.Lock()
	now := e.nowLocked()
	for hash, old := range e.st.codes {
		if now.After(old.ExpiresAt) {
			delete(e.st.codes, hash)
		}
	}
	e.st.codes[hashToken(code)] = &authCode{
		Account: account.UUID, RedirectURI: request.redirectURI, ExpiresAt: now.Add(e.switches.Tokens.CodeTTL),
	}
	e.mu.Unlock()
	exchangeOf(r).record.Account = account.Username
	request.redirect(w, r, url.Values{"code": {code}})
}

// consented reports whether the account has a live grant with exactly the consumer's scopes.
func (e *Emulator) consented(account *Account, consumer Consumer) bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	for _, grant := range e.st.grants {
		if grant.Account == account.UUID && grant.Consumer == consumer.Key && !e.grantDead(grant, e.nowLocked()) &&
			hasScopes(grant.Scopes, consumer.Scopes) {
			return true
		}
	}
	return false
}

// signedIn is who chose an account in this browser; nil if nobody did.
func (e *Emulator) signedIn(r *http.Request) *Account {
	cookie, err := r.Cookie(sessionCookie)
	if err != nil {
		return nil
	}
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.st.accounts[cookie.Value]
}

// signIn remembers the account; an empty one forgets it. The cookie is no secret: on the emulator everyone may be anyone.
func (e *Emulator) signIn(w http.ResponseWriter, account string) {
	maxAge := 30 * 24 * 3600
	if account == "" {
		maxAge = -1
	}
	http.SetCookie(w, &http.Cookie{
		Name: sessionCookie, Value: account, Path: "/", MaxAge: maxAge,
		HttpOnly: true, Secure: e.site.Scheme == "https", SameSite: http.SameSiteLaxMode,
	})
}
