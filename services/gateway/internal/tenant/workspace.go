package tenant

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/rpc"
	gatewaystorev1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/store/v1"
)

// Workspace is a tenant as one of its members sees it.
type Workspace struct {
	*gatewaystorev1.Workspace
	Role identity.Role
	ETag string
	// Label is Standing's, of the subject whose workspaces are listed.
	Label string
}

// Subject is a person or program that can be a member. Email is empty where none is known.
type Subject struct{ ID, Label, Email string }

// CheckID refuses what cannot be a workspace's id.
func CheckID(id string) error {
	if rpc.ValidWorkspace(id) {
		return nil
	}
	return apierr.InvalidArgument("workspaceId", "1 to 63 lower-case letters, digits and hyphens, beginning with a letter or digit")
}

// Get returns a workspace as a caller of that role sees it; WORKSPACE_NOT_FOUND.
func (s *Store) Get(ctx context.Context, id string, role identity.Role) (Workspace, error) {
	if !rpc.ValidWorkspace(id) {
		return Workspace{}, WorkspaceNotFound(id)
	}
	w, rev, err := s.copies.workspaces.Get(ctx, id)
	if errors.Is(err, kv.ErrNotFound) {
		return Workspace{}, WorkspaceNotFound(id)
	}
	if err != nil {
		return Workspace{}, kv.ToAPI(err)
	}
	return Workspace{Workspace: w, Role: role, ETag: etagOf(rev)}, nil
}

// Create makes a workspace with the subject as its owner; WORKSPACE_EXISTS. A create that was cut
// off between its writes is completed by a repeat.
func (s *Store) Create(ctx context.Context, id, displayName string, owner Subject) (Workspace, error) {
	if err := CheckID(id); err != nil {
		return Workspace{}, err
	}
	if displayName == "" {
		displayName = id
	}
	w := &gatewaystorev1.Workspace{Id: id, DisplayName: displayName, CreatedBy: owner.ID, CreateTime: timestamppb.New(s.now())}
	_, err := s.workspaces.Create(ctx, id, w)
	switch {
	case errors.Is(err, kv.ErrExists):
		if err := s.mayComplete(ctx, id, owner); err != nil {
			return Workspace{}, err
		}
	case err != nil:
		return Workspace{}, kv.ToAPI(err)
	}
	if err := s.AddMember(ctx, id, owner, identity.RoleOwner); err != nil {
		return Workspace{}, err
	}
	return s.Get(ctx, id, identity.RoleOwner)
}

// mayComplete tells the workspace that somebody has from one whose owner was never recorded.
func (s *Store) mayComplete(ctx context.Context, id string, owner Subject) error {
	exists := apierr.Newf(apierr.ReasonWorkspaceExists, "The workspace %q exists already. Choose another id.", id)
	w, _, err := s.workspaces.Get(ctx, id)
	if errors.Is(err, kv.ErrNotFound) {
		return exists // gone in this very moment; the caller may try again
	}
	if err != nil {
		return kv.ToAPI(err)
	}
	t, err := s.Team(ctx, id)
	if err != nil {
		return err
	}
	if w.GetDeleteTime() != nil {
		return apierr.Newf(apierr.ReasonWorkspaceExists, "The id %q is that of a workspace that was deleted. Ids are not given out again. Choose another one.", id)
	}
	if w.GetCreatedBy() != owner.ID || len(t.GetMembers()) > 0 { // whoever was removed does not come back so
		return exists
	}
	return nil
}

// Ensure makes the workspace with its owner unless it exists.
func (s *Store) Ensure(ctx context.Context, id, displayName string, owner Subject) error {
	_, err := s.Create(ctx, id, displayName, owner)
	if apierr.Has(err, apierr.ReasonWorkspaceExists) {
		return nil
	}
	return err
}

// Rename is a change of a workspace's name; Only asks what is wrong with it, and changes nothing.
type Rename struct {
	DisplayName string // empty: the id
	ETag        string // empty: whatever it is now
	Only        bool
}

// Rename gives a workspace another name for people; WORKSPACE_NOT_FOUND, ETAG_MISMATCH.
func (s *Store) Rename(ctx context.Context, id string, role identity.Role, r Rename) (Workspace, error) {
	if !rpc.ValidWorkspace(id) {
		return Workspace{}, WorkspaceNotFound(id)
	}
	for {
		w, rev, err := s.workspaces.Get(ctx, id)
		if errors.Is(err, kv.ErrNotFound) {
			return Workspace{}, WorkspaceNotFound(id)
		}
		if err != nil {
			return Workspace{}, kv.ToAPI(err)
		}
		now := Workspace{Workspace: w, Role: role, ETag: etagOf(rev)}
		if r.ETag != "" && r.ETag != now.ETag {
			return Workspace{}, apierr.New(apierr.ReasonEtagMismatch, "Somebody else changed the workspace meanwhile. Load it again and repeat your change.")
		}
		name := cmp.Or(r.DisplayName, id)
		if r.Only || w.GetDisplayName() == name {
			return now, nil
		}
		w.DisplayName = name
		rev, err = s.workspaces.CompareAndSet(ctx, id, w, rev)
		if errors.Is(err, kv.ErrConflict) {
			continue
		}
		return Workspace{Workspace: w, Role: role, ETag: etagOf(rev)}, kv.ToAPI(err)
	}
}

func etagOf(rev uint64) string { return strconv.FormatUint(rev, 36) }

// List returns at most limit workspaces of the subject whose ids come after the given one, by id,
// and whether there are more.
func (s *Store) List(ctx context.Context, subject, after string, limit int) (list []Workspace, more bool, err error) {
	return s.list(ctx, subject, after, limit, false)
}

// ListAll is List with the deleted workspaces that the subject owned.
func (s *Store) ListAll(ctx context.Context, subject, after string, limit int) (list []Workspace, more bool, err error) {
	return s.list(ctx, subject, after, limit, true)
}

func (s *Store) list(ctx context.Context, subject, after string, limit int, deletedToo bool) (list []Workspace, more bool, err error) {
	a, _, err := s.copies.accounts.Get(ctx, kv.EncodeKey(subject))
	if errors.Is(err, kv.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, kv.ToAPI(err)
	}
	ids := a.GetWorkspaces()
	at, found := slices.BinarySearch(ids, after)
	if found {
		at++
	}
	for _, id := range ids[at:] {
		if len(list) == limit {
			return list, true, nil
		}
		is, err := s.Standing(ctx, id, subject)
		if err != nil {
			return nil, false, err
		}
		if is.Role == identity.RoleNone || is.Closed == Deleted && !deletedToo {
			continue
		}
		w, err := s.Get(ctx, id, is.Role)
		w.Label = is.Label
		switch {
		case apierr.Has(err, apierr.ReasonWorkspaceNotFound):
		case err != nil:
			return nil, false, err
		default:
			list = append(list, w)
		}
	}
	return list, false, nil
}
