package emulator

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

func (c *call) getUser() response {
	c.e.mu.RLock()
	defer c.e.mu.RUnlock()
	return ok(c.e.renderSelf(c.account))
}

func (c *call) listEmails() response {
	return paginate(c, []*Account{c.account}, func(a *Account) any {
		return obj{
			"type": "email", "email": a.Email, "is_primary": true, "is_confirmed": true,
			"links": obj{"self": href(c.e.apiURL("/user/emails/" + url.PathEscape(a.Email)))},
		}
	})
}

// listWorkspaces is BITBUCKET.md#workspaces: a reduced workspace inside a workspace_access, without name and html link.
func (c *call) listWorkspaces() response {
	c.e.mu.RLock()
	defer c.e.mu.RUnlock()
	var reached []*Workspace
	for _, ws := range c.e.st.sortedWorkspaces() {
		if c.e.st.reaches(c.account, ws) {
			reached = append(reached, ws)
		}
	}
	if raw := c.query.Get("administrator"); raw != "" {
		want, err := strconv.ParseBool(raw)
		if err != nil {
			return failure(http.StatusBadRequest, "Invalid value for administrator")
		}
		reached = slices.DeleteFunc(reached, func(ws *Workspace) bool { return (ws.Members[c.account.UUID] == "owner") != want })
	}
	reached, refused, valid := filterAndSort(c, reached, func(ws *Workspace, field string) (any, bool) {
		return ws.Slug, field == "slug" || field == "workspace.slug"
	})
	if !valid {
		return refused
	}
	return paginate(c, reached, func(ws *Workspace) any {
		links := c.e.workspaceLinks(ws)
		delete(links, "html")
		return obj{
			"type": "workspace_access", "administrator": ws.Members[c.account.UUID] == "owner",
			"workspace": obj{"type": "workspace_base", "slug": ws.Slug, "uuid": braced(ws.UUID), "links": links},
		}
	})
}

func (c *call) getWorkspacePermission() response {
	c.e.mu.RLock()
	defer c.e.mu.RUnlock()
	ws := c.e.st.workspace(c.p["workspace"])
	if ws == nil {
		return workspaceNotFound(c.p["workspace"])
	}
	role := ws.Members[c.account.UUID]
	if role == "" {
		if !c.e.st.reaches(c.account, ws) {
			return failure(http.StatusForbidden, "You do not have access to this workspace.")
		}
		role = "collaborator"
	}
	return ok(obj{
		"type": "workspace_membership", "permission": role, "user": c.e.renderAccount(c.account),
		"workspace": obj{"type": "workspace_base", "slug": ws.Slug, "uuid": braced(ws.UUID)},
	})
}

// listPermissions is BITBUCKET.md#permissions: effective permissions, without public repositories that were never granted.
func (c *call) listPermissions() response {
	c.e.mu.RLock()
	defer c.e.mu.RUnlock()
	ws := c.e.st.workspace(c.p["workspace"])
	if ws == nil {
		return workspaceNotFound(c.p["workspace"])
	}
	if !c.e.st.reaches(c.account, ws) {
		return failure(http.StatusForbidden, "You do not have access to this workspace.")
	}
	var granted []*Repository
	for _, repo := range c.e.st.byWorkspace[ws.UUID] {
		if c.e.st.explicit(c.account, repo) != "none" {
			granted = append(granted, repo)
		}
	}
	granted, refused, valid := filterAndSort(c, granted, func(repo *Repository, field string) (any, bool) {
		if field == "permission" {
			return c.e.permission(c.account, repo), true
		}
		name, isRepository := strings.CutPrefix(field, "repository.")
		if !isRepository {
			return nil, false
		}
		return c.e.repositoryField(repo, name)
	})
	if !valid {
		return refused
	}
	return paginate(c, granted, func(repo *Repository) any {
		user := c.e.renderAccount(c.account)
		delete(user, "account_id")
		delete(user, "links")
		nested := c.e.renderRepositoryRef(repo)
		delete(nested, "links")
		return obj{
			"type": "repository_permission", "permission": c.e.permission(c.account, repo), "user": user, "repository": nested,
		}
	})
}

// getWorkspace is BITBUCKET.md#workspaces. Any scope will do; private workspaces are visible to those who have something in them.
func (c *call) getWorkspace() response {
	c.e.mu.RLock()
	defer c.e.mu.RUnlock()
	ws := c.e.st.workspace(c.p["workspace"])
	if ws == nil || (ws.Private && !c.e.st.reaches(c.account, ws)) {
		return workspaceNotFound(c.p["workspace"])
	}
	body := c.e.renderWorkspace(ws)
	links := c.e.workspaceLinks(ws)
	for _, name := range []string{"members", "projects", "snippets"} {
		links[name] = href(c.e.apiURL("/workspaces/" + ws.Slug + "/" + name))
	}
	links["owners"] = href(c.e.apiURL("/workspaces/" + ws.Slug + `/members?q=permission%3D%22owner%22`))
	links["repositories"] = href(c.e.apiURL("/repositories/" + ws.Slug))
	for name, value := range (obj{
		"is_private": ws.Private, "is_personal": ws.Personal, "is_privacy_enforced": false, "forking_mode": "allow_forks",
		"created_on": isoTime(ws.CreatedOn), "updated_on": nil, "links": links,
	}) {
		body[name] = value
	}
	return ok(body)
}

// permission is the effective permission, under active downgrade faults. Callers hold e.mu.
func (e *Emulator) permission(account *Account, repo *Repository) string {
	return e.faults.capPermission(e.st.fullName(repo), e.st.effective(account, repo))
}
