package tenant

import (
	"context"
	"slices"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/kv"
	gatewaystorev1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/store/v1"
)

func memberNotFound(workspace string) error {
	return apierr.Newf(apierr.ReasonMemberNotFound, "The workspace %q has no such member; the person may have left or been removed before.", workspace)
}

func lastOwnerStays(workspace string) error {
	return apierr.Newf(apierr.ReasonLastOwner, "This is the last owner of workspace %q, which must have one. Make somebody else an owner first.", workspace)
}

// By is who changes a team: nobody gives or takes more than the own role.
type By struct {
	Subject string
	Role    identity.Role
}

// Over refuses a role that is more than the own one.
func (b By) Over(workspace string, role identity.Role) error {
	if role > b.Role {
		return apierr.Newf(apierr.ReasonPermissionDenied, "Your role in workspace %s is %s: you can neither give nor take the role %s. Ask an owner.", workspace, b.Role, role)
	}
	return nil
}

// ChangeRole gives a member another role, from the next request on. A role that a provider's rules give
// cannot be lowered here: it would be back at the next sign-in.
func (s *Store) ChangeRole(ctx context.Context, workspace, subject string, role identity.Role, by By) (*gatewaystorev1.TeamMember, error) {
	t, err := s.changeTeam(ctx, workspace, func(t *gatewaystorev1.Team) error {
		m := memberOf(t, subject)
		if m == nil {
			return memberNotFound(workspace)
		}
		if err := by.Over(workspace, max(RoleOf(m), role)); err != nil {
			return err
		}
		switch {
		case role == RoleOf(m):
			return kv.ErrSkip
		case parsed(m.GetRuledRole()) > role:
			return apierr.Newf(apierr.ReasonMemberManaged, "%s has the role %s by a rule of the identity provider %q. Take the person out of the group there; a role given here can only add to it.", m.GetLabel(), m.GetRuledRole(), m.GetProvider())
		case role != identity.RoleOwner && s.lastOwner(t, subject):
			return lastOwnerStays(workspace)
		}
		m.Role = role.String()
		return nil
	})
	return memberOf(t, subject), err
}

// RemoveMember ends a membership, from the next request on, and with it what the person could do in the
// workspace by other means: its API keys are deleted, and its sessions end when it was the last workspace.
// A provider's rules do not let the person in again; an invitation does.
func (s *Store) RemoveMember(ctx context.Context, workspace, subject string, by By) error {
	_, err := s.changeTeam(ctx, workspace, func(t *gatewaystorev1.Team) error {
		m := memberOf(t, subject)
		if m == nil {
			return memberNotFound(workspace)
		}
		if subject != by.Subject {
			if by.Role < identity.RoleAdmin {
				return apierr.Newf(apierr.ReasonPermissionDenied, "Only an owner or admin of workspace %s can remove somebody else.", workspace)
			}
			if err := by.Over(workspace, RoleOf(m)); err != nil {
				return err
			}
		}
		if s.lastOwner(t, subject) {
			return lastOwnerStays(workspace)
		}
		if m.GetRuledRole() != "" {
			t.Removed = append(t.Removed, subject)
			t.Removed = t.Removed[max(0, len(t.Removed)-maxRemoved):]
		}
		drop(t, subject)
		return nil
	})
	if err != nil {
		return err
	}
	// The person is out. What follows is tidying, which a repeat of an interrupted request does not find
	// any more: keys of who is no member do not work, sessions of who is nowhere a member do nothing.
	if err := s.unlistWorkspace(ctx, subject, workspace); err != nil {
		return err
	}
	if err := s.deleteKeysOf(ctx, workspace, subject); err != nil {
		return err
	}
	a, err := s.Account(ctx, subject)
	if err != nil || len(a.GetWorkspaces()) > 0 {
		return err
	}
	return s.RaiseSessionEpoch(ctx, subject)
}

func (s *Store) deleteKeysOf(ctx context.Context, workspace, subject string) error {
	keys, _, err := s.ListKeys(ctx, workspace, "", maxKeys)
	if err != nil {
		return err
	}
	for _, k := range keys {
		if KeyOwner(k) != subject {
			continue
		}
		if err := s.DeleteKey(ctx, workspace, k.GetId()); err != nil && !apierr.Has(err, apierr.ReasonAPIKeyNotFound) {
			return err
		}
	}
	return nil
}

// Member is a member as the team has it, or MEMBER_NOT_FOUND.
func (s *Store) Member(ctx context.Context, workspace, subject string) (*gatewaystorev1.TeamMember, error) {
	t, err := s.Team(ctx, workspace)
	if err != nil {
		return nil, err
	}
	if m := memberOf(t, subject); m != nil {
		return m, nil
	}
	return nil, memberNotFound(workspace)
}

// MembersAfter returns at most limit members whose subjects come after the given one, and whether there
// are more.
func (s *Store) MembersAfter(ctx context.Context, workspace, after string, limit int) (list []*gatewaystorev1.TeamMember, more bool, err error) {
	t, err := s.Team(ctx, workspace)
	if err != nil {
		return nil, false, err
	}
	at, found := find(t, after)
	if found {
		at++
	}
	rest := t.GetMembers()[at:]
	return slices.Clone(rest[:min(limit, len(rest))]), len(rest) > limit, nil
}
