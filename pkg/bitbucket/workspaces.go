package bitbucket

import (
	"context"
)

// Workspace is a Bitbucket workspace.
type Workspace struct {
	UUID string // normalised
	Slug string
	Name string // often empty: the listing of section 4.2 does not tell it
}

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
	return Workspace{UUID: NormalizeUUID(w.UUID), Slug: w.Slug, Name: w.Name}
}

// Workspaces lists the Bitbucket workspaces that the account can reach, sorted by slug, also those
// in which it only reaches single repositories (bitbucket.md section 4.2). It needs the scope
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
	}), err
}

// mapListing converts the values of a listing.
func mapListing[W, T any](l Listing[W], convert func(W) T) Listing[T] {
	values := make([]T, len(l.Values))
	for i := range l.Values {
		values[i] = convert(l.Values[i])
	}
	return Listing[T]{Values: values, Size: l.Size, Truncated: l.Truncated}
}
