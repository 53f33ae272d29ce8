package catalog

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/services/repo/internal/account"
)

// CommitKey is where the next page of a branch's history begins.
type CommitKey struct {
	Branch string `json:"b"`
	Head   string `json:"h"` // where the branch was at the first page
	After  string `json:"a"` // as Bitbucket's link has it
}

// CommitQuestion asks for a page of a branch's history.
type CommitQuestion struct {
	Workspace, Repository string
	Branch                string // empty for the main branch
	After                 *CommitKey
	Size                  int
}

// CommitPage is a page of a branch's history, newest first.
type CommitPage struct {
	FullName string             `json:"full_name"` // of the repository
	Branch   string             `json:"branch"`    // empty for a repository without commits
	Commits  []bitbucket.Commit `json:"commits"`
	Next     *CommitKey         `json:"next,omitempty"`
}

// Commits lists the history of a branch live, from where the branch was at the first page. Equal questions
// within five seconds share an answer.
func (c *Catalog) Commits(ctx context.Context, q CommitQuestion) (CommitPage, error) {
	conn, err := c.open(ctx, q.Workspace)
	if err != nil {
		return CommitPage{}, err
	}
	question := []string{"commits", conn.ID, q.Repository, q.Branch, strconv.Itoa(q.Size)}
	if q.After != nil {
		question = append(question, q.After.Head, q.After.After)
	}
	return c.commits.ask(ctx, strings.Join(question, " "), func(ctx context.Context) (CommitPage, error) {
		return c.fetchCommits(ctx, conn, q)
	})
}

func (c *Catalog) fetchCommits(ctx context.Context, conn *account.Connection, q CommitQuestion) (CommitPage, error) {
	r, err := c.within(ctx, conn, q.Repository)
	if err != nil {
		return CommitPage{}, err
	}
	at := CommitKey{Branch: q.Branch}
	if q.After != nil {
		at = *q.After
	} else {
		if at.Branch == "" {
			at.Branch = r.MainBranch
		}
		if at.Branch == "" {
			return CommitPage{FullName: r.FullName}, nil
		}
		head, err := branchIn(ctx, conn, r, at.Branch)
		if err != nil {
			return CommitPage{}, err
		}
		at.Head = head.Target.Hash
	}
	p, err := conn.Account.Commits(ctx, r.Ref(), at.Head, "", at.After, q.Size)
	if err != nil {
		return CommitPage{}, err
	}
	out := CommitPage{FullName: r.FullName, Branch: at.Branch, Commits: p.Commits}
	if p.Next != "" {
		out.Next = &CommitKey{Branch: at.Branch, Head: at.Head, After: p.Next}
	}
	return out, nil
}

// branchIn reads a branch of a repository that was just read.
func branchIn(ctx context.Context, conn *account.Connection, r bitbucket.Repository, name string) (bitbucket.Branch, error) {
	b, err := conn.Account.Branch(ctx, r.Ref(), name)
	if bitbucket.IsKind(err, bitbucket.KindNotFound) {
		err = apierr.New(apierr.ReasonBranchNotFound, fmt.Sprintf(
			"The repository %s has no branch %q. Choose another branch, or push this one first.", r.FullName, name), apierr.WithCause(err))
	}
	return b, err
}

// Chosen names a commit as a person does: Commit in the history of Branch, or Tag.
type Chosen struct {
	Commit string // 7 to 40 hexadecimal digits, lower case
	Branch string
	Tag    string
}

// searched is how many of a branch's newest commits are searched for the beginning of a hash that Bitbucket
// itself does not know.
const searched = 3 * bitbucket.MaxCommitsPage

// Resolve finds the commit that a person means, live, and the repository's full name. The errors are
// TAG_NOT_FOUND, BRANCH_NOT_FOUND, COMMIT_NOT_FOUND, COMMIT_AMBIGUOUS, COMMIT_NOT_IN_BRANCH and those of
// [Catalog.Repository].
func (c *Catalog) Resolve(ctx context.Context, workspace, id string, chosen Chosen) (bitbucket.Commit, string, error) {
	conn, err := c.open(ctx, workspace)
	if err != nil {
		return bitbucket.Commit{}, "", err
	}
	r, err := c.within(ctx, conn, id)
	if err != nil {
		return bitbucket.Commit{}, "", err
	}
	if chosen.Tag != "" {
		t, err := conn.Account.Tag(ctx, r.Ref(), chosen.Tag)
		if bitbucket.IsKind(err, bitbucket.KindNotFound) {
			err = apierr.New(apierr.ReasonTagNotFound, fmt.Sprintf(
				"The repository %s has no tag %q. Choose another tag, or push this one first.", r.FullName, chosen.Tag), apierr.WithCause(err))
		}
		return t.Target, r.FullName, err
	}
	var commit bitbucket.Commit
	var head bitbucket.Branch
	var missing error
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) { head, err = branchIn(gctx, conn, r, chosen.Branch); return err })
	g.Go(func() (err error) {
		if commit, err = conn.Account.Commit(gctx, r.Ref(), chosen.Commit); bitbucket.IsKind(err, bitbucket.KindNotFound) {
			missing, err = err, nil
		}
		return err
	})
	if err := g.Wait(); err != nil {
		return bitbucket.Commit{}, "", err
	}
	if missing != nil {
		commit, err = searchBranch(ctx, conn, r, head, chosen.Commit, missing)
		return commit, r.FullName, err
	}
	// What can be reached from the commit and not from the branch: nothing, where the branch has the commit.
	outside, err := conn.Account.Commits(ctx, r.Ref(), commit.Hash, head.Target.Hash, "", 1)
	if err == nil && len(outside.Commits) > 0 {
		err = apierr.New(apierr.ReasonCommitNotInBranch, fmt.Sprintf(
			"The commit %s is not in the history of %s. Choose one that is, name the branch that has it, or a tag that points to it.",
			bitbucket.ShortHash(commit.Hash), chosen.Branch))
	}
	return commit, r.FullName, err
}

// searchBranch looks for the beginning of a hash among a branch's newest commits: what Bitbucket answers to one
// that several commits have is not known (BITBUCKET.md#commits).
func searchBranch(ctx context.Context, conn *account.Connection, r bitbucket.Repository, head bitbucket.Branch, beginning string, missing error) (bitbucket.Commit, error) {
	unknown := apierr.New(apierr.ReasonCommitNotFound, fmt.Sprintf(
		"The repository %s has no commit %s. Check the hash, or push the commit first.", r.FullName, beginning), apierr.WithCause(missing))
	if len(beginning) == 40 {
		return bitbucket.Commit{}, unknown
	}
	var found []bitbucket.Commit
	after := ""
	for n := 0; n < searched; n += bitbucket.MaxCommitsPage {
		p, err := conn.Account.Commits(ctx, r.Ref(), head.Target.Hash, "", after, bitbucket.MaxCommitsPage)
		if err != nil {
			return bitbucket.Commit{}, err
		}
		for _, one := range p.Commits {
			if strings.HasPrefix(one.Hash, beginning) {
				found = append(found, one)
			}
		}
		if after = p.Next; after == "" {
			break
		}
	}
	switch len(found) {
	case 0:
		return bitbucket.Commit{}, unknown
	case 1:
		return found[0], nil
	}
	return bitbucket.Commit{}, apierr.New(apierr.ReasonCommitAmbiguous, fmt.Sprintf(
		"%d commits of %s begin with %s. Give more digits of the hash, best all 40.", len(found), head.Name, beginning))
}
