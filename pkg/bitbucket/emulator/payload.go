package emulator

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Values of branches since about 2025 (BITBUCKET.md#branches and BITBUCKET.md#push-payload).
var (
	mergeStrategies = []string{"merge_commit", "squash", "fast_forward", "squash_fast_forward", "rebase_fast_forward", "rebase_merge"}
	syncStrategies  = []string{"merge_commit", "rebase"}
)

// maxPayloadCommits is how many commits a change lists.
const maxPayloadCommits = 5

// changeData is one change with all that git has to be asked for.
type changeData struct {
	ref          string // full name
	old, new     ref
	oldTip       *commit
	newTip       *commit
	commits      []*commit
	truncated    bool
	forced       bool
	oldTag       *tagObject
	newTag       *tagObject
	isTag        bool
	name         string
	hadOld, hasN bool
}

// tagObject is what an annotated tag says.
type tagObject struct {
	message string
	date    time.Time
	tagger  string
}

// collectChanges asks git about the refs that changed.
func (g *gitStore) collectChanges(ctx context.Context, dir string, results []RefResult, before, after map[string]ref) ([]*changeData, error) {
	var changes []*changeData
	var tips []string
	for _, result := range results {
		c := &changeData{ref: result.Ref, old: before[result.Ref], new: after[result.Ref]}
		c.hadOld, c.hasN = c.old.object != "", c.new.object != ""
		c.name, c.isTag = strings.CutPrefix(result.Ref, "refs/tags/")
		if !c.isTag {
			c.name = strings.TrimPrefix(result.Ref, "refs/heads/")
		}
		for _, end := range []ref{c.old, c.new} {
			if end.commit != "" {
				tips = append(tips, end.commit)
			}
		}
		if err := g.completeChange(ctx, dir, c); err != nil {
			return nil, fmt.Errorf("payload of %s: %w", c.ref, err)
		}
		changes = append(changes, c)
	}
	// Asked last: completeChange has read most of them.
	known, err := g.commits(ctx, dir, tips)
	if err != nil {
		return nil, err
	}
	for _, c := range changes {
		c.oldTip, c.newTip = known[c.old.commit], known[c.new.commit]
	}
	return changes, nil
}

// completeChange adds the commits of a branch, whether it was forced, and the objects of annotated tags.
func (g *gitStore) completeChange(ctx context.Context, dir string, c *changeData) (err error) {
	if c.isTag {
		c.forced = c.hadOld && c.hasN
		if c.oldTag, err = g.tagObject(ctx, dir, c.old); err != nil {
			return err
		}
		c.newTag, err = g.tagObject(ctx, dir, c.new)
		return err
	}
	if !c.hasN {
		return nil
	}
	args := []string{"-n", strconv.Itoa(maxPayloadCommits + 1), c.new.commit}
	if c.hadOld {
		ancestor, err := g.isAncestor(ctx, dir, c.old.commit, c.new.commit)
		if err != nil {
			return err
		}
		c.forced = !ancestor
		args = append(args, "^"+c.old.commit)
	}
	if c.commits, err = g.log(ctx, dir, nil, args...); err != nil {
		return err
	}
	if len(c.commits) > maxPayloadCommits {
		c.commits, c.truncated = c.commits[:maxPayloadCommits], true
	}
	return nil
}

// tagObject reads an annotated tag; nil for lightweight ones.
func (g *gitStore) tagObject(ctx context.Context, dir string, at ref) (*tagObject, error) {
	if !at.annotated {
		return nil, nil // there is none
	}
	out, err := g.run(ctx, dir, nil, "cat-file", "tag", at.object)
	if err != nil {
		return nil, err
	}
	head, message, _ := strings.Cut(string(out), "\n\n")
	tag := &tagObject{message: message}
	for line := range strings.Lines(head) {
		tagger, found := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "tagger ")
		if !found {
			continue
		}
		end := strings.LastIndex(tagger, "> ")
		if end < 0 {
			continue
		}
		tag.tagger = tagger[:end+1]
		seconds, _, _ := strings.Cut(tagger[end+2:], " ")
		if unix, err := strconv.ParseInt(seconds, 10, 64); err == nil {
			tag.date = time.Unix(unix, 0)
		}
	}
	return tag, nil
}

// pushPayload renders a delivery of BITBUCKET.md#push-payload. Callers hold e.mu.
func (e *Emulator) pushPayload(repo *Repository, actor *Account, changes []*changeData, faults deliveryFaults) obj {
	rendered := make([]any, 0, len(changes))
	if faults.has(FaultManyChanges) {
		for i := range 60 {
			for _, c := range changes {
				if c.newTip != nil {
					other := *c
					other.name, other.isTag, other.hadOld, other.oldTip = fmt.Sprintf("many/%02d", i), false, false, nil
					rendered = append(rendered, e.renderChange(repo, &other))
					break
				}
			}
		}
	}
	for _, c := range changes {
		rendered = append(rendered, e.renderChange(repo, c))
	}
	if faults.has(FaultEmptyChanges) {
		rendered = []any{}
	}
	body := obj{
		"push": obj{"changes": rendered}, "repository": e.renderPayloadRepository(repo), "actor": nil,
	}
	if actor != nil && !faults.has(FaultMissingActor) {
		who := e.renderAccount(actor)
		if faults.has(FaultMissingAccountID) {
			delete(who, "account_id")
		}
		body["actor"] = who
	}
	if faults.has(FaultMissingAuthorUser) {
		return dropAuthorUsers(body).(obj) // an obj stays one
	}
	return body
}

func (e *Emulator) renderChange(repo *Repository, c *changeData) obj {
	change := obj{
		"old": nil, "new": nil, "created": !c.hadOld, "closed": !c.hasN, "forced": c.forced, "truncated": c.truncated,
	}
	if c.hadOld {
		change["old"] = e.renderRef(repo, c, c.oldTip, c.oldTag)
	}
	if !c.hasN {
		return change // deletions have neither links nor commits
	}
	change["new"] = e.renderRef(repo, c, c.newTip, c.newTag)
	change["links"] = e.changeLinks(repo, c)
	if !c.isTag {
		commits := make([]any, 0, len(c.commits))
		for _, each := range c.commits {
			full := e.renderTarget(repo, each)
			full["links"] = e.commitLinks(repo, each.hash)
			commits = append(commits, full)
		}
		change["commits"] = commits
	}
	return change
}

// changeLinks follows the table of BITBUCKET.md#push-payload: each kind of change has its own set.
func (e *Emulator) changeLinks(repo *Repository, c *changeData) obj {
	fullName := e.st.fullName(repo)
	commits := e.apiURL("/repositories/" + fullName + "/commits?include=" + c.new.commit)
	branchPage := href(e.siteURL("/" + fullName + "/branch/" + c.name))
	switch {
	case c.isTag:
		return obj{"commits": href(commits)}
	case !c.hadOld:
		return obj{"commits": href(commits), "html": branchPage}
	case c.forced:
		return obj{"commits": href(commits + "&exclude=" + c.old.commit), "html": branchPage}
	default:
		between := c.new.commit + ".." + c.old.commit
		return obj{
			"commits": href(commits + "&exclude=" + c.old.commit),
			"diff":    href(e.apiURL("/repositories/" + fullName + "/diff/" + between)),
			"html":    href(e.siteURL("/" + fullName + "/branches/compare/" + between)),
		}
	}
}

// renderRef is "old" or "new". Slashes in names stay as they are in links.
func (e *Emulator) renderRef(repo *Repository, c *changeData, tip *commit, tag *tagObject) obj {
	fullName := e.st.fullName(repo)
	kind, api, page := "branch", "/refs/branches/", "/branch/"
	if c.isTag {
		kind, api, page = "tag", "/refs/tags/", "/commits/tag/"
	}
	links := obj{
		"self":    href(e.apiURL("/repositories/" + fullName + api + c.name)),
		"commits": href(e.apiURL("/repositories/" + fullName + "/commits/" + c.name)),
		"html":    href(e.siteURL("/" + fullName + page + c.name)),
	}
	rendered := obj{"type": kind, "name": c.name, "links": links, "target": nil}
	if tip != nil {
		rendered["target"] = e.renderTarget(repo, tip)
	}
	if !c.isTag {
		links["pullrequest_create"] = href(e.siteURL("/" + fullName + "/pull-requests/new?source=" + c.name + "&t=1"))
		rendered["merge_strategies"] = mergeStrategies
		rendered["sync_strategies"] = syncStrategies
		rendered["default_merge_strategy"] = mergeStrategies[0]
		return rendered
	}
	rendered["message"], rendered["date"], rendered["tagger"] = nil, nil, nil
	if tag != nil {
		rendered["message"], rendered["date"] = tag.message, commitTime(tag.date)
		rendered["tagger"] = obj{"type": "author", "raw": tag.tagger}
	}
	return rendered
}

// renderTarget is a commit inside a payload; its links are only self and html.
func (e *Emulator) renderTarget(repo *Repository, c *commit) obj {
	return obj{
		"type": "commit", "hash": c.hash, "date": commitTime(c.date), "author": e.renderAuthor(c), "committer": obj{},
		"message": c.message, "parents": e.renderParents(repo, c), "rendered": obj{}, "properties": obj{},
		"summary": obj{"type": "rendered", "raw": c.message, "markup": "markdown", "html": "<p>" + htmlText(c.message) + "</p>"},
		"links":   obj{"self": href(e.commitLink(repo, c.hash)), "html": href(e.commitHTML(repo, c.hash))},
	}
}

// dropAuthorUsers copies a payload without the "user" of any author.
func dropAuthorUsers(value any) any {
	switch value := value.(type) {
	case obj:
		kept := obj{}
		for name, child := range value {
			if name == "user" && value["type"] == "author" {
				continue
			}
			kept[name] = dropAuthorUsers(child)
		}
		return kept
	case []any:
		kept := make([]any, len(value))
		for i, child := range value {
			kept[i] = dropAuthorUsers(child)
		}
		return kept
	default:
		return value
	}
}
