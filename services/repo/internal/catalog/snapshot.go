package catalog

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
)

// Repository is a repository that the connected account can reach.
type Repository struct {
	ID            string    `json:"id"` // Bitbucket's UUID, normalised
	FullName      string    `json:"full_name"`
	Name          string    `json:"name,omitempty"`
	WorkspaceSlug string    `json:"ws,omitempty"`    // of the Bitbucket workspace
	WorkspaceID   string    `json:"ws_id,omitempty"` // UUID of the Bitbucket workspace, normalised
	Private       bool      `json:"private,omitempty"`
	MainBranch    string    `json:"main,omitempty"` // "" without commits
	UpdateTime    time.Time `json:"updated,omitzero"`
	// Permission is PermissionNone where it is not known: no grant is listed, or the listing of
	// grants failed.
	Permission bitbucket.Permission `json:"permission,omitempty"`
}

func repositoryOf(r bitbucket.Repository, p bitbucket.Permission) Repository {
	return Repository{
		ID: r.UUID, FullName: r.FullName, Name: r.Name, WorkspaceSlug: r.Workspace.Slug, WorkspaceID: r.Workspace.UUID,
		Private: r.Private, MainBranch: r.MainBranch, UpdateTime: r.UpdatedOn, Permission: p,
	}
}

// ref names the repository in calls.
func (r Repository) ref() bitbucket.Ref { return bitbucket.RefByID(r.WorkspaceID, r.ID, r.FullName) }

// Failure is a part of a list that is missing, incomplete or older than the rest.
type Failure struct {
	Workspace string        `json:"workspace,omitempty"` // slug of the Bitbucket workspace; "" for the whole list
	Reason    apierr.Reason `json:"reason"`
	Message   string        `json:"message"` // for people
}

// failureOf words an error as a failure.
func failureOf(workspace string, err error) Failure {
	e := apierr.From(err)
	return Failure{Workspace: workspace, Reason: e.Reason(), Message: e.Message()}
}

// Snapshot is all repositories of one connection at one moment. It does not change once made.
type Snapshot struct {
	Connection string `json:"connection"`
	// FetchTime is when the walk began: what changed later may be missing.
	FetchTime    time.Time    `json:"fetch_time"`
	Repositories []Repository `json:"repositories"` // in the order of Key
	Failures     []Failure    `json:"failures,omitempty"`
	// Partial marks a walk that is still going on; such a snapshot is never kept.
	Partial bool `json:"-"`
}

// find returns the repository with that id.
func (s *Snapshot) find(id string) (Repository, bool) {
	if s == nil {
		return Repository{}, false
	}
	i := slices.IndexFunc(s.Repositories, func(r Repository) bool { return r.ID == id })
	if i < 0 {
		return Repository{}, false
	}
	return s.Repositories[i], true
}

// Key is the place of a repository in a list: sorted by full name, the id for a tie. A page begins
// after the key of the one before, whatever was added or removed meanwhile.
type Key struct {
	FullName string `json:"n"`
	ID       string `json:"i"`
}

func keyOf(r Repository) Key { return Key{FullName: r.FullName, ID: r.ID} }

func (k Key) compare(o Key) int {
	return cmp.Or(strings.Compare(k.FullName, o.FullName), strings.Compare(k.ID, o.ID))
}

func sortRepositories(list []Repository) {
	slices.SortFunc(list, func(a, b Repository) int { return keyOf(a).compare(keyOf(b)) })
}

// search returns the repositories whose full name or name contains the text, case ignored, in
// order. Empty text matches all.
func search(list []Repository, text string) []Repository {
	text = strings.ToLower(text)
	if text == "" {
		return list
	}
	var found []Repository
	for _, r := range list {
		if strings.Contains(strings.ToLower(r.FullName), text) || strings.Contains(strings.ToLower(r.Name), text) {
			found = append(found, r)
		}
	}
	return found
}

// page cuts a page out of a sorted list: at most size values after the key. more tells whether
// others follow.
func page[T any](list []T, size int, isAfter func(T) bool) (values []T, more bool) {
	// The list is sorted by what isAfter compares, so the first match begins the page.
	begin := slices.IndexFunc(list, isAfter)
	if begin < 0 {
		return nil, false
	}
	end := min(begin+size, len(list))
	return list[begin:end], end < len(list)
}
