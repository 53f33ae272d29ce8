package emulator

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"devpilot.io/bitbucket/pkg/logs"
)

// maxBody caps what is read of a request of the REST API.
const maxBody = 1 << 20

// Scope names of OAuth consumers (BITBUCKET.md#scopes).
const (
	scopeAccount    = "account"
	scopeEmail      = "email"
	scopeRepository = "repository"
	scopeWrite      = "repository:write"
	scopeWebhook    = "webhook"
)

// Rate limit buckets (BITBUCKET.md#budgets).
const (
	bucketRepositoriesAPI = "repositories"
	bucketWebhooksAPI     = "webhooks"
)

// call is one request of the REST API with its caller. account and grant are nil for anonymous callers. They, and all
// else reached through e.st, may only be read under e.mu.
type call struct {
	e        *Emulator
	r        *http.Request
	x        *exchange
	p        params
	query    url.Values
	account  *Account
	grant    *Grant
	scopes   []string
	switches Switches
}

func (e *Emulator) addAPIRoutes(table *routes) {
	api := func(method, pattern string, handler func(*call) response, options ...func(*route)) {
		rt := route{method: method, pattern: "/2.0" + pattern, api: handler, delayed: true, user: true}
		for _, option := range options {
			option(&rt)
		}
		table.add(rt)
	}
	scopes := func(names ...string) func(*route) { return func(rt *route) { rt.scopes = names } }
	anonymous := func(rt *route) { rt.user = false }
	bucket := func(name string) func(*route) { return func(rt *route) { rt.bucket = name } }

	for _, dead := range []string{"/repositories", "/user/permissions/repositories", "/workspaces", "/user/permissions/workspaces"} {
		api("GET", dead, func(*call) response { return gone() }, anonymous)
	}
	api("GET", "/user", (*call).getUser, scopes(scopeAccount))
	api("GET", "/user/emails", (*call).listEmails, scopes(scopeEmail))
	api("GET", "/user/workspaces", (*call).listWorkspaces, scopes(scopeAccount))
	api("GET", "/user/workspaces/{workspace}/permission", (*call).getWorkspacePermission, scopes(scopeAccount))
	api("GET", "/user/workspaces/{workspace}/permissions/repositories", (*call).listPermissions, scopes(scopeAccount, scopeRepository))
	api("GET", "/workspaces/{workspace}", (*call).getWorkspace, anonymous)
	api("GET", "/hook_events/repository", (*call).listHookEvents, anonymous)

	repositories := bucket(bucketRepositoriesAPI)
	api("GET", "/repositories/{workspace}", (*call).listRepositories, scopes(scopeRepository), anonymous, repositories)
	one := "/repositories/{workspace}/{repository}"
	api("GET", one, (*call).getRepository, scopes(scopeRepository), anonymous, repositories)
	api("GET", one+"/refs/branches", (*call).listBranches, scopes(scopeRepository), anonymous, repositories)
	api("GET", one+"/refs/branches/{branch...}", (*call).getBranch, scopes(scopeRepository), anonymous, repositories)
	api("GET", one+"/refs/tags", (*call).listTags, scopes(scopeRepository), anonymous, repositories)
	api("GET", one+"/refs/tags/{tag...}", (*call).getTag, scopes(scopeRepository), anonymous, repositories)
	api("GET", one+"/commits", (*call).listCommits, scopes(scopeRepository), anonymous, repositories)
	api("GET", one+"/commits/{revision...}", (*call).listCommits, scopes(scopeRepository), anonymous, repositories)
	api("GET", one+"/src/{commit}/", (*call).listSource, scopes(scopeRepository), anonymous, repositories)
	api("GET", one+"/commit/{commit}", (*call).getCommit, scopes(scopeRepository), anonymous, repositories)

	statuses := one + "/commit/{commit}/statuses"
	api("GET", statuses, (*call).listStatuses, scopes(scopeRepository), anonymous, repositories)
	api("POST", statuses+"/build", (*call).createStatus, scopes(scopeRepository), repositories)
	api("GET", statuses+"/build/{key}", (*call).getStatus, scopes(scopeRepository), anonymous, repositories)
	api("PUT", statuses+"/build/{key}", (*call).updateStatus, scopes(scopeRepository), repositories)

	webhooks := bucket(bucketWebhooksAPI)
	api("GET", one+"/hooks", (*call).listHooks, scopes(scopeWebhook), webhooks)
	api("POST", one+"/hooks", (*call).createHook, scopes(scopeWebhook, scopeRepository), webhooks)
	api("GET", one+"/hooks/{hook}", (*call).getHook, scopes(scopeWebhook), webhooks)
	api("PUT", one+"/hooks/{hook}", (*call).updateHook, scopes(scopeWebhook, scopeRepository), webhooks)
	api("DELETE", one+"/hooks/{hook}", (*call).deleteHook, scopes(scopeWebhook), webhooks)
}

// serveAPI authenticates, checks budget and scopes, and sends what the handler answers with the headers of BITBUCKET.md#answers.
func (e *Emulator) serveAPI(w http.ResponseWriter, r *http.Request, rt *route, p params) {
	c := &call{e: e, r: r, x: exchangeOf(r), p: p, query: r.URL.Query(), switches: e.currentSwitches()}
	answer := c.answer(rt)
	header := w.Header()
	header.Set("Server", "nginx")
	header.Set("Vary", "Authorization, Origin, cookie, user-context, Accept-Encoding")
	header.Set("Cache-Control", "private")
	header.Set("X-Served-By", "bitbucket-emulator")
	header.Set("X-View-Name", rt.pattern)
	header.Set("X-Request-Count", "1")
	header.Set("X-B3-TraceId", randomHex(16))
	header.Set("X-Accepted-OAuth-Scopes", strings.Join(rt.scopes, ", "))
	if c.account != nil {
		header.Set("X-OAuth-Scopes", strings.Join(c.scopes, ", "))
		header.Set("X-Credential-Type", "oauth2")
		c.x.record.Account = c.account.Username
	}
	if fields := c.query.Get("fields"); fields != "" && answer.status == http.StatusOK {
		answer.body = selectFields(answer.body, fields)
	}
	e.send(w, answer)
}

func (c *call) answer(rt *route) response {
	if refused, bad := c.authenticate(); bad {
		return refused
	}
	if c.account == nil && rt.user {
		return failure(http.StatusUnauthorized, msgTokenInvalid)
	}
	if answer, over := c.limited(rt.bucket); over {
		return answer
	}
	if c.account != nil && !hasScopes(c.scopes, rt.scopes) {
		return missingScope(c.scopes, rt.scopes)
	}
	return rt.api(c)
}

// authenticate accepts an OAuth token in the Authorization header and nowhere else (BITBUCKET.md#presenting-a-token).
func (c *call) authenticate() (response, bool) {
	header := c.r.Header.Get("Authorization")
	if header == "" {
		return response{}, false
	}
	token, isBearer := cutPrefixFold(header, "Bearer ")
	if !isBearer {
		return unauthorizedBasic(), true
	}
	account, grant, err := c.e.checkToken(strings.TrimSpace(token))
	if err != nil {
		return failure(http.StatusUnauthorized, err.Error()), true
	}
	c.account, c.grant, c.scopes = account, grant, grant.Scopes
	return response{}, false
}

// refusal is an error whose text goes to the client as it is.
type refusal string

func (r refusal) Error() string { return string(r) }

const (
	errTokenInvalid    refusal = msgTokenInvalid
	errTokenExpired    refusal = msgTokenExpired
	errTokenExpiredOld refusal = msgTokenExpiredOld
)

// checkToken finds whom an access token stands for.
func (e *Emulator) checkToken(token string) (*Account, *Grant, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	known := e.st.access[hashToken(token)]
	if known == nil {
		return nil, nil, errTokenInvalid
	}
	grant := e.st.grants[known.Grant]
	now := e.nowLocked()
	if grant == nil || e.grantDead(grant, now) || e.st.accounts[grant.Account] == nil {
		return nil, nil, errTokenInvalid
	}
	if !known.RevokedAt.IsZero() && !now.Before(known.RevokedAt) {
		return nil, nil, errTokenInvalid
	}
	if !now.Before(known.ExpiresAt) {
		if e.switches.Tokens.OldExpiredWording {
			return nil, nil, errTokenExpiredOld
		}
		return nil, nil, errTokenExpired
	}
	return e.st.accounts[grant.Account], grant, nil
}

// hasScopes reports whether the granted scopes cover the required ones, with the implications of BITBUCKET.md#scopes.
func hasScopes(granted, required []string) bool {
	for _, need := range required {
		covered := slices.ContainsFunc(granted, func(have string) bool {
			return have == need || have == need+":write" ||
				(need == scopeRepository && strings.HasPrefix(have, "pullrequest"))
		})
		if !covered {
			return false
		}
	}
	return true
}

// decode reads a JSON body. The failure is the bare text of BITBUCKET.md#webhook-errors.
func (c *call) decode(into any) (response, bool) {
	mediaType, _, err := mime.ParseMediaType(c.r.Header.Get("Content-Type"))
	if err != nil || mediaType != "application/json" {
		return plain(http.StatusBadRequest, "Bad Request"), false
	}
	body, err := io.ReadAll(http.MaxBytesReader(nil, c.r.Body, maxBody))
	if err != nil || json.Unmarshal(body, into) != nil {
		return plain(http.StatusBadRequest, "Bad Request"), false
	}
	return response{}, true
}

// internal logs an emulator's own failure and answers 500.
func (e *Emulator) internal(what string, err error) response {
	e.opts.Logger.Error("request failed", "what", what, logs.Err(err)) //nolint:sloglint // one attribute of ours among the request's
	return failure(http.StatusInternalServerError, "Something went wrong")
}

func cutPrefixFold(s, prefix string) (string, bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return s, false
	}
	return s[len(prefix):], true
}

func randomHex(bytes int) string {
	raw := make([]byte, bytes)
	_, _ = rand.Read(raw) // crypto/rand.Read never fails
	return hex.EncodeToString(raw)
}
