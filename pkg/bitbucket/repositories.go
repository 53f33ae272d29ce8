package bitbucket

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Ref names a repository in calls. Each part may be a slug or a UUID (with or without braces).
// Names change, UUIDs do not: store UUIDs and call by them (BITBUCKET.md#renames).
type Ref struct {
	Workspace  string // "" where only the repository's UUID is known
	Repository string
	Label      string // for errors; full_name where it is known
}

// RefByID names a repository by UUIDs. The Bitbucket workspace may be empty: Bitbucket then finds
// the repository by its own UUID alone, with empty braces for the workspace (BITBUCKET.md#one-repository;
// known, but not documented, so give the workspace where you can).
func RefByID(workspaceUUID, repositoryUUID, label string) Ref {
	return Ref{Workspace: workspaceUUID, Repository: repositoryUUID, Label: label}
}

// path is "repositories/<workspace>/<repository>", escaped.
func (r Ref) path() string {
	workspace := "%7B%7D"
	if r.Workspace != "" {
		workspace = pathID(r.Workspace)
	}
	return "repositories/" + workspace + "/" + pathID(r.Repository)
}

func (r Ref) subject() string {
	switch {
	case r.Label != "":
		return r.Label
	case IsUUID(NormalizeUUID(r.Repository)):
		return "the repository"
	default:
		return r.Workspace + "/" + r.Repository
	}
}

// Repository is a Bitbucket repository (BITBUCKET.md#one-repository).
type Repository struct {
	UUID       string // normalised: the id
	FullName   string // workspace/slug
	Name       string // for people
	Slug       string
	Workspace  Workspace
	Private    bool
	MainBranch string // "" for a repository without commits; may name a branch that was deleted
	UpdatedOn  time.Time
}

// Ref names the repository by its UUIDs.
func (r Repository) Ref() Ref { return RefByID(r.Workspace.UUID, r.UUID, r.FullName) }

type wireRepository struct {
	UUID       string        `json:"uuid"`
	FullName   string        `json:"full_name"`
	Name       string        `json:"name"`
	Slug       string        `json:"slug"`
	IsPrivate  bool          `json:"is_private"`
	UpdatedOn  wireTime      `json:"updated_on"`
	Workspace  wireWorkspace `json:"workspace"`
	MainBranch *struct {
		Name string `json:"name"`
	} `json:"mainbranch"`
}

func (w wireRepository) repository() Repository {
	r := Repository{
		UUID: NormalizeUUID(w.UUID), FullName: w.FullName, Name: w.Name, Slug: w.Slug,
		Workspace: w.Workspace.workspace(), Private: w.IsPrivate, UpdatedOn: time.Time(w.UpdatedOn),
	}
	workspace, slug, _ := strings.Cut(w.FullName, "/")
	if r.Slug == "" {
		r.Slug = slug
	}
	if r.Workspace.Slug == "" {
		r.Workspace.Slug = workspace
	}
	if r.Name == "" {
		r.Name = r.Slug
	}
	if w.MainBranch != nil {
		r.MainBranch = w.MainBranch.Name
	}
	return r
}

// wireTime reads Bitbucket's times, which have 0, 6 or 9 fractional digits and end in +00:00 or Z
// (BITBUCKET.md#webhook-answers). What is no time is the zero time: no listing fails for a date.
type wireTime time.Time

// UnmarshalJSON implements json.Unmarshaler.
func (t *wireTime) UnmarshalJSON(b []byte) error {
	if len(b) < 2 || b[0] != '"' {
		return nil
	}
	if parsed, err := time.Parse(time.RFC3339Nano, string(b[1:len(b)-1])); err == nil {
		*t = wireTime(parsed.UTC())
	}
	return nil
}

// Role filters a listing of repositories by the account's explicit rights (BITBUCKET.md#repositories).
type Role string

// The roles. Member is the one for pickers: it lists what the account can read by a grant and
// leaves out foreign public repositories.
const (
	RoleMember      Role = "member"
	RoleContributor Role = "contributor"
	RoleAdmin       Role = "admin"
	RoleOwner       Role = "owner"
)

// RepositoriesOptions narrows a listing of repositories.
type RepositoriesOptions struct {
	Role   Role   // "" lists everything visible, foreign public repositories too
	Filter string // in Bitbucket's query language; see [Contains] and [Equals]
	Sort   string // "" means "name", which pushes do not move
	Limit  int    // stop once so many are there; 0 for all
}

const repositoryFields = "uuid,full_name,name,slug,is_private,updated_on,mainbranch.name,workspace.uuid,workspace.slug,workspace.name"

// Repositories lists the repositories of one Bitbucket workspace (slug or UUID), all pages; later
// pages in parallel on an account with [Account.Parallel]. It needs the scope `repository`. On an
// error the values got so far come along with it.
func (a *Account) Repositories(ctx context.Context, workspace Workspace, o RepositoriesOptions) (Listing[Repository], error) {
	sort := o.Sort
	if sort == "" {
		sort = "name"
	}
	q := listQuery(sort, o.Filter, listFields(repositoryFields))
	if o.Role != "" {
		q.Set("role", string(o.Role))
	}
	k := call{route: RouteRepositories, subject: workspace.subject(), object: workspace.id(), path: "repositories/" + pathID(workspace.id()), query: q}
	l, err := list[wireRepository](ctx, a, k, o.Limit)
	return mapListing(l, wireRepository.repository, func(r Repository) bool { return IsUUID(r.UUID) && r.FullName != "" }), err
}

// Repository reads one repository. It needs the scope `repository`.
func (a *Account) Repository(ctx context.Context, ref Ref) (Repository, error) {
	var w wireRepository
	k := call{
		method: http.MethodGet, route: RouteRepository, subject: ref.subject(), object: ref.path(), path: ref.path(),
		query: url.Values{"fields": {repositoryFields}}, out: &w,
	}
	if err := a.do(ctx, k); err != nil {
		return Repository{}, err
	}
	r := w.repository()
	if !IsUUID(r.UUID) || r.FullName == "" {
		return Repository{}, a.client.bad(k, http.StatusOK, "the repository has no UUID or no name")
	}
	return r, nil
}

// listFields is the partial-response parameter of a listing whose values have the given fields. The
// envelope must be named too, or paging breaks (BITBUCKET.md#filters).
func listFields(valueFields string) string {
	return "next,size,page,pagelen,values." + strings.ReplaceAll(valueFields, ",", ",values.")
}

// Contains is a filter for text within a field, case ignored (BITBUCKET.md#filters).
func Contains(field, text string) string { return field + "~" + quoteFilter(text) }

// Equals is a filter for a field's exact value.
func Equals(field, text string) string { return field + "=" + quoteFilter(text) }

// quoteFilter quotes text for the query language.
func quoteFilter(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}
