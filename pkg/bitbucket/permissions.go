package bitbucket

import (
	"context"
)

// Permission is what an account may do on a repository, by direct and group rights together.
type Permission string

// The permissions. A webhook can be registered only with PermissionAdmin (BITBUCKET.md#scopes).
const (
	PermissionNone  Permission = "none"
	PermissionRead  Permission = "read"
	PermissionWrite Permission = "write"
	PermissionAdmin Permission = "admin"
)

// RepositoryPermission is the account's permission on one repository.
type RepositoryPermission struct {
	RepositoryUUID string // normalised
	FullName       string
	Permission     Permission
}

const permissionFields = "permission,repository.uuid,repository.full_name"

// RepositoryPermissions lists the account's effective permissions in one Bitbucket workspace (slug
// or UUID). Public repositories without a grant are not in it (BITBUCKET.md#permissions). filter may
// be empty, or narrow it, as Equals("repository.uuid", "{…}") does. It needs the scopes `account`
// and `repository`.
func (a *Account) RepositoryPermissions(ctx context.Context, workspace Workspace, filter string) (Listing[RepositoryPermission], error) {
	type permission struct {
		Permission string `json:"permission"`
		Repository struct {
			UUID     string `json:"uuid"`
			FullName string `json:"full_name"`
		} `json:"repository"`
	}
	k := call{
		route: RoutePermissions, subject: workspace.subject(), object: workspace.id(),
		path:  "user/workspaces/" + pathID(workspace.id()) + "/permissions/repositories",
		query: listQuery("repository.name", filter, listFields(permissionFields)),
	}
	l, err := list[permission](ctx, a, k, 0)
	return mapListing(l, func(w permission) RepositoryPermission {
		return RepositoryPermission{
			RepositoryUUID: NormalizeUUID(w.Repository.UUID), FullName: w.Repository.FullName, Permission: Permission(w.Permission),
		}
	}, func(p RepositoryPermission) bool { return IsUUID(p.RepositoryUUID) }), err
}

// RepositoryPermission reads the account's permission on one repository; PermissionNone where
// Bitbucket lists none.
func (a *Account) RepositoryPermission(ctx context.Context, workspace Workspace, repositoryUUID string) (Permission, error) {
	id := NormalizeUUID(repositoryUUID)
	l, err := a.RepositoryPermissions(ctx, workspace, Equals("repository.uuid", "{"+id+"}"))
	if err != nil {
		return PermissionNone, err
	}
	for _, p := range l.Values {
		if p.RepositoryUUID == id {
			return p.Permission, nil
		}
	}
	return PermissionNone, nil
}
