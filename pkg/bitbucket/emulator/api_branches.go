package emulator

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
)

// branch is a branch with its head, or a tag with its commit.
type branch struct {
	name string
	tip  *commit
	at   ref
}

// branches reads all branches of the repository in the path, in the order of git branch --list.
func (c *call) branches() (Repository, []branch, response, bool) { return c.refs("refs/heads/") }

// refs reads all refs of one kind of the repository in the path, by name.
func (c *call) refs(kind string) (Repository, []branch, response, bool) {
	repo, _, refused, found := c.repository()
	if !found {
		return repo, nil, refused, false
	}
	dir, refs, err := c.e.opened(c.r.Context(), &repo)
	if err != nil {
		return repo, nil, c.e.internal("refs not read", err), false
	}
	var list []branch
	var tips []string
	for name, at := range refs {
		if short, wanted := strings.CutPrefix(name, kind); wanted {
			list = append(list, branch{name: short, tip: &commit{hash: at.commit}, at: at})
			tips = append(tips, at.commit)
		}
	}
	known, err := c.e.git.commits(c.r.Context(), dir, tips)
	if err != nil {
		return repo, nil, c.e.internal("commits not read", err), false
	}
	for i, b := range list {
		list[i].tip = known[b.tip.hash]
	}
	slices.SortFunc(list, func(a, b branch) int { return cmp.Compare(a.name, b.name) })
	return repo, list, response{}, true
}

// listBranches is BITBUCKET.md#branches.
func (c *call) listBranches() response {
	repo, list, refused, found := c.branches()
	if !found {
		return refused
	}
	list, refused, valid := filterAndSort(c, list, branch.field)
	if !valid {
		return refused
	}
	c.e.mu.RLock()
	defer c.e.mu.RUnlock()
	if c.e.st.repositories[repo.UUID] == nil {
		return repositoryNotFound()
	}
	return paginate(c, list, func(b branch) any { return c.e.renderBranch(&repo, b) })
}

// field is what branches and tags are filtered and sorted by.
func (b branch) field(name string) (any, bool) {
	switch name {
	case "name":
		return b.name, true
	case "target.date":
		return b.tip.date, true
	case "target.hash":
		return b.tip.hash, true
	default:
		return nil, false
	}
}

// getBranch is BITBUCKET.md#one-branch; the name has its slashes, however they were written.
func (c *call) getBranch() response {
	repo, list, refused, found := c.branches()
	if !found {
		return refused
	}
	i := slices.IndexFunc(list, func(b branch) bool { return b.name == c.p["branch"] })
	if i < 0 {
		return notACommit("Branch \""+c.p["branch"]+"\" not found", c.p["branch"])
	}
	c.e.mu.RLock()
	defer c.e.mu.RUnlock()
	return ok(c.e.renderBranch(&repo, list[i]))
}

func (e *Emulator) renderBranch(repo *Repository, b branch) obj {
	fullName := e.st.fullName(repo)
	base := e.apiURL("/repositories/" + fullName)
	return obj{
		"type": "branch", "name": b.name, "merge_strategies": mergeStrategies, "default_merge_strategy": mergeStrategies[0],
		"links": obj{
			"self": href(base + "/refs/branches/" + b.name), "commits": href(base + "/commits/" + b.name),
			"html": href(e.siteURL("/" + fullName + "/branch/" + b.name)),
		},
		"target": e.renderCommit(repo, b.tip),
	}
}

// notACommit is the 404 of unknown refs (BITBUCKET.md#no-access), with its data twice.
func notACommit(message, sha string) response {
	data := obj{"shas": []string{sha}}
	return response{status: http.StatusNotFound, body: obj{
		"type": "error", "error": obj{"message": message, "data": data}, "data": data,
	}}
}

// commit finds the commit of the path; short hashes are accepted on reads.
func (c *call) commit(short bool) (Repository, *commit, string, response, bool) {
	repo, permission, refused, found := c.repository()
	if !found {
		return repo, nil, "", refused, false
	}
	dir, _, err := c.e.opened(c.r.Context(), &repo)
	if err != nil {
		return repo, nil, "", c.e.internal("commit not read", err), false
	}
	asked := c.p["commit"]
	hash, exists := c.e.git.hasCommit(c.r.Context(), dir, asked)
	if !exists || (!short && hash != asked) {
		return repo, nil, "", notACommit("Commit not found", asked), false
	}
	known, err := c.e.git.commits(c.r.Context(), dir, []string{hash})
	if err != nil {
		return repo, nil, "", c.e.internal("commit not read", err), false
	}
	return repo, known[hash], permission, response{}, true
}

func (c *call) getCommit() response {
	repo, found, _, refused, exists := c.commit(true)
	if !exists {
		return refused
	}
	c.e.mu.RLock()
	defer c.e.mu.RUnlock()
	return ok(c.e.renderCommit(&repo, found))
}
