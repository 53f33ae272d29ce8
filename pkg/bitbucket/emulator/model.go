package emulator

import (
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

// namespace makes the UUIDs of seeded things the same in every emulator (UUID version 5), so documents can show them.
var namespace = uuid.NewSHA1(uuid.NameSpaceURL, []byte("https://bitbucket.example/emulator"))

// SeededUUID is the UUID, without braces, of a seeded thing: kind "account", "workspace", "project" or "repository";
// name is a user name, a slug, "workspace/KEY" or "workspace/slug".
func SeededUUID(kind, name string) string {
	return uuid.NewSHA1(namespace, []byte(kind+":"+strings.ToLower(name))).String()
}

// Account is a person. UUID is without braces.
type Account struct {
	UUID        string `json:"uuid"`
	AccountID   string `json:"account_id"`
	Username    string `json:"username"`
	Nickname    string `json:"nickname"`
	DisplayName string `json:"display_name"`
	Email       string `json:"email"`
	// Password is the emulator's stand-in for an API token: it lets a person push with git.
	Password  string    `json:"password"`
	CreatedOn time.Time `json:"created_on"`
}

// Workspace is a Bitbucket workspace.
type Workspace struct {
	UUID      string    `json:"uuid"`
	Slug      string    `json:"slug"`
	Name      string    `json:"name"`
	Personal  bool      `json:"personal"`
	Private   bool      `json:"private"`
	CreatedOn time.Time `json:"created_on"`
	// Members maps account UUIDs to owner, create-project or member. Owners administer every repository.
	Members map[string]string `json:"members"`
	// DefaultPermission is what a member has on every repository without an own entry, as by a group: "", read, write, admin.
	DefaultPermission string `json:"default_permission"`
	// Listing makes the listing of repositories fail: "" (works), "restricted" (403) or "deleted" (410).
	Listing string `json:"listing"`
}

// Repository is a git repository. MainBranch is empty until the first branch is pushed.
type Repository struct {
	UUID        string    `json:"uuid"`
	Workspace   string    `json:"workspace"` // UUID
	Slug        string    `json:"slug"`
	Name        string    `json:"name"`
	Description string    `json:"description"`
	Private     bool      `json:"private"`
	ProjectKey  string    `json:"project_key"`
	ProjectName string    `json:"project_name"`
	MainBranch  string    `json:"main_branch"`
	CreatedOn   time.Time `json:"created_on"`
	UpdatedOn   time.Time `json:"updated_on"`
	// Permissions maps account UUIDs to read, write, admin or none.
	Permissions map[string]string `json:"permissions"`
	// Seed names the commits it starts with; its directory is made when first touched. See seedChanges.
	Seed string `json:"seed"`
}

// Hook is a webhook subscription. Secret is accepted as input and never answered.
type Hook struct {
	UUID           string    `json:"uuid"`
	Repository     string    `json:"repository"` // UUID
	Description    string    `json:"description"`
	URL            string    `json:"url"`
	Active         bool      `json:"active"`
	Events         []string  `json:"events"`
	Secret         string    `json:"-"`
	SealedSecret   []byte    `json:"sealed_secret,omitempty"`
	HistoryEnabled bool      `json:"history_enabled"`
	CreatedAt      time.Time `json:"created_at"`
	Sequence       int64     `json:"sequence"`
}

// Grant is one consent of an account to a consumer.
type Grant struct {
	ID        string    `json:"id"`
	Account   string    `json:"account"` // UUID
	Consumer  string    `json:"consumer"`
	Scopes    []string  `json:"scopes"`
	CreatedAt time.Time `json:"created_at"`
	RevokedAt time.Time `json:"revoked_at,omitzero"`
	// Refreshes counts successful refreshes, RefreshesRefused those with a dead token of this grant or during a lock-out.
	Refreshes        int `json:"refreshes"`
	RefreshesRefused int `json:"refreshes_refused"`
}

// accessToken and refreshToken are stored under the SHA-256 of the token.
type accessToken struct {
	Grant     string    `json:"grant"`
	ExpiresAt time.Time `json:"expires_at"`
	// RevokedAt is set by the refresh that followed, if TokenOptions.RevokeAccess says so. It may be still to come.
	RevokedAt time.Time `json:"revoked_at,omitzero"`
}

type refreshToken struct {
	Grant string `json:"grant"`
	// LastUsed is when it was issued or, without rotation, last used: idle expiry counts from it.
	LastUsed time.Time `json:"last_used"`
	// FirstUsed is set by the refresh that replaced it; the grace counts from it.
	FirstUsed time.Time `json:"first_used,omitzero"`
}

// authCode is a pending authorization code. Codes are not persisted: they live for minutes.
type authCode struct {
	Account     string
	RedirectURI string // as sent to the authorize page; empty if it was not
	ExpiresAt   time.Time
	Used        bool
}

// BuildStatus is one commit build status.
type BuildStatus struct {
	Repository  string    `json:"repository"` // UUID
	Commit      string    `json:"commit"`
	Key         string    `json:"key"`
	State       string    `json:"state"`
	Name        string    `json:"name"`
	URL         string    `json:"url"`
	Description string    `json:"description"`
	Refname     string    `json:"refname"`
	Creator     string    `json:"creator"` // account UUID
	CreatedOn   time.Time `json:"created_on"`
	UpdatedOn   time.Time `json:"updated_on"`
}

// permissionRank orders permissions; unknown words rank as none.
func permissionRank(permission string) int {
	return max(0, slices.Index([]string{"none", "read", "write", "admin"}, permission))
}

func newUUID() string { return uuid.NewString() }

// braced is a UUID as the API writes it; stripBraces the reverse, lower case.
func braced(id string) string { return "{" + id + "}" }

func stripBraces(id string) (string, bool) {
	if len(id) >= 2 && id[0] == '{' && id[len(id)-1] == '}' {
		return strings.ToLower(id[1 : len(id)-1]), true
	}
	return id, false
}
