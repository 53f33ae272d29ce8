package emulator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cgi"
	"net/url"
	"os"
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

// serveGit authorizes each request by itself, as Bitbucket does, and hands it to git http-backend.
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

// runGit serves the request through CGI. A push holds the repository's lock from before to after, so that the refs it
// changed are known; reads wait for nobody.
func (e *Emulator) runGit(w http.ResponseWriter, r *http.Request, request *gitRequest) error {
	inner, cleanup, err := e.backendRequest(r, request)
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return err
	}
	defer cleanup()
	if request.path != "git-receive-pack" {
		if _, _, err := e.opened(r.Context(), &request.repo); err != nil {
			w.WriteHeader(http.StatusInternalServerError)
			return err
		}
		e.backend(r, request).ServeHTTP(w, inner)
		return nil
	}
	dir, unlock, before, err := e.prepare(r.Context(), &request.repo)
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return err
	}
	defer unlock()
	e.git.forget(request.repo.UUID)
	e.backend(r, request).ServeHTTP(w, inner)
	// The push happened, whether or not its client is still there.
	_, err = e.afterPush(context.WithoutCancel(r.Context()), request.repo, request.account, dir, before)
	return err
}

// backendRequest rewrites the request for http-backend: the directory's path, no credential (CGI would put it into the
// environment), and a body of known length, because CGI has no chunked bodies.
func (e *Emulator) backendRequest(r *http.Request, request *gitRequest) (*http.Request, func(), error) {
	inner := r.Clone(r.Context())
	inner.Header.Del("Authorization")
	inner.Header.Del("Cookie")
	inner.URL = &url.URL{Path: "/" + request.repo.UUID + ".git/" + request.path, RawQuery: r.URL.RawQuery}
	if r.ContentLength >= 0 {
		return inner, func() {}, nil
	}
	spool, err := os.CreateTemp(e.opts.DataDir, "body-")
	if err != nil {
		return nil, nil, fmt.Errorf("spool request: %w", err)
	}
	cleanup := func() {
		_ = spool.Close()
		_ = os.Remove(spool.Name())
	}
	size, err := io.Copy(spool, r.Body)
	if err == nil {
		_, err = spool.Seek(0, io.SeekStart)
	}
	if err != nil {
		cleanup()
		return nil, nil, fmt.Errorf("spool request: %w", err)
	}
	inner.Body, inner.ContentLength, inner.TransferEncoding = spool, size, nil
	return inner, cleanup, nil
}

func (e *Emulator) backend(r *http.Request, request *gitRequest) *cgi.Handler {
	anySHA1 := "true"
	if e.currentSwitches().RefuseAnySHA1 {
		anySHA1 = "false"
	}
	env := append(e.git.env(),
		"GIT_PROJECT_ROOT="+e.git.root, "GIT_HTTP_EXPORT_ALL=1",
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=uploadpack.allowAnySHA1InWant", "GIT_CONFIG_VALUE_0="+anySHA1,
	)
	if protocol := r.Header.Get("Git-Protocol"); protocol != "" && !strings.ContainsAny(protocol, "\x00\n") {
		env = append(env, "GIT_PROTOCOL="+protocol)
	}
	if request.account != nil {
		env = append(env, "REMOTE_USER="+request.account.Username)
	}
	return &cgi.Handler{Path: e.git.backend, Root: "/", Dir: e.git.root, Env: env, Stderr: logWriter{e}}
}

// logWriter puts what git says on its error output into the log.
type logWriter struct{ e *Emulator }

func (l logWriter) Write(p []byte) (int, error) {
	l.e.opts.Logger.Debug("git", "stderr", strings.TrimSpace(string(p)))
	return len(p), nil
}
