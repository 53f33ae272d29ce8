package emulator

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// What the control API and the pages do to the emulated world. Everything stored is replaced, never changed in place,
// where a copy may be in use without the lock.

// putAccount adds or changes an account by user name. Empty fields keep their value or get one derived from the name.
func (e *Emulator) putAccount(username string, in Account) (Account, error) {
	if username == "" || strings.ContainsAny(username, "/{} ") {
		return Account{}, fmt.Errorf("user name %q is not valid", username)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	account := Account{
		UUID: SeededUUID("account", username), AccountID: "712020:" + SeededUUID("account-id", username), Username: username,
		Nickname: username, DisplayName: username, Email: username + "@example.test", Password: username + "-password", CreatedOn: seedTime,
	}
	if known := e.st.accountByName(username); known != nil {
		account = *known
	}
	for field, value := range map[*string]string{
		&account.Nickname: in.Nickname, &account.DisplayName: in.DisplayName, &account.Email: in.Email,
		&account.Password: in.Password, &account.AccountID: in.AccountID,
	} {
		if value != "" {
			*field = value
		}
	}
	e.st.accounts[account.UUID] = &account
	return account, e.store.write(change{bucketAccounts, account.UUID, &account})
}

// accountUUIDs turns user names into UUIDs. Callers hold e.mu.
func (e *Emulator) accountUUIDs(byName map[string]string) (map[string]string, error) {
	byUUID := map[string]string{}
	for name, value := range byName {
		account := e.st.accountByName(name)
		if account == nil {
			return nil, fmt.Errorf("%w: account %q", errNotFound, name)
		}
		byUUID[account.UUID] = value
	}
	return byUUID, nil
}

// putWorkspace adds or replaces a workspace by slug; Members are by user name. A personal one gets its owner's UUID.
func (e *Emulator) putWorkspace(slug string, in Workspace) (Workspace, error) {
	slug = strings.ToLower(slug)
	if slug == "" || strings.ContainsAny(slug, "/{} .") || slices.Contains([]string{"site", "account", "_emulator"}, slug) {
		return Workspace{}, fmt.Errorf("workspace slug %q is not valid", slug)
	}
	if !slices.Contains([]string{"", "restricted", "deleted"}, in.Listing) {
		return Workspace{}, fmt.Errorf("listing %q is neither restricted nor deleted", in.Listing)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	members, err := e.accountUUIDs(in.Members)
	if err != nil {
		return Workspace{}, err
	}
	in.UUID, in.Slug, in.Members = SeededUUID("workspace", slug), slug, members
	setDefault(&in.Name, slug)
	setDefault(&in.CreatedOn, seedTime)
	if in.Personal {
		for uuid, role := range members {
			if role == "owner" {
				in.UUID = uuid
			}
		}
	}
	if known := e.st.workspace(slug); known != nil {
		in.UUID = known.UUID
	}
	e.st.workspaces[in.UUID] = &in
	return in, e.store.write(change{bucketWorkspaces, in.UUID, &in})
}

// RepositoryInput describes a repository for Control.PutRepository. Permissions are by user name.
type RepositoryInput struct {
	Name        string            `json:"name"`
	Public      bool              `json:"public"`
	Description string            `json:"description"`
	Permissions map[string]string `json:"permissions"`
	// Seed is "site" (four branches), "service" (two), "stranger" (main alone, with commits that no other seed has), or ""
	// for an empty repository. It counts for new ones only.
	Seed string `json:"seed"`
}

func (e *Emulator) putRepository(workspace, slug string, in RepositoryInput) (Repository, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	permissions, err := e.accountUUIDs(in.Permissions)
	if err != nil {
		return Repository{}, err
	}
	return e.putRepositoryLocked(workspace, slug, in, permissions)
}

// putRepositoryLocked adds or changes a repository; permissions are by UUID. Callers hold e.mu for writing.
func (e *Emulator) putRepositoryLocked(workspace, slug string, in RepositoryInput, permissions map[string]string) (Repository, error) {
	slug = strings.ToLower(slug)
	if slug == "" || strings.ContainsAny(slug, "/{} ") {
		return Repository{}, fmt.Errorf("repository slug %q is not valid", slug)
	}
	if !slices.Contains(seeds, in.Seed) {
		return Repository{}, fmt.Errorf("there is no seed %q", in.Seed)
	}
	ws := e.st.workspace(workspace)
	if ws == nil {
		return Repository{}, fmt.Errorf("%w: workspace %q", errNotFound, workspace)
	}
	repo := Repository{
		UUID: SeededUUID("repository", ws.Slug+"/"+slug), Workspace: ws.UUID, Slug: slug, ProjectKey: "MAIN", ProjectName: "Main",
		Seed: in.Seed, CreatedOn: e.nowLocked(), UpdatedOn: e.nowLocked(),
	}
	if in.Seed != "" {
		repo.MainBranch = "main"
	}
	if known := e.st.repository(ws.Slug, slug); known != nil {
		repo = *known
	} else if e.st.repositories[repo.UUID] != nil {
		repo.UUID = newUUID() // the one that had this name was renamed
	}
	setDefault(&in.Name, slug)
	repo.Name, repo.Description, repo.Private, repo.Permissions = in.Name, in.Description, !in.Public, permissions
	return repo, e.storeRepository(&repo)
}

// storeRepository replaces a repository and the indexes. Callers hold e.mu for writing.
func (e *Emulator) storeRepository(repo *Repository) error {
	e.st.put(repo)
	return e.store.write(change{bucketRepos, repo.UUID, repo})
}

// renameRepository changes the slug and, unless it is empty, the workspace. UUID, webhooks and git data stay. The old
// name is 404 from then on, or another repository's if there is a TakenBy.
func (e *Emulator) renameRepository(fullName string, in renameBody) error {
	current, name, _ := strings.Cut(fullName, "/")
	e.mu.Lock()
	defer e.mu.Unlock()
	known := e.st.repository(current, name)
	if known == nil {
		return fmt.Errorf("%w: repository %q", errNotFound, fullName)
	}
	repo := *known
	if in.Slug != "" {
		repo.Slug = strings.ToLower(in.Slug)
	}
	if in.Workspace != "" {
		ws := e.st.workspace(in.Workspace)
		if ws == nil {
			return fmt.Errorf("%w: workspace %q", errNotFound, in.Workspace)
		}
		repo.Workspace = ws.UUID
	}
	if taken := e.st.bySlug[repo.Workspace+"/"+repo.Slug]; taken != nil && (taken.UUID != repo.UUID || in.TakenBy != nil) {
		return fmt.Errorf("there is a repository %s already", e.st.fullName(taken))
	}
	if in.TakenBy == nil {
		return e.storeRepository(&repo)
	}
	permissions, err := e.accountUUIDs(in.TakenBy.Permissions)
	if err != nil {
		return err
	}
	if !slices.Contains(seeds, in.TakenBy.Seed) {
		return fmt.Errorf("there is no seed %q", in.TakenBy.Seed)
	}
	if len(permissions) == 0 {
		permissions = maps.Clone(known.Permissions)
	}
	if err := e.storeRepository(&repo); err != nil {
		return err
	}
	_, err = e.putRepositoryLocked(current, known.Slug, *in.TakenBy, permissions)
	return err
}

// deleteRepository removes it with its webhooks, statuses and git data.
func (e *Emulator) deleteRepository(fullName string) error {
	repo, err := e.findRepository(fullName)
	if err != nil {
		return err
	}
	defer e.git.lock(repo.UUID)()
	if err := e.git.remove(repo.UUID); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.store.write(e.st.forget(repo.UUID)...)
}

// setPermission gives an account read, write, admin or none on a repository.
func (e *Emulator) setPermission(fullName, username, permission string) error {
	if permissionRank(permission) == 0 && permission != "none" {
		return fmt.Errorf("permission %q is none of none, read, write, admin", permission)
	}
	workspace, slug, _ := strings.Cut(fullName, "/")
	e.mu.Lock()
	defer e.mu.Unlock()
	known, account := e.st.repository(workspace, slug), e.st.accountByName(username)
	if known == nil || account == nil {
		return fmt.Errorf("%w: repository %q or account %q", errNotFound, fullName, username)
	}
	repo := *known
	repo.Permissions = maps.Clone(known.Permissions)
	if repo.Permissions == nil {
		repo.Permissions = map[string]string{}
	}
	repo.Permissions[account.UUID] = permission
	return e.storeRepository(&repo)
}

// addHook adds a webhook as an administrator does by hand, with the checks of the API.
func (e *Emulator) addHook(repoID string, in Hook) (Hook, error) {
	secret := []byte(nil)
	if in.Secret != "" {
		var err error
		if secret, err = compactJSON(in.Secret); err != nil {
			return Hook{}, err
		}
	}
	input := hookInput{Description: &in.Description, URL: &in.URL, Active: &in.Active, Events: in.Events, Secret: secret}
	e.mu.Lock()
	defer e.mu.Unlock()
	if field, problem := e.hookProblem(&input, e.switches.HookURLs); problem != "" {
		return Hook{}, fmt.Errorf("%s: %s", field, problem)
	}
	hook := &Hook{UUID: newUUID(), Repository: repoID, HistoryEnabled: in.HistoryEnabled}
	if _, stored := e.storeHook(hook, &input); !stored {
		return Hook{}, errors.New("the webhook could not be stored")
	}
	return *hook, nil
}

// changeHook replaces a webhook by a changed copy.
func (e *Emulator) changeHook(id string, change func(*Hook)) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	known := e.st.hooks[id]
	if known == nil {
		return fmt.Errorf("%w: webhook %q", errNotFound, id)
	}
	hook := *known
	change(&hook)
	return e.putHook(&hook)
}

func (e *Emulator) putHook(hook *Hook) error {
	e.st.hooks[hook.UUID] = hook
	return e.store.write(change{bucketHooks, hook.UUID, hook})
}

func (e *Emulator) removeHook(id string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.st.hooks[id] == nil {
		return fmt.Errorf("%w: webhook %q", errNotFound, id)
	}
	delete(e.st.hooks, id)
	return e.store.write(change{bucketHooks, id, nil})
}
