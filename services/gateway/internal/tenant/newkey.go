package tenant

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/rpc"
	"devpilot.io/bitbucket/pkg/seal"
)

// NewKey describes a key to make.
type NewKey struct {
	Workspace  string
	Label      string
	Role       identity.Role
	Scope      identity.Scope
	Apps       []string  // none: the whole workspace
	ExpireTime time.Time // zero: never
	By         Subject
	ByKey      string        // the id of the key that makes it; empty for people
	Owner      string        // whose key it is; BoundByMaker finds it out
	ByRole     identity.Role // the creator's role of today
	Secret     seal.Secret   // of NewKeySecret; a new one when zero
}

func (n NewKey) check(now time.Time) error {
	var faults apierr.Faults
	if strings.TrimSpace(n.Label) == "" {
		faults.Add("label", "say what the key is for")
	}
	if utf8.RuneCountInString(n.Label) > maxLabel {
		faults.Add("label", fmt.Sprintf("at most %d characters", maxLabel))
	}
	faults.OneLine("label", n.Label)
	if n.Role < identity.RoleMember || n.Role > identity.RoleOwner {
		faults.Add("role", identity.RoleChoices)
	}
	switch {
	case n.Scope < identity.ScopeRead || n.Scope > identity.ScopeAdmin:
		faults.Add("scope", "READ, DEPLOY or ADMIN")
	case (n.Scope == identity.ScopeAdmin) != (n.Role > identity.RoleMember):
		faults.Add("scope", "READ and DEPLOY go with the role MEMBER, ADMIN with ADMIN or OWNER; leave one of the two out")
	}
	if len(n.Apps) > identity.MaxApps {
		faults.Add("apps", fmt.Sprintf("at most %d", identity.MaxApps))
	}
	for i, app := range n.Apps {
		switch at := fmt.Sprintf("apps[%d]", i); {
		case !rpc.ValidWorkspace(app): // ids of apps have the same form
			faults.Add(at, "the id of an app")
		case slices.Contains(n.Apps[:i], app):
			faults.Add(at, "it is there twice")
		}
	}
	if !n.ExpireTime.IsZero() && !n.ExpireTime.After(now) {
		faults.Add("expireTime", "a time in the future")
	}
	if err := faults.Err(); err != nil {
		return err
	}
	if n.Role > n.ByRole {
		return apierr.Newf(apierr.ReasonPermissionDenied, "Your role in workspace %s is %s: a key that you make can be at most that.", n.Workspace, n.ByRole).
			With(apierr.WithField("role", "at most your own role"))
	}
	return nil
}

// CheckKey refuses a key that cannot be made.
func (s *Store) CheckKey(n NewKey) error { return n.check(s.now()) }

// BoundByMaker has a key belong to whoever makes it. One that a key makes belongs to that key's person,
// and expires no later than its maker: without a time it gets its maker's.
func (s *Store) BoundByMaker(ctx context.Context, n *NewKey) error {
	if n.ByKey == "" {
		n.Owner = n.By.ID
		return nil
	}
	maker, _, err := s.keys.Get(ctx, n.ByKey)
	if errors.Is(err, kv.ErrNotFound) {
		return apierr.New(apierr.ReasonUnauthenticated, "The API key that asks for a new one was deleted meanwhile.")
	}
	if err != nil {
		return kv.ToAPI(err)
	}
	n.Owner = KeyOwner(maker)
	if maker.ExpireTime == nil {
		return nil
	}
	most := maker.ExpireTime.AsTime()
	if n.ExpireTime.IsZero() {
		n.ExpireTime = most
	}
	if n.ExpireTime.After(most) {
		return apierr.InvalidArgument("expireTime", "at most "+most.UTC().Format(time.RFC3339)+", when the API key that makes it expires")
	}
	return nil
}
