package emulator

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"devpilot.io/bitbucket/pkg/logs"
)

// Routes of git, for counters and faults.
const (
	routeInfoRefs    = "/{workspace}/{repository}/info/refs"
	routeUploadPack  = "/{workspace}/{repository}/git-upload-pack"
	routeReceivePack = "/{workspace}/{repository}/git-receive-pack"
)

func (e *Emulator) addGitRoutes(table *routes) {
	table.add(route{method: "GET", pattern: routeInfoRefs, serve: e.serveGit})
	table.add(route{method: "POST", pattern: routeUploadPack, serve: e.serveGit})
	table.add(route{method: "POST", pattern: routeReceivePack, serve: e.serveGit})
}

// gitRequest is an authorized git request.
type gitRequest struct {
	repo    Repository
	account *Account // nil: anonymous
	service string   // git-upload-pack or git-receive-pack
	path    string   // below the repository: info/refs or the service
	writes  bool
}

// serveGit authorizes each request by itself, as Bitbucket does, and has git answer it.
func (e *Emulator) serveGit(w http.ResponseWriter, r *http.Request, p params) {
	request := gitRequest{path: r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]}
	request.service = request.path
	if request.path == "refs" {
		request.path, request.service = "info/refs", r.URL.Query().Get("service")
	}
	if request.service != "git-upload-pack" && request.service != "git-receive-pack" {
		e.send(w, plain(http.StatusForbidden, "Only the smart protocol is served."))
		return
	}
	request.writes = request.service == "git-receive-pack"
	if refused, bad := e.authorizeGit(r, p, &request); bad {
		e.send(w, refused)
		return
	}
	if err := e.runGit(w, r, &request); err != nil && !errors.Is(err, context.Canceled) {
		e.opts.Logger.Error("git request failed", "repository", request.repo.Slug, logs.Err(err)) //nolint:sloglint // one attribute of ours among the request's
	}
}

// authorizeGit holds the request to BITBUCKET.md#git.
func (e *Emulator) authorizeGit(r *http.Request, p params, request *gitRequest) (response, bool) {
	account, scopes, refused, bad := e.gitCaller(r)
	if bad {
		return refused, true
	}
	e.mu.RLock()
	defer e.mu.RUnlock()
	repo := e.st.repository(p["workspace"], strings.TrimSuffix(p["repository"], ".git"))
	permission := "none"
	if repo != nil {
		permission = e.permission(account, repo)
	}
	needed := scopeRepository
	if request.writes {
		needed = scopeWrite
	}
	switch {
	case account == nil && (permission == "none" || request.writes):
		return unauthorizedGit(), true
	case account != nil && !hasScopes(scopes, []string{needed}):
		return plain(http.StatusForbidden, msgScopes), true
	case repo == nil:
		return plain(http.StatusNotFound, msgNoRepository), true
	case permission == "none":
		return plain(http.StatusForbidden, "The requested repository either does not exist or you do not have access. "+
			"If you believe this repository exists and you have access, make sure you're authenticated."), true
	case request.writes && permissionRank(permission) < permissionRank("write"):
		return plain(http.StatusForbidden, msgWriteAccess), true
	}
	request.repo, request.account = *repo, account
	if account != nil {
		exchangeOf(r).record.Account = account.Username
	}
	return response{}, false
}

// gitCaller knows OAuth tokens (user x-token-auth, or Bearer) and, for people, an account's name, e-mail or
// x-bitbucket-api-token-auth with its password.
func (e *Emulator) gitCaller(r *http.Request) (account *Account, scopes []string, refused response, bad bool) {
	header := r.Header.Get("Authorization")
	if header == "" {
		return nil, nil, response{}, false
	}
	token, isBearer := cutPrefixFold(header, "Bearer ")
	user, password, isBasic := r.BasicAuth()
	if isBasic && user == "x-token-auth" {
		token, isBearer = password, true
	}
	if isBearer {
		account, grant, err := e.checkToken(token)
		if err != nil {
			return nil, nil, unauthorizedGit(), true
		}
		return account, grant.Scopes, response{}, false
	}
	e.mu.RLock()
	defer e.mu.RUnlock()
	for _, account := range e.st.accounts {
		named := user == "x-bitbucket-api-token-auth" || strings.EqualFold(user, account.Username) || strings.EqualFold(user, account.Email)
		if isBasic && named && password != "" && password == account.Password {
			return account, []string{scopeRepository, scopeWrite}, response{}, false
		}
	}
	return nil, nil, unauthorizedGit(), true
}

// runGit has git answer the request. A push holds the repository's lock from before to after, so that the refs it
// changed are known; reads wait for nobody.
func (e *Emulator) runGit(w http.ResponseWriter, r *http.Request, request *gitRequest) error {
	if request.path != "git-receive-pack" {
		dir, _, err := e.opened(r.Context(), &request.repo)
		if err != nil {
			w.WriteHeader(http.StatusInternalServerError)
			return err
		}
		return e.answerGit(w, r, request, dir)
	}
	dir, unlock, before, err := e.prepare(r.Context(), &request.repo)
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return err
	}
	defer unlock()
	e.git.forget(request.repo.UUID)
	answered := e.answerGit(w, r, request, dir)
	// The push happened, whether or not its client is still there.
	_, err = e.afterPush(context.WithoutCancel(r.Context()), request.repo, request.account, dir, before)
	return errors.Join(answered, err)
}
