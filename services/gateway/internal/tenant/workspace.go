package tenant

import (
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
}

// Subject is a person or program that can be a member.
type Subject struct{ ID, Label string }

// Role returns the subject's role of today; RoleNone when it is not a member.
func (s *Store) Role(ctx context.Context, workspace, subject string) (identity.Role, error) {
	if !rpc.ValidWorkspace(workspace) {
		return identity.RoleNone, nil
	}
	m, _, err := s.copies.members.Get(ctx, kv.EncodeKey(workspace, subject))
	if errors.Is(err, kv.ErrNotFound) {
		return identity.RoleNone, nil
	}
	if err != nil {
		return identity.RoleNone, kv.ToAPI(err)
	}
	return identity.ParseRole(m.GetRole())
}

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
		return Workspace{}, workspaceNotFound(id)
	}
	w, rev, err := s.copies.workspaces.Get(ctx, id)
	if errors.Is(err, kv.ErrNotFound) {
		return Workspace{}, workspaceNotFound(id)
	}
	if err != nil {
		return Workspace{}, kv.ToAPI(err)
	}
	return Workspace{Workspace: w, Role: role, ETag: strconv.FormatUint(rev, 36)}, nil
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
	role, err := s.Role(ctx, id, owner.ID)
	if err != nil {
		return err
	}
	if w.GetCreatedBy() != owner.ID || role != identity.RoleNone {
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

// AddMember makes the subject a member with the role, or changes the role it has.
func (s *Store) AddMember(ctx context.Context, workspace string, who Subject, role identity.Role) error {
	// The list first: an entry without a member record shows nothing, a member record without an
	// entry would be a workspace that its member cannot find.
	_, _, err := s.accounts.Update(ctx, kv.EncodeKey(who.ID), func(a *gatewaystorev1.Account) (*gatewaystorev1.Account, error) {
		if a == nil {
			a = &gatewaystorev1.Account{Subject: who.ID}
		}
		at, found := slices.BinarySearch(a.Workspaces, workspace)
		if found {
			return nil, kv.ErrSkip
		}
		a.Workspaces = slices.Insert(a.Workspaces, at, workspace)
		return a, nil
	})
	if err != nil {
		return kv.ToAPI(err)
	}
	_, _, err = s.members.Update(ctx, kv.EncodeKey(workspace, who.ID), func(m *gatewaystorev1.Member) (*gatewaystorev1.Member, error) {
		if m == nil {
			m = &gatewaystorev1.Member{Workspace: workspace, Subject: who.ID, CreateTime: timestamppb.New(s.now())}
		}
		m.Label, m.Role = who.Label, role.String()
		return m, nil
	})
	return kv.ToAPI(err)
}

// RemoveMember ends a membership; one that is not there is not an error.
func (s *Store) RemoveMember(ctx context.Context, workspace, subject string) error {
	if err := s.members.Delete(ctx, kv.EncodeKey(workspace, subject), 0); err != nil && !errors.Is(err, kv.ErrNotFound) {
		return kv.ToAPI(err)
	}
	_, _, err := s.accounts.Update(ctx, kv.EncodeKey(subject), func(a *gatewaystorev1.Account) (*gatewaystorev1.Account, error) {
		at, found := slices.BinarySearch(a.GetWorkspaces(), workspace)
		if !found {
			return nil, kv.ErrSkip
		}
		a.Workspaces = slices.Delete(a.Workspaces, at, at+1)
		return a, nil
	})
	return kv.ToAPI(err)
}

// List returns at most limit workspaces of the subject whose ids come after the given one, by id,
// and whether there are more.
func (s *Store) List(ctx context.Context, subject, after string, limit int) (list []Workspace, more bool, err error) {
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
		role, err := s.Role(ctx, id, subject)
		if err != nil {
			return nil, false, err
		}
		if role == identity.RoleNone {
			continue
		}
		w, err := s.Get(ctx, id, role)
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
