package emulator

import (
	"bytes"
	"cmp"
	"embed"
	"fmt"
	"html"
	"html/template"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

//go:embed templates/pages.html
var templateFiles embed.FS

var pages = template.Must(template.ParseFS(templateFiles, "templates/pages.html"))

// startPageLimit is how many repositories the start page lists.
const startPageLimit = 50

func (e *Emulator) addPageRoutes(table *routes) {
	page := func(method, pattern string, serve func(http.ResponseWriter, *http.Request, params)) {
		table.add(route{method: method, pattern: pattern, serve: serve})
	}
	page("GET", "/", e.startPage)
	page("GET", "/account/settings/app-authorizations", e.authorizationsPage)
	page("POST", "/account/settings/app-authorizations", e.revokeFromPage)
	page("GET", "/account/{username}/avatar", e.avatar)
	page("GET", "/{workspace}/{repository}", e.repositoryPage)
	page("GET", "/{workspace}/{repository}/avatar", e.avatar)
	page("GET", "/{workspace}/{repository}/commits/{commit}", e.commitPage)
	page("GET", "/{workspace}/{repository}/branch/{branch...}", e.repositoryPage)
	page("GET", "/{workspace}/{repository}/branches/compare/{range...}", e.repositoryPage)
	page("GET", "/{workspace}", e.workspacePage)
	page("GET", "/{workspace}/{repository}/admin/webhooks", e.webhooksPage)
	page("POST", "/{workspace}/{repository}/admin/webhooks", e.addHookFromPage)
	page("POST", "/{workspace}/{repository}/admin/webhooks/{hook}", e.changeHookFromPage)
	page("GET", "/{workspace}/{repository}/admin/webhooks/{hook}/requests", e.requestsPage)
}

// page renders a template; nothing of it may be framed or run scripts.
func (e *Emulator) page(w http.ResponseWriter, status int, name string, data any) {
	var body bytes.Buffer
	if err := pages.ExecuteTemplate(&body, name, data); err != nil {
		e.send(w, e.internal("page not rendered", err))
		return
	}
	header := w.Header()
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Cache-Control", "no-store")
	header.Set("Referrer-Policy", "same-origin") // with no-referrer, forms would send "Origin: null"
	header.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'")
	w.WriteHeader(status)
	_, _ = w.Write(body.Bytes()) // a peer that is gone needs no page
}

func (e *Emulator) errorPage(w http.ResponseWriter, status int, title, message string) {
	e.page(w, status, "error", map[string]any{"Title": title, "Message": message})
}

// scopeTexts are what the consent page says for each scope.
var scopeTexts = map[string]string{
	scopeAccount: "Read your account information", scopeEmail: "Read your account's primary email address",
	scopeRepository: "Read your repositories", scopeWrite: "Read and modify your repositories",
	"repository:admin": "Administer your repositories", scopeWebhook: "Read and modify your repositories' webhooks",
	"pullrequest": "Read your repositories and their pull requests", "project": "Read your projects",
}

func (e *Emulator) consentPage(w http.ResponseWriter, status int, request authorizeRequest, account *Account, problem string) {
	type scope struct{ Name, Text string }
	var scopes []scope
	for _, name := range request.consumer.Scopes {
		scopes = append(scopes, scope{name, cmp.Or(scopeTexts[name], name)})
	}
	e.mu.RLock()
	accounts := e.st.sortedAccounts()
	e.mu.RUnlock()
	title := "Log in"
	if account != nil {
		title = "Confirm access"
	}
	// An empty action posts to the page's own URL, query included.
	e.page(w, status, "consent", map[string]any{
		"Title": title, "Consumer": request.consumer, "Account": account, "Accounts": accounts,
		"Scopes": scopes, "Problem": problem, "Action": "",
	})
}

func (e *Emulator) startPage(w http.ResponseWriter, _ *http.Request, _ params) {
	type line struct {
		FullName string
		Private  bool
		Grants   []string
	}
	wanted, _ := scenarioByName(e.opts.Scenario)
	e.mu.RLock()
	accounts := e.st.sortedAccounts()
	lines := []line{}
	for _, ws := range e.st.sortedWorkspaces() {
		for _, repo := range e.st.byWorkspace[ws.UUID] {
			if len(lines) >= startPageLimit {
				break
			}
			one := line{FullName: e.st.fullName(repo), Private: repo.Private}
			for _, account := range accounts {
				one.Grants = append(one.Grants, account.Username+": "+e.permission(account, repo)+";")
			}
			lines = append(lines, one)
		}
	}
	more := len(e.st.repositories) - len(lines)
	consumer := e.consumer
	e.mu.RUnlock()
	example := "acme/web"
	if len(lines) > 0 && !slices.ContainsFunc(lines, func(l line) bool { return l.FullName == example }) {
		example = lines[0].FullName
	}
	_, slug, _ := strings.Cut(example, "/")
	e.page(w, http.StatusOK, "start", map[string]any{
		"Title": "Start", "Accounts": accounts, "Repositories": lines, "More": more, "SiteURL": e.opts.SiteURL,
		"Scenario": wanted.name, "About": wanted.about, "Consumer": consumer, "Example": example, "ExampleSlug": slug,
	})
}

// pageRepository finds the repository of a page or answers 404. Pages are open to everyone: it is an emulator.
func (e *Emulator) pageRepository(w http.ResponseWriter, p params) (Repository, string, bool) {
	repo, err := e.findRepository(p["workspace"] + "/" + strings.TrimSuffix(p["repository"], ".git"))
	if err != nil {
		e.errorPage(w, http.StatusNotFound, "Repository not found", "There is no repository at this address.")
		return Repository{}, "", false
	}
	e.mu.RLock()
	defer e.mu.RUnlock()
	return repo, e.st.fullName(&repo), true
}

func (e *Emulator) repositoryPage(w http.ResponseWriter, r *http.Request, p params) {
	type line struct {
		Name, Hash, Message string
		Main                bool
		Statuses            []BuildStatus
	}
	repo, fullName, found := e.pageRepository(w, p)
	if !found {
		return
	}
	dir, refs, err := e.opened(r.Context(), &repo)
	if err != nil {
		e.send(w, e.internal("repository not read", err))
		return
	}
	var hashes []string
	for _, at := range refs {
		hashes = append(hashes, at.commit)
	}
	commits, err := e.git.commits(r.Context(), dir, hashes)
	if err != nil {
		e.send(w, e.internal("commits not read", err))
		return
	}
	var lines []line
	e.mu.RLock()
	for _, name := range slices.Sorted(maps.Keys(refs)) {
		branch, isBranch := strings.CutPrefix(name, "refs/heads/")
		if !isBranch {
			continue
		}
		hash := refs[name].commit
		subject, _, _ := strings.Cut(commits[hash].message, "\n")
		one := line{Name: branch, Hash: hash, Message: subject, Main: branch == repo.MainBranch}
		for _, status := range e.st.statuses {
			if status.Repository == repo.UUID && status.Commit == hash {
				one.Statuses = append(one.Statuses, *status)
			}
		}
		lines = append(lines, one)
	}
	e.mu.RUnlock()
	e.page(w, http.StatusOK, "repository", map[string]any{
		"Title": fullName, "FullName": fullName, "Private": repo.Private, "Clone": e.siteURL("/" + fullName + ".git"), "Branches": lines,
	})
}

// commitPage shows one commit with its builds.
func (e *Emulator) commitPage(w http.ResponseWriter, r *http.Request, p params) {
	repo, fullName, found := e.pageRepository(w, p)
	if !found {
		return
	}
	dir, _, err := e.opened(r.Context(), &repo)
	if err != nil {
		e.send(w, e.internal("repository not read", err))
		return
	}
	hash, exists := e.git.hasCommit(r.Context(), dir, p["commit"])
	if !exists {
		e.errorPage(w, http.StatusNotFound, "Commit not found", "There is no such commit in "+fullName+".")
		return
	}
	known, err := e.git.commits(r.Context(), dir, []string{hash})
	if err != nil {
		e.send(w, e.internal("commit not read", err))
		return
	}
	var statuses []BuildStatus
	e.mu.RLock()
	for _, status := range e.st.statuses {
		if status.Repository == repo.UUID && status.Commit == hash {
			statuses = append(statuses, *status)
		}
	}
	e.mu.RUnlock()
	e.page(w, http.StatusOK, "commit", map[string]any{
		"Title": hash[:7], "FullName": fullName, "Hash": hash, "Author": known[hash].author(), "Date": known[hash].date,
		"Message": known[hash].message, "Parents": known[hash].parents, "Statuses": statuses,
	})
}

// workspacePage has nothing that the start page has not.
func (e *Emulator) workspacePage(w http.ResponseWriter, r *http.Request, p params) {
	e.mu.RLock()
	known := e.st.workspace(p["workspace"]) != nil
	e.mu.RUnlock()
	if !known {
		e.errorPage(w, http.StatusNotFound, "Workspace not found", "There is no workspace at this address.")
		return
	}
	http.Redirect(w, r, "/", http.StatusFound)
}

// hookView is a webhook on a page.
type hookView struct {
	Hook
	SecretSet bool
}

func (e *Emulator) webhooksPage(w http.ResponseWriter, _ *http.Request, p params) {
	e.showWebhooks(w, http.StatusOK, p, "")
}

func (e *Emulator) showWebhooks(w http.ResponseWriter, status int, p params, problem string) {
	repo, fullName, found := e.pageRepository(w, p)
	if !found {
		return
	}
	e.page(w, status, "webhooks", map[string]any{
		"Title": "Webhooks", "FullName": fullName, "Hooks": e.hookViews(repo.UUID), "Problem": problem,
	})
}

func (e *Emulator) hookViews(repo string) []hookView {
	e.mu.RLock()
	defer e.mu.RUnlock()
	var views []hookView
	for _, hook := range e.st.hooksOf(repo) {
		views = append(views, hookView{Hook: *hook, SecretSet: hook.Secret != ""})
	}
	return views
}

func (e *Emulator) addHookFromPage(w http.ResponseWriter, r *http.Request, p params) {
	repo, fullName, found := e.pageRepository(w, p)
	if !found {
		return
	}
	form := readForm(w, r)
	if _, err := e.addHook(repo.UUID, Hook{
		Description: form.Get("description"), URL: form.Get("url"), Secret: form.Get("secret"),
		Active: form.Get("active") == "true", Events: []string{"repo:push"},
	}); err != nil {
		e.showWebhooks(w, http.StatusBadRequest, p, err.Error())
		return
	}
	http.Redirect(w, r, "/"+fullName+"/admin/webhooks", http.StatusSeeOther)
}

func (e *Emulator) changeHookFromPage(w http.ResponseWriter, r *http.Request, p params) {
	_, fullName, found := e.pageRepository(w, p)
	if !found {
		return
	}
	form := readForm(w, r)
	back := "/" + fullName + "/admin/webhooks"
	var err error
	switch form.Get("action") {
	case "enable-history", "disable-history":
		err = e.changeHook(p["hook"], func(hook *Hook) { hook.HistoryEnabled = form.Get("action") == "enable-history" })
		back += "/" + p["hook"] + "/requests"
	case "resend":
		var id int64
		if id, err = strconv.ParseInt(form.Get("attempt"), 10, 64); err == nil {
			err = e.deliveries.resend(id)
		}
		back += "/" + p["hook"] + "/requests"
	case "delete":
		err = e.removeHook(p["hook"])
	default:
		err = fmt.Errorf("unknown action %q", form.Get("action"))
	}
	if err != nil {
		e.errorPage(w, http.StatusBadRequest, "Not done", err.Error())
		return
	}
	http.Redirect(w, r, back, http.StatusSeeOther)
}

// requestsPage is "View requests": the attempts made while history was enabled, newest first.
func (e *Emulator) requestsPage(w http.ResponseWriter, _ *http.Request, p params) {
	repo, fullName, found := e.pageRepository(w, p)
	if !found {
		return
	}
	views := e.hookViews(repo.UUID)
	i := slices.IndexFunc(views, func(v hookView) bool { return v.UUID == p["hook"] })
	if i < 0 {
		e.errorPage(w, http.StatusNotFound, "Webhook not found", "There is no such webhook.")
		return
	}
	attempts := slices.DeleteFunc(e.deliveries.list(p["hook"], 0), func(a Attempt) bool { return !a.History })
	slices.Reverse(attempts)
	e.page(w, http.StatusOK, "requests", map[string]any{
		"Title": "Requests", "FullName": fullName, "UUID": p["hook"], "URL": views[i].URL,
		"HistoryEnabled": views[i].HistoryEnabled, "Attempts": attempts,
	})
}

func (e *Emulator) authorizationsPage(w http.ResponseWriter, _ *http.Request, _ params) {
	type line struct {
		ID, Account, Consumer string
		Scopes                []string
		Since                 time.Time
	}
	var lines []line
	e.mu.RLock()
	for _, grant := range e.st.grants {
		if account := e.st.accounts[grant.Account]; account != nil && !e.grantDead(grant, e.nowLocked()) {
			lines = append(lines, line{grant.ID, account.Username, e.consumer.Name, grant.Scopes, grant.CreatedAt})
		}
	}
	e.mu.RUnlock()
	slices.SortFunc(lines, func(a, b line) int { return b.Since.Compare(a.Since) })
	e.page(w, http.StatusOK, "authorizations", map[string]any{"Title": "App authorizations", "Grants": lines})
}

func (e *Emulator) revokeFromPage(w http.ResponseWriter, r *http.Request, _ params) {
	if !e.revokeGrant(readForm(w, r).Get("grant")) {
		e.errorPage(w, http.StatusNotFound, "Not revoked", "There is no such authorization.")
		return
	}
	http.Redirect(w, r, "/account/settings/app-authorizations/", http.StatusSeeOther)
}

// avatar draws the first letter of whatever it is for.
func (e *Emulator) avatar(w http.ResponseWriter, _ *http.Request, p params) {
	name := []rune(strings.ToUpper(cmp.Or(p["username"], p["repository"], "?")))
	w.Header().Set("Content-Type", "image/svg+xml")
	w.Header().Set("Content-Security-Policy", "default-src 'none'")
	_, _ = fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64"><rect width="64" height="64" rx="12" fill="#0052cc"/>`+
		`<text x="32" y="44" font-family="sans-serif" font-size="34" fill="#fff" text-anchor="middle">%s</text></svg>`, html.EscapeString(string(name[:1])))
}
