package bitbucket

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// MaxCommitsPage is how many commits a page has at most.
const MaxCommitsPage = pageLen

const commitFields = "hash,message,date,author.raw,author.user.display_name"

// CommitPage is one page of a history, newest first.
type CommitPage struct {
	Commits []Commit
	// Next is the query of the next page; empty on the last one.
	Next string
}

// Commits lists size commits of the history of a branch, tag or hash, newest first: one call
// (BITBUCKET.md#commits). after is the Next of the page before; empty for the first. What can be reached
// from exclude is left out; empty excludes nothing. It needs the scope `repository`.
func (a *Account) Commits(ctx context.Context, ref Ref, include, exclude, after string, size int) (CommitPage, error) {
	query := url.Values{"include": {include}, "pagelen": {strconv.Itoa(size)}, "fields": {listFields(commitFields)}}
	if exclude != "" {
		query.Set("exclude", exclude)
	}
	var w page[wireCommit]
	k := call{
		method: http.MethodGet, route: RouteCommits, subject: ref.subject(), object: ref.path(), path: ref.path() + "/commits", query: query, out: &w,
	}
	if after != "" {
		var err error
		if k.query, err = url.ParseQuery(after); err != nil {
			return CommitPage{}, a.client.bad(k, http.StatusOK, "the link to the next page is not a URL")
		}
	}
	if err := a.do(ctx, k); err != nil {
		return CommitPage{}, err
	}
	next, err := a.nextLink(k, w.Next)
	if err != nil {
		return CommitPage{}, err
	}
	var p CommitPage
	for _, c := range w.Values.list {
		if c.Hash != "" {
			p.Commits = append(p.Commits, c.commit())
		}
	}
	if next == nil {
		return p, nil
	}
	// The page is asked for under the name that the repository has then: the old one may be a stranger's.
	if !strings.HasSuffix(strings.TrimSuffix(next.Path, "/"), "/commits") {
		return CommitPage{}, a.client.bad(k, http.StatusOK, "the link to the next page leads to another listing")
	}
	p.Next = next.RawQuery
	return p, nil
}

// Commit reads one commit by its hash or the beginning of it, at least 7 digits (BITBUCKET.md#commits). It
// needs the scope `repository`.
func (a *Account) Commit(ctx context.Context, ref Ref, hash string) (Commit, error) {
	var w wireCommit
	k := call{
		method: http.MethodGet, route: RouteCommit, subject: hash, object: ref.path(), path: ref.path() + "/commit/" + url.PathEscape(hash),
		query: url.Values{"fields": {commitFields}}, out: &w,
	}
	if err := a.do(ctx, k); err != nil {
		return Commit{}, err
	}
	if !strings.HasPrefix(w.Hash, hash) {
		return Commit{}, a.client.bad(k, http.StatusOK, "the answer is about another commit")
	}
	return w.commit(), nil
}

// Tags lists the tags of a repository with the commits they point to; none for a repository without
// tags. It needs the scope `repository`. On an error the values got so far come along with it.
func (a *Account) Tags(ctx context.Context, ref Ref, o BranchesOptions) (Listing[Branch], error) {
	return a.refs(ctx, ref, "tags", RouteTags, o)
}

// Tag reads one tag, and the commit that it points to. A name that git allows for no tag is answered
// without a call. It needs the scope `repository`.
func (a *Account) Tag(ctx context.Context, ref Ref, name string) (Branch, error) {
	return a.oneRef(ctx, ref, "tags", RouteTag, name)
}
