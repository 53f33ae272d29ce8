package emulator

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"slices"
	"time"

	"devpilot.io/bitbucket/pkg/logs"
)

// hashToken is the key under which a token is stored; the token itself never is.
func hashToken(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// newToken makes an opaque token of the given length. It ends in "=", because clients must not take tokens for safe in
// URLs (BITBUCKET.md#token-endpoint).
func newToken(length int) string {
	raw := make([]byte, length)
	_, _ = rand.Read(raw) // crypto/rand.Read never fails
	return base64.URLEncoding.EncodeToString(raw)[:length-1] + "="
}

// TokenPair is what a token answer carries.
type TokenPair struct {
	AccessToken  string        `json:"access_token"`
	RefreshToken string        `json:"refresh_token"`
	ExpiresIn    time.Duration `json:"expires_in"`
	Scopes       []string      `json:"scopes"`
	GrantID      string        `json:"grant_id"`
}

// grantDead reports whether a grant was revoked or outlived TokenOptions.GrantTTL. Callers hold e.mu.
func (e *Emulator) grantDead(grant *Grant, now time.Time) bool {
	ttl := e.switches.Tokens.GrantTTL
	return !grant.RevokedAt.IsZero() || (ttl > 0 && now.Sub(grant.CreatedAt) >= ttl)
}

// newGrant records a consent and issues its first tokens. Callers hold e.mu for writing.
func (e *Emulator) newGrant(account string, scopes []string) (TokenPair, error) {
	now := e.nowLocked()
	grant := &Grant{ID: newUUID(), Account: account, Consumer: e.consumer.Key, Scopes: slices.Clone(scopes), CreatedAt: now}
	var changes []change
	if e.switches.Tokens.SharedGrants {
		for _, older := range e.st.grants {
			if older.Account == account && older.Consumer == grant.Consumer && older.RevokedAt.IsZero() {
				older.RevokedAt = now
				changes = append(changes, change{bucketGrants, older.ID, older})
			}
		}
	}
	e.st.grants[grant.ID] = grant
	changes = append(changes, change{bucketGrants, grant.ID, grant})
	pair, issued := e.issue(grant, "")
	return pair, e.store.write(append(changes, issued...)...)
}

// issue makes tokens for a grant and returns what to write. A non-empty keep is the refresh token to answer again,
// instead of a new one. Callers hold e.mu for writing.
func (e *Emulator) issue(grant *Grant, keep string) (TokenPair, []change) {
	now, options := e.nowLocked(), e.switches.Tokens
	pair := TokenPair{
		AccessToken: newToken(options.Length), RefreshToken: keep,
		ExpiresIn: options.AccessTTL, Scopes: grant.Scopes, GrantID: grant.ID,
	}
	access := &accessToken{Grant: grant.ID, ExpiresAt: now.Add(options.AccessTTL)}
	e.st.access[hashToken(pair.AccessToken)] = access
	changes := []change{{bucketAccess, hashToken(pair.AccessToken), access}}
	if keep == "" {
		pair.RefreshToken = newToken(options.Length)
		refresh := &refreshToken{Grant: grant.ID, LastUsed: now}
		e.st.refresh[hashToken(pair.RefreshToken)] = refresh
		changes = append(changes, change{bucketRefresh, hashToken(pair.RefreshToken), refresh})
	}
	return pair, changes
}

// exchangeCode spends an authorization code.
func (e *Emulator) exchangeCode(code, redirectURI string) (TokenPair, *oauthError) {
	e.mu.Lock()
	defer e.mu.Unlock()
	hash := hashToken(code)
	pending := e.st.codes[hash]
	if pending == nil || pending.Used || !e.nowLocked().Before(pending.ExpiresAt) {
		return TokenPair{}, &oauthError{"invalid_grant", "The specified code is not valid."}
	}
	// Whatever is wrong from here on, the code was shown and is spent.
	pending.Used = true
	if redirectURI != pending.RedirectURI && (pending.RedirectURI != "" || redirectURI != e.consumer.CallbackURL) {
		return TokenPair{}, &oauthError{"invalid_grant", "redirect_uri does not match the one of the authorization request."}
	}
	pair, err := e.newGrant(pending.Account, e.consumer.Scopes)
	if err != nil {
		e.opts.Logger.Error("grant not stored", logs.Err(err))
		return TokenPair{}, &oauthError{"server_error", "The grant could not be stored."}
	}
	e.journal.count(func(c *Counters) { c.CodeExchanges++ })
	return pair, nil
}

// refreshGrant spends a refresh token, by the rules of BITBUCKET.md#refresh and BITBUCKET.md#lock-out.
func (e *Emulator) refreshGrant(token string) (TokenPair, *oauthError) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now, options := e.nowLocked(), e.switches.Tokens
	hash := hashToken(token)
	known := e.st.refresh[hash]
	var grant *Grant
	if known != nil {
		grant = e.st.grants[known.Grant]
	}
	if options.LockOut && now.Before(e.st.lockedOutUntil) {
		e.refuseRefresh(grant, func(c *Counters) { c.RefreshesLockedOut++ })
		return TokenPair{}, errBadClient()
	}
	if grant == nil || e.grantDead(grant, now) || e.refreshDead(known, now) {
		if options.Families && grant != nil && !known.FirstUsed.IsZero() {
			grant.RevokedAt = now
		}
		e.refuseRefresh(grant, func(c *Counters) { c.RefreshesDead++ })
		e.st.lockedOutUntil = now.Add(options.LockOutFor)
		return TokenPair{}, deadRefreshToken(options.DeadTokenError)
	}
	keep := token
	if options.Rotate {
		keep = ""
		if known.FirstUsed.IsZero() {
			known.FirstUsed = now
		}
	}
	known.LastUsed = now
	grant.Refreshes++
	changes := e.revokeAccess(grant, now)
	pair, issued := e.issue(grant, keep)
	changes = append(append(changes, issued...), change{bucketRefresh, hash, known}, change{bucketGrants, grant.ID, grant})
	if err := e.store.write(changes...); err != nil {
		e.opts.Logger.Error("refresh not stored", logs.Err(err))
		return TokenPair{}, &oauthError{"server_error", "The tokens could not be stored."}
	}
	e.journal.count(func(c *Counters) { c.Refreshes++ })
	return pair, nil
}

// revokeAccess sets when the grant's access tokens of before a refresh end, if the switches say that they do. Callers
// hold e.mu for writing.
func (e *Emulator) revokeAccess(grant *Grant, now time.Time) (changes []change) {
	options := e.switches.Tokens
	if !options.RevokeAccess {
		return nil
	}
	for hash, token := range e.st.access {
		if token.Grant == grant.ID && token.RevokedAt.IsZero() {
			token.RevokedAt = now.Add(options.RevokeAccessAfter)
			changes = append(changes, change{bucketAccess, hash, token})
		}
	}
	return changes
}

// refreshDead reports whether a known refresh token no longer works: unused for too long, or used and past its grace.
func (e *Emulator) refreshDead(token *refreshToken, now time.Time) bool {
	options := e.switches.Tokens
	if now.Sub(token.LastUsed) >= options.IdleExpiry {
		return true
	}
	return options.Rotate && !token.FirstUsed.IsZero() && now.Sub(token.FirstUsed) >= options.Grace
}

// refuseRefresh counts a refusal, at the grant too if the token is known. Callers hold e.mu for writing.
func (e *Emulator) refuseRefresh(grant *Grant, count func(*Counters)) {
	e.journal.count(count)
	if grant == nil {
		return
	}
	grant.RefreshesRefused++
	if err := e.store.write(change{bucketGrants, grant.ID, grant}); err != nil {
		e.opts.Logger.Error("refusal not stored", logs.Err(err))
	}
}

func deadRefreshToken(style string) *oauthError {
	switch style {
	case "invalid_request":
		return &oauthError{"invalid_request", "Invalid refresh_token"}
	case "invalid_grant":
		return &oauthError{"invalid_grant", "The refresh token is invalid or expired."}
	default:
		return errBadClient()
	}
}

// revokeGrant kills a grant and its tokens, as the account's owner does in the settings.
func (e *Emulator) revokeGrant(id string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	grant := e.st.grants[id]
	if grant == nil {
		return false
	}
	grant.RevokedAt = e.nowLocked()
	if err := e.store.write(change{bucketGrants, id, grant}); err != nil {
		e.opts.Logger.Error("revocation not stored", logs.Err(err))
	}
	return true
}

// expireTokens makes the access tokens of a grant (all grants for "") expired; with refresh, their refresh tokens have
// been idle for too long as well. It returns how many access tokens it expired.
func (e *Emulator) expireTokens(grantID string, refresh bool) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now, count := e.nowLocked(), 0
	var changes []change
	for hash, token := range e.st.access {
		if (grantID == "" || token.Grant == grantID) && now.Before(token.ExpiresAt) {
			token.ExpiresAt = now
			changes = append(changes, change{bucketAccess, hash, token})
			count++
		}
	}
	for hash, token := range e.st.refresh {
		if refresh && (grantID == "" || token.Grant == grantID) {
			token.LastUsed = now.Add(-e.switches.Tokens.IdleExpiry)
			changes = append(changes, change{bucketRefresh, hash, token})
		}
	}
	return count, e.store.write(changes...)
}
