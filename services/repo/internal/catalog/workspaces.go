package catalog

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"devpilot.io/bitbucket/pkg/bitbucket"
)

// BitbucketWorkspace is a Bitbucket workspace that the account belongs to.
type BitbucketWorkspace struct {
	bitbucket.Workspace
	Excluded bool // an admin narrowed the workspace away from it
}

// BitbucketWorkspaces lists them live, by name. One whose UUID Bitbucket does not tell cannot be chosen, and
// is left out.
func (c *Catalog) BitbucketWorkspaces(ctx context.Context, workspace string) ([]BitbucketWorkspace, error) {
	conn, err := c.open(ctx, workspace)
	if err != nil {
		return nil, err
	}
	list, err := conn.Account.Workspaces(ctx)
	if err != nil {
		return nil, fmt.Errorf("list Bitbucket workspaces: %w", err)
	}
	var out []BitbucketWorkspace
	for _, w := range uniqueWorkspaces(list.Values) {
		if w.UUID != "" {
			out = append(out, BitbucketWorkspace{Workspace: w.Workspace, Excluded: !conn.Allows(w.UUID)})
		}
	}
	slices.SortFunc(out, func(a, b BitbucketWorkspace) int {
		return cmp.Or(strings.Compare(a.Slug, b.Slug), strings.Compare(a.UUID, b.UUID))
	})
	return out, nil
}
