package catalog

import (
	"context"
	"log/slog"
	"slices"
	"strings"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/services/repo/internal/account"
)

// Repository reads one repository live, with what the account may do on it. An account that cannot
// reach it gets REPOSITORY_NOT_FOUND.
func (c *Catalog) Repository(ctx context.Context, workspace, id string) (Repository, error) {
	conn, err := c.open(ctx, workspace)
	if err != nil {
		return Repository{}, err
	}
	r, err := c.within(ctx, conn, id)
	if err != nil {
		return Repository{}, err
	}
	return repositoryOf(r, c.permission(ctx, conn, r)), nil
}

// within reads a repository live and refuses one outside the Bitbucket workspaces that the workspace was
// narrowed to. It decides by where Bitbucket says the repository is now: it may have been transferred.
func (c *Catalog) within(ctx context.Context, conn *account.Connection, id string) (bitbucket.Repository, error) {
	r, err := c.live(ctx, conn, id)
	if err == nil {
		err = excluded(conn, r)
	}
	if err != nil {
		return bitbucket.Repository{}, err
	}
	return r, nil
}

// excluded is the answer about a repository that an admin narrowed the workspace away from. It does not tell
// the repository's name.
func excluded(conn *account.Connection, r bitbucket.Repository) error {
	if conn.Allows(r.Workspace.UUID) {
		return nil
	}
	return apierr.New(apierr.ReasonWorkspaceExcluded,
		"An admin narrowed this workspace to some Bitbucket workspaces, and this repository's is not among them: it is neither listed nor deployed. An owner or admin can add it under Integrations.")
}

// live reads a repository by its UUID, wherever it is now: where the list has it, else by the UUID
// alone (it may have been transferred, BITBUCKET.md#renames), and where Bitbucket does
// not find it so and there is no list yet, through one.
func (c *Catalog) live(ctx context.Context, conn *account.Connection, id string) (bitbucket.Repository, error) {
	have := c.current(ctx, conn).snapshot
	hint, known := have.find(id)
	if known {
		r, err := conn.Account.Repository(ctx, hint.ref())
		if !unreachable(err) {
			return r, err
		}
	}
	r, err := conn.Account.Repository(ctx, bitbucket.RefByID("", id, hint.FullName))
	if !unreachable(err) && !bitbucket.IsKind(err, bitbucket.KindInvalid) {
		return r, err
	}
	if have == nil {
		list, listErr := c.firstFetch(ctx, conn)
		if listErr != nil {
			return bitbucket.Repository{}, listErr
		}
		if hint, known = list.snapshot.find(id); known {
			return conn.Account.Repository(ctx, hint.ref())
		}
	}
	if err := accountThere(ctx, conn); err != nil {
		return bitbucket.Repository{}, err
	}
	name := "this repository"
	if hint.FullName != "" {
		name = hint.FullName
	}
	return bitbucket.Repository{}, apierr.New(apierr.ReasonRepositoryNotFound,
		"The connected Bitbucket account cannot reach "+name+", or it does not exist. Check the account's access at Bitbucket.",
		apierr.WithCause(err))
}

// accountThere asks for the connected account itself before "not found" is believed: outages have
// answered 404 to everything (BITBUCKET.md#no-access).
func accountThere(ctx context.Context, conn *account.Connection) error {
	_, err := conn.Account.User(ctx)
	if unreachable(err) {
		return apierr.New(apierr.ReasonBitbucketUnavailable,
			"Bitbucket finds nothing at the moment, not even the connected account. Try again in some minutes.", apierr.WithCause(err))
	}
	return err
}

// unreachable reports an answer that says the account does not see the repository there.
func unreachable(err error) bool {
	return bitbucket.IsKind(err, bitbucket.KindNotFound, bitbucket.KindForbidden, bitbucket.KindGone)
}

// permission reads what the account may do. That it cannot be read is no reason to withhold the
// repository.
func (c *Catalog) permission(ctx context.Context, conn *account.Connection, r bitbucket.Repository) bitbucket.Permission {
	p, err := conn.Account.RepositoryPermission(ctx, r.Workspace, r.UUID)
	if err != nil {
		c.log.WarnContext(ctx, "permission on a repository is not known", slog.String(logs.KeyRepository, r.FullName), logs.Err(err))
		return bitbucket.PermissionNone
	}
	return p
}

// lookup reads a repository by name, live. Equal questions within five seconds share an answer.
func (c *Catalog) lookup(ctx context.Context, conn *account.Connection, workspace, slug string) (Repository, error) {
	question := strings.Join([]string{"lookup", conn.ID, strings.ToLower(workspace), strings.ToLower(slug)}, " ")
	return c.lookups.ask(ctx, question, func(ctx context.Context) (Repository, error) {
		r, err := conn.Account.Repository(ctx, bitbucket.Ref{Workspace: workspace, Repository: slug, Label: workspace + "/" + slug})
		if err != nil {
			return Repository{}, err
		}
		if err := excluded(conn, r); err != nil {
			return Repository{}, err
		}
		return repositoryOf(r, c.permission(ctx, conn, r)), nil
	})
}

// lookupAnswer is the list of one repository that was pasted. One that cannot be reached is an
// empty list that says so.
func (c *Catalog) lookupAnswer(ctx context.Context, conn *account.Connection, workspace, slug string) (Answer, error) {
	a := Answer{FetchTime: c.now()}
	r, err := c.lookup(ctx, conn, workspace, slug)
	switch {
	case unreachable(err), apierr.Has(err, apierr.ReasonWorkspaceExcluded):
		a.Failures = []Failure{failureOf(workspace, err)}
	case err != nil:
		return Answer{}, err
	default:
		a.Repositories, a.Total = []Repository{r}, 1
	}
	return a, nil
}

// liveMatches brings the repository of that full name up to date among the matches, or finds it
// where nothing matches. While other names match, the text may be the beginning of one of them: no
// call is made for each letter that somebody types.
func (c *Catalog) liveMatches(ctx context.Context, conn *account.Connection, fullName string, matches []Repository, a *Answer) []Repository {
	at := slices.IndexFunc(matches, func(r Repository) bool { return strings.EqualFold(r.FullName, fullName) })
	if at < 0 && len(matches) > 0 {
		return matches
	}
	workspace, slug, _ := strings.Cut(fullName, "/")
	r, err := c.lookup(ctx, conn, workspace, slug)
	matches = slices.Clone(matches)
	switch {
	case err == nil && at < 0:
		return []Repository{r}
	case err == nil:
		matches[at] = r
	default:
		a.Failures = append([]Failure{failureOf(workspace, err)}, a.Failures...)
		if unreachable(err) && at >= 0 {
			matches = slices.Delete(matches, at, at+1)
		}
	}
	return matches
}
