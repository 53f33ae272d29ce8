package emulator

import (
	"net/http"
	"slices"
	"time"
)

// roleRank says which explicit permission each role asks for (BITBUCKET.md#repositories).
var roleRank = map[string]string{"member": "read", "contributor": "write", "admin": "admin"}

// listRepositories is BITBUCKET.md#repositories.
func (c *call) listRepositories() response {
	c.e.mu.RLock()
	defer c.e.mu.RUnlock()
	st := c.e.st
	ws := st.workspace(c.p["workspace"])
	if ws == nil || (ws.Private && !st.reaches(c.account, ws)) {
		return workspaceNotFound(c.p["workspace"])
	}
	switch ws.Listing {
	case "restricted":
		return failure(http.StatusForbidden, "Access to this workspace is restricted. An admin must whitelist your IP.")
	case "deleted":
		return failure(http.StatusGone, "This workspace has been deleted.")
	}
	role := c.query.Get("role")
	if _, known := roleRank[role]; !known && role != "" && role != "owner" {
		return failure(http.StatusBadRequest, "Invalid role: "+role)
	}
	visible := slices.DeleteFunc(slices.Clone(st.byWorkspace[ws.UUID]), func(repo *Repository) bool {
		return !c.hasRole(ws, repo, role)
	})
	visible, refused, valid := filterAndSort(c, visible, c.e.repositoryField)
	if !valid {
		return refused
	}
	return paginate(c, visible, func(repo *Repository) any { return c.e.renderRepository(repo, c.account) })
}

func (c *call) hasRole(ws *Workspace, repo *Repository, role string) bool {
	switch role {
	case "":
		return c.e.permission(c.account, repo) != "none"
	case "owner":
		return c.account != nil && ws.Personal && ws.UUID == c.account.UUID
	default:
		explicit := c.e.faults.capPermission(c.e.st.fullName(repo), c.e.st.explicit(c.account, repo))
		return permissionRank(explicit) >= permissionRank(roleRank[role])
	}
}

// repositoryField serves q and sort. Callers hold e.mu.
func (e *Emulator) repositoryField(repo *Repository, field string) (any, bool) {
	switch field {
	case "name":
		return repo.Name, true
	case "slug":
		return repo.Slug, true
	case "full_name":
		return e.st.fullName(repo), true
	case "uuid":
		return braced(repo.UUID), true
	case "is_private":
		return repo.Private, true
	case "description":
		return repo.Description, true
	case "created_on":
		return repo.CreatedOn, true
	case "updated_on":
		return repo.UpdatedOn, true
	case "project.key":
		return repo.ProjectKey, true
	case "mainbranch.name":
		return repo.MainBranch, true
	default:
		return nil, false
	}
}

func (c *call) getRepository() response {
	c.e.mu.RLock()
	defer c.e.mu.RUnlock()
	repo, refused, found := c.repositoryLocked()
	if !found {
		return refused
	}
	return ok(c.e.renderRepository(repo, c.account))
}

// repositoryLocked finds the repository of the path if the caller may see it. Callers hold e.mu.
func (c *call) repositoryLocked() (*Repository, response, bool) {
	repo := c.e.st.repository(c.p["workspace"], c.p["repository"])
	if repo == nil || c.e.permission(c.account, repo) == "none" {
		return nil, repositoryNotFound(), false
	}
	return repo, response{}, true
}

// repository is repositoryLocked for callers that go on without the lock: it returns a copy and the permission.
func (c *call) repository() (Repository, string, response, bool) {
	c.e.mu.RLock()
	defer c.e.mu.RUnlock()
	repo, refused, found := c.repositoryLocked()
	if !found {
		return Repository{}, "", refused, false
	}
	return *repo, c.e.permission(c.account, repo), response{}, true
}

// touchRepository notes a push: the time, and the main branch if this is the first one.
func (e *Emulator) touchRepository(id, mainBranch string, at time.Time) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	repo := e.st.repositories[id]
	if repo == nil {
		return nil // deleted meanwhile
	}
	repo.UpdatedOn = at
	if repo.MainBranch == "" {
		repo.MainBranch = mainBranch
	}
	return e.store.write(change{bucketRepos, repo.UUID, repo})
}
