package emulator

import (
	"net/url"
	"time"
)

// The JSON of BITBUCKET.md#user to 6, shared by answers and payloads. Callers hold e.mu unless a function says otherwise.

// isoTime is how Bitbucket writes times: microseconds and "+00:00".
func isoTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000-07:00") }

// commitTime has no fraction.
func commitTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05-07:00") }

func href(link string) obj { return obj{"href": link} }

// pathEscapeBraced escapes a braced UUID for a URL.
func pathEscapeBraced(id string) string { return "%7B" + id + "%7D" }

func (e *Emulator) apiURL(path string) string  { return e.opts.SiteURL + "/2.0" + path }
func (e *Emulator) siteURL(path string) string { return e.opts.SiteURL + path }

func (e *Emulator) accountLinks(a *Account) obj {
	return obj{
		"self":   href(e.apiURL("/users/" + pathEscapeBraced(a.UUID))),
		"html":   href(e.siteURL("/" + pathEscapeBraced(a.UUID) + "/")),
		"avatar": href(e.siteURL("/account/" + url.PathEscape(a.Username) + "/avatar/")),
	}
}

// renderAccount is another person: no username since the privacy change of 2019.
func (e *Emulator) renderAccount(a *Account) obj {
	return obj{
		"type": "user", "uuid": braced(a.UUID), "account_id": a.AccountID, "nickname": a.Nickname,
		"display_name": a.DisplayName, "links": e.accountLinks(a),
	}
}

// renderSelf is GET /2.0/user.
func (e *Emulator) renderSelf(a *Account) obj {
	self := e.renderAccount(a)
	links := e.accountLinks(a)
	links["repositories"] = href(e.apiURL("/repositories/" + pathEscapeBraced(a.UUID)))
	links["snippets"] = href(e.apiURL("/snippets/" + pathEscapeBraced(a.UUID)))
	links["hooks"] = href(e.apiURL("/workspaces/" + pathEscapeBraced(a.UUID) + "/hooks"))
	for name, value := range (obj{
		"username": a.Username, "account_status": "active", "created_on": isoTime(a.CreatedOn),
		"is_staff": false, "has_2fa_enabled": nil, "location": nil, "links": links,
	}) {
		self[name] = value
	}
	return self
}

func (e *Emulator) workspaceLinks(ws *Workspace) obj {
	return obj{
		"self":   href(e.apiURL("/workspaces/" + ws.Slug)),
		"html":   href(e.siteURL("/" + ws.Slug + "/")),
		"avatar": href(e.siteURL("/workspaces/" + ws.Slug + "/avatar/")),
	}
}

// renderWorkspace is the form nested in repositories.
func (e *Emulator) renderWorkspace(ws *Workspace) obj {
	return obj{"type": "workspace", "uuid": braced(ws.UUID), "name": ws.Name, "slug": ws.Slug, "links": e.workspaceLinks(ws)}
}

func (e *Emulator) renderOwner(ws *Workspace) obj {
	if owner := e.st.accounts[ws.UUID]; ws.Personal && owner != nil {
		return e.renderAccount(owner)
	}
	return obj{"type": "team", "display_name": ws.Name, "uuid": braced(ws.UUID), "username": ws.Slug, "links": e.workspaceLinks(ws)}
}

func (e *Emulator) renderProject(repo *Repository) obj {
	ws := e.st.workspaces[repo.Workspace]
	base := "/workspaces/" + ws.Slug + "/projects/" + repo.ProjectKey
	return obj{
		"type": "project", "key": repo.ProjectKey, "uuid": braced(SeededUUID("project", ws.Slug+"/"+repo.ProjectKey)),
		"name":  repo.ProjectName,
		"links": obj{"self": href(e.apiURL(base)), "html": href(e.siteURL("/" + ws.Slug + "/workspace/projects/" + repo.ProjectKey))},
	}
}

// repositoryLinks are the three links of reduced repositories.
func (e *Emulator) repositoryLinks(repo *Repository) obj {
	fullName := e.st.fullName(repo)
	return obj{
		"self":   href(e.apiURL("/repositories/" + fullName)),
		"html":   href(e.siteURL("/" + fullName)),
		"avatar": href(e.siteURL("/" + fullName + "/avatar/")),
	}
}

// renderRepositoryRef is a repository nested in something else.
func (e *Emulator) renderRepositoryRef(repo *Repository) obj {
	return obj{
		"type": "repository", "name": repo.Name, "full_name": e.st.fullName(repo),
		"uuid": braced(repo.UUID), "links": e.repositoryLinks(repo),
	}
}

// renderPayloadRepository is the repository of a delivery: no slug, no mainbranch, no clone links (BITBUCKET.md#push-payload).
func (e *Emulator) renderPayloadRepository(repo *Repository) obj {
	ws := e.st.workspaces[repo.Workspace]
	r := e.renderRepositoryRef(repo)
	for name, value := range (obj{
		"scm": "git", "website": nil, "is_private": repo.Private, "parent": nil,
		"owner": e.renderOwner(ws), "workspace": e.renderWorkspace(ws), "project": e.renderProject(repo),
	}) {
		r[name] = value
	}
	return r
}

// renderRepository is the full object of BITBUCKET.md#one-repository. The HTTPS clone link carries the caller's user name.
func (e *Emulator) renderRepository(repo *Repository, caller *Account) obj {
	fullName := e.st.fullName(repo)
	r := e.renderPayloadRepository(repo)
	clone := *e.site
	clone.Path = "/" + fullName + ".git"
	if caller != nil {
		clone.User = url.User(caller.Username)
	}
	links := e.repositoryLinks(repo)
	base := e.apiURL("/repositories/" + fullName)
	for name, path := range map[string]string{
		"hooks": "/hooks", "branches": "/refs/branches", "tags": "/refs/tags", "commits": "/commits", "source": "/src",
		"forks": "/forks", "downloads": "/downloads", "pullrequests": "/pullrequests", "watchers": "/watchers",
	} {
		links[name] = href(base + path)
	}
	links["clone"] = []any{
		obj{"name": "https", "href": clone.String()},
		obj{"name": "ssh", "href": "git@" + e.site.Hostname() + ":" + fullName + ".git"},
	}
	var mainBranch any
	if repo.MainBranch != "" {
		mainBranch = obj{"type": "branch", "name": repo.MainBranch}
	}
	for name, value := range (obj{
		"slug": repo.Slug, "description": repo.Description, "language": "", "fork_policy": "no_public_forks",
		"has_issues": false, "has_wiki": false, "size": 4096, "mainbranch": mainBranch,
		"created_on": isoTime(repo.CreatedOn), "updated_on": isoTime(repo.UpdatedOn),
		"override_settings": obj{"branching_model": true, "default_merge_strategy": true}, "links": links,
	}) {
		r[name] = value
	}
	return r
}

// renderAuthor maps the e-mail of a commit to an account where there is one; else "user" is missing.
func (e *Emulator) renderAuthor(c *commit) obj {
	author := obj{"type": "author", "raw": c.author()}
	if account := e.st.accountByEmail(c.authorEmail); account != nil {
		author["user"] = e.renderAccount(account)
	}
	return author
}

func (e *Emulator) commitLink(repo *Repository, hash string) string {
	return e.apiURL("/repositories/" + e.st.fullName(repo) + "/commit/" + hash)
}

func (e *Emulator) commitHTML(repo *Repository, hash string) string {
	return e.siteURL("/" + e.st.fullName(repo) + "/commits/" + hash)
}

func (e *Emulator) renderParents(repo *Repository, c *commit) []any {
	parents := make([]any, 0, len(c.parents))
	for _, hash := range c.parents {
		parents = append(parents, obj{"type": "commit", "hash": hash, "links": obj{
			"self": href(e.commitLink(repo, hash)), "html": href(e.commitHTML(repo, hash)),
		}})
	}
	return parents
}

// commitLinks are all links of a commit.
func (e *Emulator) commitLinks(repo *Repository, hash string) obj {
	self, base := e.commitLink(repo, hash), e.apiURL("/repositories/"+e.st.fullName(repo))
	return obj{
		"self": href(self), "html": href(e.commitHTML(repo, hash)),
		"diff": href(base + "/diff/" + hash), "patch": href(base + "/patch/" + hash),
		"comments": href(self + "/comments"), "approve": href(self + "/approve"), "statuses": href(self + "/statuses"),
	}
}

// renderCommit is a commit as the REST API nests it in branches (BITBUCKET.md#branches).
func (e *Emulator) renderCommit(repo *Repository, c *commit) obj {
	return obj{
		"type": "commit", "hash": c.hash, "date": commitTime(c.date), "message": c.message,
		"author": e.renderAuthor(c), "parents": e.renderParents(repo, c),
		"repository": e.renderRepositoryRef(repo), "links": e.commitLinks(repo, c.hash),
	}
}
