package bitbucket

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"

	"devpilot.io/bitbucket/pkg/bitbucket/internal/author"
)

// Branch is a branch and its head, or a tag and its commit (BITBUCKET.md#branches, BITBUCKET.md#tags).
type Branch struct {
	Name   string // case-sensitive; may hold slashes
	Target Commit
}

// Commit is a commit as branches and payloads show it.
type Commit struct {
	Hash        string // 40 hexadecimal digits
	Message     string // whole, usually with a trailing newline
	AuthorName  string
	AuthorEmail string // "" where the author line holds none
	Time        time.Time
}

type wireCommit struct {
	Hash    string   `json:"hash"`
	Message string   `json:"message"`
	Date    wireTime `json:"date"`
	Author  struct {
		Raw  string `json:"raw"`
		User *struct {
			DisplayName string `json:"display_name"`
		} `json:"user"`
	} `json:"author"`
}

func (w wireCommit) commit() Commit {
	c := Commit{Hash: w.Hash, Message: w.Message, Time: time.Time(w.Date)}
	c.AuthorName, c.AuthorEmail = author.Split(w.Author.Raw)
	if c.AuthorName == "" && w.Author.User != nil {
		c.AuthorName = w.Author.User.DisplayName
	}
	return c
}

type wireBranch struct {
	Name   string     `json:"name"`
	Target wireCommit `json:"target"`
}

func (w wireBranch) branch() Branch { return Branch{Name: w.Name, Target: w.Target.commit()} }

// BranchesOptions narrows a listing of branches or tags.
type BranchesOptions struct {
	Contains string // text within the name, case ignored; "" for all
	Sort     string // "" means "name"
	Limit    int    // stop once so many are there; 0 for all
}

const branchFields = "name,target.hash,target.message,target.date,target.author.raw,target.author.user.display_name"

// Branches lists the branches of a repository with their heads; none for a repository without
// commits. It needs the scope `repository`. On an error the values got so far come along with it.
func (a *Account) Branches(ctx context.Context, ref Ref, o BranchesOptions) (Listing[Branch], error) {
	return a.refs(ctx, ref, "branches", RouteBranches, o)
}

// Branch reads one branch. A name that git allows for no branch is answered without a call. It needs
// the scope `repository`.
func (a *Account) Branch(ctx context.Context, ref Ref, name string) (Branch, error) {
	return a.oneRef(ctx, ref, "branches", RouteBranch, name)
}

// refs lists branches or tags.
func (a *Account) refs(ctx context.Context, ref Ref, kind string, route Route, o BranchesOptions) (Listing[Branch], error) {
	sort := o.Sort
	if sort == "" {
		sort = "name"
	}
	filter := ""
	if o.Contains != "" {
		filter = Contains("name", o.Contains)
	}
	k := call{
		route: route, subject: ref.subject(), object: ref.path(), path: ref.path() + "/refs/" + kind,
		query: listQuery(sort, filter, listFields(branchFields)),
	}
	l, err := list[wireBranch](ctx, a, k, o.Limit)
	return mapListing(l, wireBranch.branch, func(b Branch) bool { return b.Name != "" && b.Target.Hash != "" }), err
}

// oneRef reads a branch or a tag.
func (a *Account) oneRef(ctx context.Context, ref Ref, kind string, route Route, name string) (Branch, error) {
	var w wireBranch
	k := call{
		method: http.MethodGet, route: route, subject: name, object: ref.path(), path: ref.path() + "/refs/" + kind + "/" + branchPath(name),
		query: url.Values{"fields": {branchFields}}, out: &w,
	}
	if !ValidBranchName(name) {
		return Branch{}, &Error{Kind: KindNotFound, Route: route, Subject: name, Message: "not a name of one"}
	}
	if err := a.do(ctx, k); err != nil {
		return Branch{}, err
	}
	if w.Name != name || w.Target.Hash == "" {
		return Branch{}, a.client.bad(k, http.StatusOK, "the answer is about another one")
	}
	return w.branch(), nil
}

// branchPath escapes a branch name for a path: slashes stay, everything else special is encoded
// (BITBUCKET.md#one-branch).
func branchPath(name string) string {
	segments := strings.Split(name, "/")
	for i := range segments {
		segments[i] = url.PathEscape(segments[i])
	}
	return strings.Join(segments, "/")
}

// ValidBranchName reports whether git would accept the name for a branch (git-check-ref-format,
// rules 1 to 10, and no leading hyphen). Such a name cannot climb out of a path and is never taken
// for an option.
func ValidBranchName(name string) bool {
	if name == "" || len(name) > 1024 || name == "@" || name[0] == '-' ||
		strings.HasSuffix(name, ".") || strings.Contains(name, "..") || strings.Contains(name, "@{") {
		return false
	}
	for _, r := range name {
		if r < 0x20 || r == 0x7f || strings.ContainsRune(" ~^:?*[\\", r) {
			return false
		}
	}
	for _, part := range strings.Split(name, "/") {
		if part == "" || part[0] == '.' || strings.HasSuffix(part, ".lock") {
			return false
		}
	}
	return true
}
