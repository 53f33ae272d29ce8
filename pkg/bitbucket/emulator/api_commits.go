package emulator

import (
	"context"
	"slices"
	"strings"
)

// listTags is BITBUCKET.md#tags.
func (c *call) listTags() response {
	repo, list, refused, found := c.refs("refs/tags/")
	if !found {
		return refused
	}
	list, refused, valid := filterAndSort(c, list, branch.field)
	if !valid {
		return refused
	}
	objects := make(map[string]*tagObject, len(list))
	for _, t := range list {
		object, err := c.e.git.tagObject(c.r.Context(), c.e.git.dir(repo.UUID), t.at)
		if err != nil {
			return c.e.internal("tag not read", err)
		}
		objects[t.name] = object
	}
	c.e.mu.RLock()
	defer c.e.mu.RUnlock()
	if c.e.st.repositories[repo.UUID] == nil {
		return repositoryNotFound()
	}
	return paginate(c, list, func(t branch) any { return c.e.renderTag(&repo, t, objects[t.name]) })
}

// getTag is one of them; the name has its slashes, however they were written.
func (c *call) getTag() response {
	repo, list, refused, found := c.refs("refs/tags/")
	if !found {
		return refused
	}
	i := slices.IndexFunc(list, func(t branch) bool { return t.name == c.p["tag"] })
	if i < 0 {
		return notACommit("Tag \""+c.p["tag"]+"\" not found", c.p["tag"])
	}
	object, err := c.e.git.tagObject(c.r.Context(), c.e.git.dir(repo.UUID), list[i].at)
	if err != nil {
		return c.e.internal("tag not read", err)
	}
	c.e.mu.RLock()
	defer c.e.mu.RUnlock()
	return ok(c.e.renderTag(&repo, list[i], object))
}

func (e *Emulator) renderTag(repo *Repository, t branch, object *tagObject) obj {
	rendered := e.renderRef(repo, &changeData{isTag: true, name: t.name}, nil, object)
	rendered["target"] = e.renderCommit(repo, t.tip)
	return rendered
}

// listCommits is BITBUCKET.md#commits: the history of what is included, without that of what is excluded. It
// does not say how many there are.
func (c *call) listCommits() response {
	repo, _, refused, found := c.repository()
	if !found {
		return refused
	}
	dir, refs, err := c.e.opened(c.r.Context(), &repo)
	if err != nil {
		return c.e.internal("commits not read", err)
	}
	include, exclude := c.query["include"], c.query["exclude"]
	if revision := c.p["revision"]; revision != "" {
		include = append(slices.Clone(include), revision)
	}
	var args []string
	for _, side := range []struct {
		prefix string
		names  []string
	}{{"", include}, {"^", exclude}} {
		for _, name := range side.names {
			hash, exists := c.e.git.revision(c.r.Context(), dir, refs, name)
			if !exists {
				return notACommit("Commit not found", name)
			}
			args = append(args, side.prefix+hash)
		}
	}
	if len(include) == 0 {
		args = append(args, "--all")
	}
	list, err := c.e.git.log(c.r.Context(), dir, nil, append(args, "--")...)
	if err != nil {
		return c.e.internal("commits not read", err)
	}
	c.e.mu.RLock()
	defer c.e.mu.RUnlock()
	if c.e.st.repositories[repo.UUID] == nil {
		return repositoryNotFound()
	}
	c.switches.OmitSize = true
	return paginate(c, list, func(one *commit) any { return c.e.renderCommit(&repo, one) })
}

// revision is the commit that a branch, a tag or a hash stands for.
func (g *gitStore) revision(ctx context.Context, dir string, refs map[string]ref, name string) (string, bool) {
	for _, kind := range []string{"refs/heads/", "refs/tags/"} {
		if at, exists := refs[kind+name]; exists {
			return at.commit, true
		}
	}
	return g.hasCommit(ctx, dir, strings.ToLower(name))
}
