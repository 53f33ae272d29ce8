package tenant

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/rpc"
	gatewaystorev1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/store/v1"
)

// A team is one record: these bound it.
const (
	maxMembers = 500
	maxRemoved = 500
)

// Standing is how a subject stands in a workspace today.
type Standing struct {
	Role   identity.Role // RoleNone when it is not a member
	Closed Closed        // whether the workspace is
	// Label is what the subject is called there, so that no other member is called the same; empty where the
	// subject's own name does.
	Label string
}

// standing is what every request needs of a team, kept beside its record.
type standing struct {
	roles  map[string]identity.Role
	labels map[string]string
	closed Closed
}

func (s standing) of(subject string) Standing {
	return Standing{Role: s.roles[subject], Closed: s.closed, Label: s.labels[subject]}
}

func standingOf(_ string, t *gatewaystorev1.Team) any {
	out := standing{make(map[string]identity.Role, len(t.GetMembers())), sharedLabels(t), closedOf(t)}
	for _, m := range t.GetMembers() {
		out.roles[m.GetSubject()] = RoleOf(m)
	}
	return out
}

// sharedLabels are other labels for members whose name another member has too, by subject: with the address behind
// the name, or where that does not tell them apart with the end of the subject.
func sharedLabels(t *gatewaystorev1.Team) map[string]string {
	count := func(label func(m *gatewaystorev1.TeamMember) string) map[string]int {
		n := map[string]int{}
		for _, m := range t.GetMembers() {
			n[strings.ToLower(label(m))]++
		}
		return n
	}
	withEmail := func(m *gatewaystorev1.TeamMember) string { return m.GetLabel() + " (" + m.GetEmail() + ")" }
	names, addressed := count((*gatewaystorev1.TeamMember).GetLabel), count(withEmail)
	var out map[string]string
	for _, m := range t.GetMembers() {
		if names[strings.ToLower(m.GetLabel())] < 2 {
			continue
		}
		if out == nil {
			out = map[string]string{}
		}
		label, low := withEmail(m), strings.ToLower(withEmail(m))
		if m.GetEmail() == "" || addressed[low] > 1 || names[low] > 0 {
			subject := m.GetSubject()
			label = m.GetLabel() + " (" + subject[max(0, len(subject)-8):] + ")"
		}
		out[m.GetSubject()] = label
	}
	return out
}

// RoleOf is the higher of the role that somebody gave and the one of a provider's rules.
func RoleOf(m *gatewaystorev1.TeamMember) identity.Role {
	return max(parsed(m.GetRole()), parsed(m.GetRuledRole()))
}

func parsed(word string) identity.Role {
	role, err := identity.ParseRole(word)
	if err != nil {
		return identity.RoleNone
	}
	return role
}

// Role returns the subject's role of today; RoleNone when it is not a member, or the workspace was deleted.
func (s *Store) Role(ctx context.Context, workspace, subject string) (identity.Role, error) {
	is, err := s.Standing(ctx, workspace, subject)
	if is.Closed == Deleted {
		is.Role = identity.RoleNone
	}
	return is.Role, err
}

// Standing returns how the subject stands today, also in a workspace that is closed.
func (s *Store) Standing(ctx context.Context, workspace, subject string) (Standing, error) {
	if !rpc.ValidWorkspace(workspace) {
		return Standing{}, nil
	}
	view, err := s.copies.teams.Fresh(ctx)
	if err != nil {
		return Standing{}, kv.ToAPI(err)
	}
	if known, ok := view.Summary(workspace); ok {
		known, _ := known.(standing)
		return known.of(subject), nil
	}
	t, _, err := view.Get(ctx, workspace)
	if errors.Is(err, kv.ErrNotFound) {
		t, err = s.founded(ctx, workspace)
	}
	if err != nil {
		return Standing{}, kv.ToAPI(err)
	}
	return Standing{Role: RoleOf(memberOf(t, subject)), Closed: closedOf(t), Label: sharedLabels(t)[subject]}, nil
}

// founded is the team of a workspace that has no record of one: who made it, from the time before there
// were teams.
func (s *Store) founded(ctx context.Context, workspace string) (*gatewaystorev1.Team, error) {
	t := &gatewaystorev1.Team{}
	w, _, err := s.copies.workspaces.Get(ctx, workspace)
	if errors.Is(err, kv.ErrNotFound) {
		return t, nil
	}
	if err != nil {
		return nil, err
	}
	m, _, err := s.members.Get(ctx, kv.EncodeKey(workspace, w.GetCreatedBy()))
	if errors.Is(err, kv.ErrNotFound) {
		return t, nil
	}
	if err != nil {
		return nil, err
	}
	t.Members = []*gatewaystorev1.TeamMember{{Subject: m.GetSubject(), Label: m.GetLabel(), Role: m.GetRole(), CreateTime: m.GetCreateTime()}}
	return t, nil
}

// Team returns who may do what in a workspace.
func (s *Store) Team(ctx context.Context, workspace string) (*gatewaystorev1.Team, error) {
	t, _, err := s.copies.teams.Get(ctx, workspace)
	if errors.Is(err, kv.ErrNotFound) {
		t, err = s.founded(ctx, workspace)
	}
	return t, kv.ToAPI(err)
}

// changeTeam changes a team in one step. change may run several times; kv.ErrSkip leaves the team alone.
func (s *Store) changeTeam(ctx context.Context, workspace string, change func(t *gatewaystorev1.Team) error) (*gatewaystorev1.Team, error) {
	first, err := s.founded(ctx, workspace)
	if err != nil {
		return nil, kv.ToAPI(err)
	}
	t, _, err := s.teams.Update(ctx, workspace, func(t *gatewaystorev1.Team) (*gatewaystorev1.Team, error) {
		if t == nil {
			t = first
		}
		if err := change(t); err != nil {
			return nil, err
		}
		return t, nil
	})
	return t, kv.ToAPI(err)
}

func find(t *gatewaystorev1.Team, subject string) (at int, found bool) {
	return slices.BinarySearchFunc(t.GetMembers(), subject, func(m *gatewaystorev1.TeamMember, subject string) int {
		return strings.Compare(m.GetSubject(), subject)
	})
}

// memberOf is nil for a subject that is none.
func memberOf(t *gatewaystorev1.Team, subject string) *gatewaystorev1.TeamMember {
	if at, found := find(t, subject); found {
		return t.GetMembers()[at]
	}
	return nil
}

// joined is the member of the subject, made when there is none.
func (s *Store) joined(t *gatewaystorev1.Team, who Subject) (*gatewaystorev1.TeamMember, error) {
	at, found := find(t, who.ID)
	if t.GetClosed() && !found {
		return nil, apierr.New(apierr.ReasonWorkspaceBeingDeleted, "The workspace is being deleted, and nobody comes in any more.")
	}
	if !found {
		if len(t.GetMembers()) >= maxMembers {
			return nil, apierr.Newf(apierr.ReasonTeamFull, "The workspace has %d members, which is the most there can be.", maxMembers)
		}
		t.Members = slices.Insert(t.Members, at, &gatewaystorev1.TeamMember{Subject: who.ID, CreateTime: timestamppb.New(s.now())})
	}
	m := t.GetMembers()[at]
	m.Label, m.Email = cmp.Or(who.Label, m.GetLabel()), cmp.Or(who.Email, m.GetEmail())
	return m, nil
}

func drop(t *gatewaystorev1.Team, subject string) {
	if at, found := find(t, subject); found {
		t.Members = slices.Delete(t.Members, at, at+1)
	}
}

// lastOwner tells whether nobody but the subject can act as owner. Who cannot sign in does not count.
func (s *Store) lastOwner(t *gatewaystorev1.Team, subject string) bool {
	if RoleOf(memberOf(t, subject)) != identity.RoleOwner {
		return false
	}
	return !slices.ContainsFunc(t.GetMembers(), func(m *gatewaystorev1.TeamMember) bool {
		return m.GetSubject() != subject && m.GetSubject() != s.opts.Absent && RoleOf(m) == identity.RoleOwner
	})
}

// AddMember makes the subject a member with the role, or changes the role that it was given.
func (s *Store) AddMember(ctx context.Context, workspace string, who Subject, role identity.Role) error {
	if err := s.listWorkspace(ctx, who.ID, workspace); err != nil {
		return err
	}
	_, err := s.changeTeam(ctx, workspace, func(t *gatewaystorev1.Team) error {
		m, err := s.joined(t, who)
		if err != nil {
			return err
		}
		m.Role = role.String()
		return nil
	})
	return err
}

// listWorkspace comes before the team: an entry without a member shows nothing, a member without an entry
// would have a workspace that cannot be found.
func (s *Store) listWorkspace(ctx context.Context, subject, workspace string) error {
	_, _, err := s.accounts.Update(ctx, kv.EncodeKey(subject), func(a *gatewaystorev1.Account) (*gatewaystorev1.Account, error) {
		if a == nil {
			a = &gatewaystorev1.Account{Subject: subject}
		}
		at, found := slices.BinarySearch(a.Workspaces, workspace)
		if found {
			return nil, kv.ErrSkip
		}
		a.Workspaces = slices.Insert(a.Workspaces, at, workspace)
		return a, nil
	})
	return kv.ToAPI(err)
}

func (s *Store) unlistWorkspace(ctx context.Context, subject, workspace string) error {
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
