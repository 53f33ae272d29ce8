package catalog

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/services/repo/internal/account"
)

// maxBranches is how many branches one answer is made of. A repository with more shows its newest;
// search finds the others.
const maxBranches = 5000

// Branch is a branch and its head, or a tag and its commit.
type Branch struct {
	Name        string    `json:"name"`
	Default     bool      `json:"default,omitempty"`
	Hash        string    `json:"hash"`
	Message     string    `json:"message,omitempty"`
	AuthorName  string    `json:"author,omitempty"`
	AuthorEmail string    `json:"email,omitempty"`
	Time        time.Time `json:"time,omitzero"`
}

func branchOf(b bitbucket.Branch, mainBranch string) Branch {
	return Branch{
		Name: b.Name, Default: b.Name == mainBranch, Hash: b.Target.Hash, Message: b.Target.Message,
		AuthorName: b.Target.AuthorName, AuthorEmail: b.Target.AuthorEmail, Time: b.Target.Time,
	}
}

// BranchKey is the place of a branch in a list: the default branch first, then the newest, the name
// for a tie.
type BranchKey struct {
	Default bool      `json:"d,omitempty"`
	Time    time.Time `json:"t"`
	Name    string    `json:"n"`
}

func branchKeyOf(b Branch) BranchKey {
	return BranchKey{Default: b.Default, Time: b.Time, Name: b.Name}
}

func (k BranchKey) compare(o BranchKey) int {
	if k.Default != o.Default {
		if k.Default {
			return -1
		}
		return 1
	}
	return cmp.Or(o.Time.Compare(k.Time), strings.Compare(k.Name, o.Name))
}

// BranchQuestion asks for a page of a repository's branches or tags.
type BranchQuestion struct {
	Workspace, Repository string
	Query                 string // text within the name, case ignored
	After                 *BranchKey
	Size                  int
}

// BranchAnswer is a page of branches or tags.
type BranchAnswer struct {
	FullName  string // of the repository
	Branches  []Branch
	Failures  []Failure // branches that are not among them
	Next      *BranchKey
	Total     int
	FetchTime time.Time
}

// branchList is all branches that answer a question, in order.
type branchList struct {
	FullName  string    `json:"full_name"`
	Branches  []Branch  `json:"branches"`
	Total     int       `json:"total"`
	Truncated bool      `json:"truncated,omitempty"`
	Skipped   int       `json:"skipped,omitempty"`
	FetchTime time.Time `json:"fetch_time"`
}

// refKind is what of a repository is listed: branches or tags.
type refKind struct {
	name string // in questions, and for people
	list func(a *bitbucket.Account, ctx context.Context, r bitbucket.Ref, o bitbucket.BranchesOptions) (bitbucket.Listing[bitbucket.Branch], error)
}

// Branches lists branches live. Equal questions within five seconds share an answer, and a search
// within five seconds of the whole list is made in that.
func (c *Catalog) Branches(ctx context.Context, q BranchQuestion) (BranchAnswer, error) {
	return c.refs(ctx, refKind{"branches", (*bitbucket.Account).Branches}, q)
}

// Tags is [Catalog.Branches] of tags. None of them is a default.
func (c *Catalog) Tags(ctx context.Context, q BranchQuestion) (BranchAnswer, error) {
	return c.refs(ctx, refKind{"tags", (*bitbucket.Account).Tags}, q)
}

func (c *Catalog) refs(ctx context.Context, kind refKind, q BranchQuestion) (BranchAnswer, error) {
	q.Query = strings.ToLower(strings.TrimSpace(q.Query))
	conn, err := c.open(ctx, q.Workspace)
	if err != nil {
		return BranchAnswer{}, err
	}
	list, ok := c.branches.peek(ctx, kind.question(conn, q.Repository, ""))
	if !ok || (list.Truncated && q.Query != "") {
		list, err = c.branches.ask(ctx, kind.question(conn, q.Repository, q.Query), func(ctx context.Context) (branchList, error) {
			return c.fetchRefs(ctx, conn, kind, q.Repository, q.Query)
		})
		if err != nil {
			return BranchAnswer{}, err
		}
	}
	a := BranchAnswer{FullName: list.FullName, FetchTime: list.FetchTime, Total: list.Total}
	matches := list.Branches
	if list.Skipped > 0 {
		workspace, _, _ := strings.Cut(list.FullName, "/")
		a.Failures = []Failure{{Workspace: workspace, Reason: apierr.ReasonBitbucketUnavailable, Message: fmt.Sprintf(
			"Bitbucket described %d of the %s of %s in a way that cannot be read; they are left out. Look at Bitbucket for one that is missing here.", list.Skipped, kind.name, list.FullName)}}
	}
	if q.Query != "" {
		matches = slices.DeleteFunc(slices.Clone(matches), func(b Branch) bool { return !strings.Contains(strings.ToLower(b.Name), q.Query) })
		if !list.Truncated {
			a.Total = len(matches)
		}
	}
	var more bool
	a.Branches, more = page(matches, q.Size, func(b Branch) bool { return q.After == nil || branchKeyOf(b).compare(*q.After) > 0 })
	if more {
		next := branchKeyOf(a.Branches[len(a.Branches)-1])
		a.Next = &next
	}
	return a, nil
}

func (k refKind) question(conn *account.Connection, repository, query string) string {
	return strings.Join([]string{k.name, conn.ID, repository, query}, " ")
}

// fetchRefs asks Bitbucket for the repository and its branches or tags: at the same time where the list
// knows the repository, as then it is nearly always still there.
func (c *Catalog) fetchRefs(ctx context.Context, conn *account.Connection, kind refKind, id, query string) (branchList, error) {
	at := c.now()
	calls := conn.Account.Parallel(c.parallel)
	options := bitbucket.BranchesOptions{Contains: query, Sort: "-target.date", Limit: maxBranches}
	if hint, known := c.current(ctx, conn).snapshot.find(id); known {
		var r bitbucket.Repository
		var l bitbucket.Listing[bitbucket.Branch]
		g, gctx := errgroup.WithContext(ctx)
		g.Go(func() (err error) { r, err = calls.Repository(gctx, hint.ref()); return err })
		g.Go(func() (err error) { l, err = kind.list(calls, gctx, hint.ref(), options); return err })
		if err := g.Wait(); err == nil {
			if err := excluded(conn, r); err != nil { // transferred since it was listed
				return branchList{}, err
			}
			return c.branchList(ctx, calls, kind.of(r), l, query, at)
		} else if !unreachable(err) {
			return branchList{}, err
		}
	}
	r, err := c.within(ctx, conn, id)
	if err != nil {
		return branchList{}, err
	}
	l, err := kind.list(calls, ctx, r.Ref(), options)
	if err != nil {
		return branchList{}, err
	}
	return c.branchList(ctx, calls, kind.of(r), l, query, at)
}

// of is the repository as the list needs it: none of its tags is the main branch, whatever it is called.
func (k refKind) of(r bitbucket.Repository) bitbucket.Repository {
	if k.name == "tags" {
		r.MainBranch = ""
	}
	return r
}

// branchList sorts what Bitbucket listed. The default branch is fetched by itself where it should be
// there and is too old to be among the newest.
func (c *Catalog) branchList(ctx context.Context, calls *bitbucket.Account, r bitbucket.Repository, l bitbucket.Listing[bitbucket.Branch], query string, at time.Time) (branchList, error) {
	list := branchList{FullName: r.FullName, Truncated: l.Truncated, Skipped: l.Skipped, FetchTime: at}
	seen := make(map[string]bool, len(l.Values))
	for _, b := range l.Values {
		if !seen[b.Name] { // a branch that moved between two pages is listed twice
			seen[b.Name] = true
			list.Branches = append(list.Branches, branchOf(b, r.MainBranch))
		}
	}
	if l.Truncated && r.MainBranch != "" && !seen[r.MainBranch] && strings.Contains(strings.ToLower(r.MainBranch), query) {
		b, err := calls.Branch(ctx, r.Ref(), r.MainBranch)
		switch {
		case err == nil:
			list.Branches = append(list.Branches, branchOf(b, r.MainBranch))
		case !unreachable(err): // it may name one that was deleted (BITBUCKET.md#default-branch)
			return branchList{}, err
		}
	}
	slices.SortFunc(list.Branches, func(a, b Branch) int { return branchKeyOf(a).compare(branchKeyOf(b)) })
	list.Total = len(list.Branches)
	if l.Truncated {
		list.Total = max(l.Size, list.Total)
	}
	return list, nil
}

// Branch reads one branch live, never from a shared answer: its head is about to be deployed. The
// repository's full name comes with it.
func (c *Catalog) Branch(ctx context.Context, workspace, id, name string) (Branch, string, error) {
	conn, err := c.open(ctx, workspace)
	if err != nil {
		return Branch{}, "", err
	}
	if hint, known := c.current(ctx, conn).snapshot.find(id); known {
		b, err := conn.Account.Branch(ctx, hint.ref(), name)
		if err == nil {
			return branchOf(b, hint.MainBranch), hint.FullName, nil
		}
		if !unreachable(err) {
			return Branch{}, "", err
		}
	}
	// Unknown, moved, or the branch is missing: only a call about the repository tells.
	r, err := c.within(ctx, conn, id)
	if err != nil {
		return Branch{}, "", err
	}
	b, err := branchIn(ctx, conn, r, name)
	if err != nil {
		return Branch{}, "", err
	}
	return branchOf(b, r.MainBranch), r.FullName, nil
}

// Head is where a branch is.
type Head struct {
	Hash  string // empty: the repository has no such branch
	Known bool   // false: nobody asked for a branch, or Bitbucket did not answer
}

// Head reads one repository live, and where name is not empty, the head of that branch. What the account may
// do on the repository is not asked for. Trouble with the branch is no reason to withhold the repository.
func (c *Catalog) Head(ctx context.Context, workspace, id, name string) (Repository, Head, error) {
	conn, err := c.open(ctx, workspace)
	if err != nil {
		return Repository{}, Head{}, err
	}
	r, err := c.within(ctx, conn, id)
	if err != nil {
		return Repository{}, Head{}, err
	}
	found := repositoryOf(r, bitbucket.PermissionNone)
	if name == "" {
		return found, Head{}, nil
	}
	b, err := branchIn(ctx, conn, r, name)
	switch {
	case err == nil:
		return found, Head{Hash: b.Target.Hash, Known: true}, nil
	case apierr.Has(err, apierr.ReasonBranchNotFound):
		return found, Head{Known: true}, nil
	}
	c.log.InfoContext(ctx, "head of a branch is not known", slog.String(logs.KeyRepository, r.FullName), slog.String(logs.KeyBranch, name), logs.Err(err))
	return found, Head{}, nil
}
