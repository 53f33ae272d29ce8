package hook

import (
	"time"
)

// Push is a delivery of the event repo:push (BITBUCKET.md#push-payload).
type Push struct {
	Repository Repository
	Actor      Actor
	// Changes has one element per updated ref, in the order of the payload; all of them count. It
	// may be empty: Bitbucket does send that, and then only polling the repository tells.
	Changes []Change
	// Unreadable is how many changes could not be understood and are not in Changes. They call for
	// polling the repository, too.
	Unreadable int
}

// Repository is what a payload tells of the repository. There is no slug, main branch or clone link
// in it.
type Repository struct {
	UUID          string // normalised; "" where the payload has none. Match by it
	FullName      string // for people; may have changed since it was linked
	Name          string
	WorkspaceUUID string // normalised
	WorkspaceSlug string
	Private       bool
}

// Actor is who pushed. All fields may be empty: pushes by access keys and deleted users name nobody.
type Actor struct {
	Kind        string // user, team, app_user, …
	UUID        string // normalised
	AccountID   string
	DisplayName string
	Nickname    string
}

// Label is how the actor is shown: nickname, else display name; "" for nobody.
func (a Actor) Label() string {
	if a.Nickname != "" {
		return a.Nickname
	}
	return a.DisplayName
}

// Change is one updated ref. At least one of Old and New is set.
type Change struct {
	Index     int  // its place in the payload, from 0
	Old       *Ref // nil when the ref was created
	New       *Ref // nil when the ref was deleted
	Created   bool
	Closed    bool // the ref was deleted
	Forced    bool // not a fast-forward
	Truncated bool // more commits than Commits lists
	// Commits are at most five, newest first; absent for deletions and tags. Never derive from them
	// what a push changed.
	Commits []Commit
}

// Ref returns the side that says what the change is about: New, or Old after a deletion.
func (c Change) Ref() Ref {
	if c.New != nil {
		return *c.New
	}
	return *c.Old
}

// Head returns the new head of a branch that was created or updated; ok is false for tags and
// deletions. This is what a deployment takes.
func (c Change) Head() (branch, hash string, ok bool) {
	if c.New == nil || c.New.Kind != Branch {
		return "", "", false
	}
	return c.New.Name, c.New.Target.Hash, true
}

// RefKind tells branches from tags.
type RefKind int

// The kinds. Whatever is not a tag counts as a branch (BITBUCKET.md#push-payload).
const (
	Branch RefKind = iota
	Tag
)

// String is the kind in lower case.
func (k RefKind) String() string {
	if k == Tag {
		return "tag"
	}
	return "branch"
}

// Ref is a branch or a tag at one moment.
type Ref struct {
	Kind   RefKind
	Name   string // without refs/heads/; case-sensitive; never empty
	Target Commit // of a tag the commit it points to, also for annotated ones
}

// Commit is a commit of a payload.
type Commit struct {
	Hash        string // 40 hexadecimal digits, lower case; "" where the payload has none that is
	Message     string // whole
	AuthorName  string
	AuthorEmail string
	Time        time.Time // zero where the payload has none
}
