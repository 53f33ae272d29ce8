package bitbucket

import (
	"context"
)

// Workspace is a Bitbucket workspace.
type Workspace struct {
	UUID string // normalised
	Slug string
	Name string // often empty: the listing of BITBUCKET.md#workspaces does not tell it
}

// Label is how people know the Bitbucket workspace.
func (w Workspace) Label() string {
	switch {
	case w.Slug != "":
		return w.Slug
	case w.Name != "":
		return w.Name
	default:
		return "without a name"
	}
}

// id is how calls name it: the UUID stays.
func (w Workspace) id() string {
	if w.UUID != "" {
		return w.UUID
	}
	return w.Slug
}

func (w Workspace) subject() string { return "the Bitbucket workspace " + w.Label() }

// WorkspaceAccess is a Bitbucket workspace that the account can reach.
type WorkspaceAccess struct {
	Workspace
	Administrator bool // the account administers the Bitbucket workspace
}

type wireWorkspace struct {
	UUID string `json:"uuid"`
	Slug string `json:"slug"`
	Name string `json:"name"`
}

func (w wireWorkspace) workspace() Workspace {
	id := NormalizeUUID(w.UUID)
	if !IsUUID(id) {
		id = "" // the slug will do
	}
	return Workspace{UUID: id, Slug: w.Slug, Name: w.Name}
}

// Workspaces lists the Bitbucket workspaces that the account can reach, sorted by slug, also those
// in which it only reaches single repositories (BITBUCKET.md#workspaces). It needs the scope
// `account`.
func (a *Account) Workspaces(ctx context.Context) (Listing[WorkspaceAccess], error) {
	type access struct {
		Administrator bool          `json:"administrator"`
		Workspace     wireWorkspace `json:"workspace"`
	}
	k := call{route: RouteWorkspaces, subject: "your Bitbucket workspaces", path: "user/workspaces", query: listQuery("slug", "", "")}
	l, err := list[access](ctx, a, k, 0)
	return mapListing(l, func(w access) WorkspaceAccess {
		return WorkspaceAccess{Workspace: w.Workspace.workspace(), Administrator: w.Administrator}
	}, func(w WorkspaceAccess) bool { return w.UUID != "" || w.Slug != "" }), err
}

// mapListing converts the values of a listing, and skips those that lack what everything else hangs
// on.
func mapListing[W, T any](l Listing[W], convert func(W) T, usable func(T) bool) Listing[T] {
	out := Listing[T]{Values: make([]T, 0, len(l.Values)), Size: l.Size, Truncated: l.Truncated, Skipped: l.Skipped}
	for i := range l.Values {
		if v := convert(l.Values[i]); usable(v) {
			out.Values = append(out.Values, v)
		} else {
			out.Skipped++
		}
	}
	return out
}
