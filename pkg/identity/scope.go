package identity

import (
	"fmt"
	"slices"
	"strings"
)

// Scope bounds what a program may do, beside the role. The order is meant: a higher scope may do all
// that a lower one may.
type Scope int

// The scopes of DESIGN.md#words. People have none: their role alone decides.
const (
	ScopeNone   Scope = iota // not bounded
	ScopeRead                // read what every member may
	ScopeDeploy              // also deploy, cancel, redeploy, roll back
	ScopeAdmin               // also what admins and owners may, as far as the role goes
)

// String is the scope's word in lower case; "none" for ScopeNone.
func (s Scope) String() string {
	switch s {
	case ScopeNone:
		return "none"
	case ScopeRead:
		return "read"
	case ScopeDeploy:
		return "deploy"
	case ScopeAdmin:
		return "admin"
	}
	return fmt.Sprintf("scope(%d)", int(s))
}

// ParseScope reads the word of a scope, in any case; it does not know "none".
func ParseScope(s string) (Scope, error) {
	switch strings.ToLower(s) {
	case "read":
		return ScopeRead, nil
	case "deploy":
		return ScopeDeploy, nil
	case "admin":
		return ScopeAdmin, nil
	}
	return ScopeNone, fmt.Errorf("identity: %q is not a scope (read, deploy, admin)", s)
}

// ScopeOf is the scope that a call takes: it follows from the least role, and from whether the call
// changes anything, so that no call can be forgotten.
func ScopeOf(least Role, readOnly bool) Scope {
	switch {
	case least > RoleMember:
		return ScopeAdmin
	case readOnly:
		return ScopeRead
	}
	return ScopeDeploy
}

// Role is the role that goes with the scope where nobody says another.
func (s Scope) Role() Role {
	switch s {
	case ScopeRead, ScopeDeploy:
		return RoleMember
	case ScopeAdmin:
		return RoleAdmin
	case ScopeNone:
	}
	return RoleNone
}

// ScopeOfRole is the widest scope of a role: that of keys which were made with a role alone.
func ScopeOfRole(r Role) Scope {
	switch {
	case r > RoleMember:
		return ScopeAdmin
	case r == RoleMember:
		return ScopeDeploy
	}
	return ScopeNone
}

// MaxApps is how many apps a subject can be limited to: their ids are in every token.
const MaxApps = 20

// Apps are the apps that a subject is limited to. The zero value is no limit. It can be compared, so that
// an Identity can.
type Apps struct{ joined string }

// LimitedTo makes a limit; none of them is no limit.
func LimitedTo(ids ...string) Apps {
	ids = slices.Compact(slices.Sorted(slices.Values(ids)))
	return Apps{strings.Join(ids, ",")}
}

// Limited tells whether there is a limit.
func (a Apps) Limited() bool { return a.joined != "" }

// IDs are the apps, sorted; nil without a limit.
func (a Apps) IDs() []string {
	if !a.Limited() {
		return nil
	}
	return strings.Split(a.joined, ",")
}

// Has tells whether the subject may have to do with the app. Nothing is an app of a limit whose id is empty.
func (a Apps) Has(id string) bool { return !a.Limited() || slices.Contains(a.IDs(), id) }
