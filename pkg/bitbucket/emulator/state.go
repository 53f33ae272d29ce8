package emulator

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// state is everything the emulator knows. Emulator.mu guards it; methods say whether they need the write lock.
type state struct {
	accounts     map[string]*Account
	workspaces   map[string]*Workspace
	repositories map[string]*Repository
	hooks        map[string]*Hook
	grants       map[string]*Grant
	access       map[string]*accessToken
	refresh      map[string]*refreshToken
	statuses     map[string]*BuildStatus
	codes        map[string]*authCode

	// Indexes over the above.
	bySlug      map[string]*Repository   // "<workspace uuid>/<slug>"
	byWorkspace map[string][]*Repository // by workspace UUID, sorted by slug

	lockedOutUntil time.Time
	hookSequence   int64
}

func loadState(s *store, now time.Time, idle time.Duration) (*state, error) {
	st := &state{codes: map[string]*authCode{}, bySlug: map[string]*Repository{}, byWorkspace: map[string][]*Repository{}}
	load := func(err error, next func() error) error {
		if err != nil {
			return err
		}
		return next()
	}
	var err error
	err = load(err, func() (e error) { st.accounts, e = loadAll[Account](s, bucketAccounts); return e })
	err = load(err, func() (e error) { st.workspaces, e = loadAll[Workspace](s, bucketWorkspaces); return e })
	err = load(err, func() (e error) { st.repositories, e = loadAll[Repository](s, bucketRepos); return e })
	err = load(err, func() (e error) { st.hooks, e = loadAll[Hook](s, bucketHooks); return e })
	err = load(err, func() (e error) { st.grants, e = loadAll[Grant](s, bucketGrants); return e })
	err = load(err, func() (e error) { st.access, e = loadAll[accessToken](s, bucketAccess); return e })
	err = load(err, func() (e error) { st.refresh, e = loadAll[refreshToken](s, bucketRefresh); return e })
	err = load(err, func() (e error) { st.statuses, e = loadAll[BuildStatus](s, bucketStatuses); return e })
	if err != nil {
		return nil, err
	}
	for _, hook := range st.hooks {
		if hook.Secret, err = s.open(hook.SealedSecret); err != nil {
			return nil, fmt.Errorf("webhook %s: %w", hook.UUID, err)
		}
		st.hookSequence = max(st.hookSequence, hook.Sequence)
	}
	st.index()
	return st, st.dropOldTokens(s, now, idle)
}

// index rebuilds the indexes over repositories.
func (st *state) index() {
	clear(st.bySlug)
	clear(st.byWorkspace)
	for _, repo := range st.repositories {
		st.bySlug[repo.Workspace+"/"+repo.Slug] = repo
		st.byWorkspace[repo.Workspace] = append(st.byWorkspace[repo.Workspace], repo)
	}
	for _, repos := range st.byWorkspace {
		slices.SortFunc(repos, func(a, b *Repository) int { return cmp.Compare(a.Slug, b.Slug) })
	}
}

// put adds or replaces a repository and keeps the indexes. Needs the write lock.
func (st *state) put(repo *Repository) {
	st.drop(repo.UUID)
	st.repositories[repo.UUID] = repo
	st.bySlug[repo.Workspace+"/"+repo.Slug] = repo
	list := st.byWorkspace[repo.Workspace]
	at, _ := slices.BinarySearchFunc(list, repo.Slug, func(r *Repository, slug string) int { return cmp.Compare(r.Slug, slug) })
	st.byWorkspace[repo.Workspace] = slices.Insert(list, at, repo)
}

// drop removes a repository from the map and the indexes. Needs the write lock.
func (st *state) drop(id string) {
	repo := st.repositories[id]
	if repo == nil {
		return
	}
	delete(st.repositories, id)
	delete(st.bySlug, repo.Workspace+"/"+repo.Slug)
	st.byWorkspace[repo.Workspace] = slices.DeleteFunc(st.byWorkspace[repo.Workspace], func(r *Repository) bool { return r.UUID == id })
}

// forget removes a repository with its webhooks and statuses, and returns what to write. Needs the write lock.
func (st *state) forget(repo string) []change {
	changes := []change{{bucketRepos, repo, nil}}
	for _, hook := range st.hooksOf(repo) {
		delete(st.hooks, hook.UUID)
		changes = append(changes, change{bucketHooks, hook.UUID, nil})
	}
	maps.DeleteFunc(st.statuses, func(id string, status *BuildStatus) bool {
		if status.Repository == repo {
			changes = append(changes, change{bucketStatuses, id, nil})
		}
		return status.Repository == repo
	})
	st.drop(repo)
	return changes
}

// dropOldTokens forgets tokens whose wording nobody needs any more: access tokens a week after they expired, refresh
// tokens twice their idle life after their last use.
func (st *state) dropOldTokens(s *store, now time.Time, idle time.Duration) error {
	var drop []change
	for hash, token := range st.access {
		if now.Sub(token.ExpiresAt) > 7*24*time.Hour {
			delete(st.access, hash)
			drop = append(drop, change{bucketAccess, hash, nil})
		}
	}
	for hash, token := range st.refresh {
		if now.Sub(token.LastUsed) > 2*idle {
			delete(st.refresh, hash)
			drop = append(drop, change{bucketRefresh, hash, nil})
		}
	}
	if len(drop) == 0 {
		return nil
	}
	return s.write(drop...)
}

func (st *state) accountByName(name string) *Account {
	if id, ok := stripBraces(name); ok {
		return st.accounts[id]
	}
	for _, account := range st.accounts {
		if strings.EqualFold(account.Username, name) || account.UUID == name {
			return account
		}
	}
	return nil
}

func (st *state) accountByEmail(email string) *Account {
	if email == "" {
		return nil
	}
	for _, account := range st.accounts {
		if strings.EqualFold(account.Email, email) {
			return account
		}
	}
	return nil
}

// workspace finds by slug (any case) or {uuid}.
func (st *state) workspace(id string) *Workspace {
	if id, ok := stripBraces(id); ok {
		return st.workspaces[id]
	}
	for _, ws := range st.workspaces {
		if strings.EqualFold(ws.Slug, id) {
			return ws
		}
	}
	return nil
}

// repository finds by slug (any case) or {uuid} in a workspace; the workspace "{}" stands for any (BITBUCKET.md#one-repository).
func (st *state) repository(workspace, id string) *Repository {
	bare, isUUID := stripBraces(id)
	if workspace == "{}" {
		if !isUUID {
			return nil
		}
		return st.repositories[bare]
	}
	ws := st.workspace(workspace)
	if ws == nil {
		return nil
	}
	if !isUUID {
		return st.bySlug[ws.UUID+"/"+strings.ToLower(id)]
	}
	if repo := st.repositories[bare]; repo != nil && repo.Workspace == ws.UUID {
		return repo
	}
	return nil
}

// explicit is the permission an account has been given on a repository, directly, by its workspace role or by the
// workspace's default: none, read, write or admin.
func (st *state) explicit(account *Account, repo *Repository) string {
	if account == nil {
		return "none"
	}
	ws := st.workspaces[repo.Workspace]
	role := ws.Members[account.UUID]
	if role == "owner" {
		return "admin"
	}
	permission := repo.Permissions[account.UUID]
	if permission == "" && role != "" {
		permission = ws.DefaultPermission
	}
	if permissionRank(permission) == 0 {
		return "none"
	}
	return permission
}

// effective adds what everyone has on public repositories.
func (st *state) effective(account *Account, repo *Repository) string {
	permission := st.explicit(account, repo)
	if permission == "none" && !repo.Private {
		return "read"
	}
	return permission
}

// reaches reports whether the account is a member of the workspace or has been given any repository in it.
func (st *state) reaches(account *Account, ws *Workspace) bool {
	if account == nil {
		return false
	}
	if ws.Members[account.UUID] != "" {
		return true
	}
	return slices.ContainsFunc(st.byWorkspace[ws.UUID], func(repo *Repository) bool {
		return st.explicit(account, repo) != "none"
	})
}

func (st *state) fullName(repo *Repository) string {
	return st.workspaces[repo.Workspace].Slug + "/" + repo.Slug
}

func (st *state) sortedAccounts() []*Account {
	return slices.SortedFunc(maps.Values(st.accounts), func(a, b *Account) int { return cmp.Compare(a.Username, b.Username) })
}

func (st *state) sortedWorkspaces() []*Workspace {
	return slices.SortedFunc(maps.Values(st.workspaces), func(a, b *Workspace) int { return cmp.Compare(a.Slug, b.Slug) })
}

// hooksOf lists a repository's webhooks, oldest first.
func (st *state) hooksOf(repo string) []*Hook {
	var hooks []*Hook
	for _, hook := range st.hooks {
		if hook.Repository == repo {
			hooks = append(hooks, hook)
		}
	}
	slices.SortFunc(hooks, func(a, b *Hook) int { return cmp.Compare(a.Sequence, b.Sequence) })
	return hooks
}
