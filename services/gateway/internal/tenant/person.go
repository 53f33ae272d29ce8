package tenant

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/kv"
	gatewaystorev1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/store/v1"
)

const personMark = "person-"

// Person is who a provider says that somebody is.
type Person struct {
	Issuer, ProviderSubject string
	Provider                string // by which the person signs in
	Label                   string
	Email                   string
	EmailVerified           bool
	// Grants are the roles that the provider's rules give today, by workspace.
	Grants map[string]identity.Role
	// Operator says that these rules make the person an operator of the installation.
	Operator bool
}

// Subject is the same for as long as the issuer knows the person, by whatever name or address, and under
// whatever name the provider stands in the settings.
func (p Person) Subject() string { return PersonSubject(p.Issuer, p.ProviderSubject) }

// PersonSubject is the subject of the person that an issuer knows under an id.
func PersonSubject(issuer, id string) string {
	sum := sha256.Sum256([]byte(issuer + "\n" + id))
	return personMark + base64.RawURLEncoding.EncodeToString(sum[:18])
}

// Arrive notes who the provider says that somebody is, and gives and takes the roles of its rules. An
// invitation, where there is one, is accepted. It returns how many workspaces the person is in: whoever is
// in none has no business here, and nothing is kept of a stranger.
func (s *Store) Arrive(ctx context.Context, p Person, invitation string) (workspaces int, err error) {
	subject := p.Subject()
	known, _, err := s.accounts.Get(ctx, kv.EncodeKey(subject))
	if err != nil && !errors.Is(err, kv.ErrNotFound) {
		return 0, kv.ToAPI(err)
	}
	affected := slices.Concat(known.GetWorkspaces(), slices.Collect(maps.Keys(p.Grants)))
	slices.Sort(affected)
	for _, workspace := range slices.Compact(affected) {
		if err := s.rule(ctx, workspace, p); err != nil {
			return 0, err
		}
	}
	if invitation != "" {
		if err := s.accept(ctx, p, invitation); err != nil {
			return 0, err
		}
	}
	a, _, err := s.accounts.Update(ctx, kv.EncodeKey(subject), func(a *gatewaystorev1.Account) (*gatewaystorev1.Account, error) {
		if a == nil {
			return nil, kv.ErrSkip // of a stranger nothing is kept
		}
		a.Issuer, a.ProviderSubject, a.Provider = p.Issuer, p.ProviderSubject, p.Provider
		a.Label, a.Email, a.EmailVerified, a.SaidTime = p.Label, p.Email, p.EmailVerified, timestamppb.New(s.now())
		a.Operator = p.Operator
		return a, nil
	})
	if err != nil {
		return 0, kv.ToAPI(err)
	}
	for _, workspace := range a.GetWorkspaces() {
		// Who owned one that was deleted may sign in as ever: to read that it was, and to make another.
		is, err := s.Standing(ctx, workspace, subject)
		if err != nil {
			return 0, err
		}
		if is.Role != identity.RoleNone {
			workspaces++
		}
	}
	return workspaces, nil
}

// rule gives the person the role that the rules say in one workspace, or takes it. The last owner keeps
// the role: somebody must be able to get in.
func (s *Store) rule(ctx context.Context, workspace string, p Person) error {
	subject, role := p.Subject(), p.Grants[workspace]
	if role != identity.RoleNone {
		if err := s.listWorkspace(ctx, subject, workspace); err != nil {
			return err
		}
	}
	t, err := s.changeTeam(ctx, workspace, func(t *gatewaystorev1.Team) error { return s.applyRule(t, p, role) })
	if err != nil || memberOf(t, subject) != nil {
		return err
	}
	return s.unlistWorkspace(ctx, subject, workspace)
}

func (s *Store) applyRule(t *gatewaystorev1.Team, p Person, role identity.Role) error {
	subject := p.Subject()
	m := memberOf(t, subject)
	if m == nil {
		if role == identity.RoleNone || slices.Contains(t.GetRemoved(), subject) || t.GetClosed() {
			return kv.ErrSkip
		}
		var err error
		if m, err = s.joined(t, Subject{ID: subject}); err != nil {
			return err
		}
	}
	before := proto.Clone(m)
	last := s.lastOwner(t, subject)
	ruled := m.GetRuledRole()
	m.Label, m.Email, m.Provider, m.RuledRole = p.Label, p.Email, p.Provider, ""
	if role != identity.RoleNone {
		m.RuledRole = role.String()
	}
	if last && RoleOf(m) != identity.RoleOwner {
		m.RuledRole = ruled
	}
	if m.GetRole() == "" && m.GetRuledRole() == "" {
		drop(t, subject)
		return nil
	}
	if proto.Equal(before, m) {
		return kv.ErrSkip
	}
	return nil
}

// Account is what is known about a subject; an empty one where nothing is.
func (s *Store) Account(ctx context.Context, subject string) (*gatewaystorev1.Account, error) {
	a, _, err := s.copies.accounts.Get(ctx, kv.EncodeKey(subject))
	if errors.Is(err, kv.ErrNotFound) {
		return &gatewaystorev1.Account{Subject: subject}, nil
	}
	return a, kv.ToAPI(err)
}

// ChangeSession changes one of the subject's listed sessions in one step; nil when it is not there (any
// more). change may run several times; kv.ErrSkip leaves it alone.
func (s *Store) ChangeSession(ctx context.Context, subject, id string, change func(e *gatewaystorev1.ListedSession) error) (*gatewaystorev1.ListedSession, error) {
	a, _, err := s.accounts.Update(ctx, kv.EncodeKey(subject), func(a *gatewaystorev1.Account) (*gatewaystorev1.Account, error) {
		e := Session(a, id)
		if e == nil {
			return nil, kv.ErrSkip
		}
		if err := change(e); err != nil {
			return nil, err
		}
		return a, nil
	})
	return Session(a, id), kv.ToAPI(err)
}

// Session is the account's session with that id, or nil.
func Session(a *gatewaystorev1.Account, id string) *gatewaystorev1.ListedSession {
	at := slices.IndexFunc(a.GetSessions(), func(e *gatewaystorev1.ListedSession) bool { return e.GetId() == id })
	if at < 0 {
		return nil
	}
	return a.GetSessions()[at]
}

// maxSessions bounds the list of a person; the one that was not used for longest gives way.
const maxSessions = 20

// AddSession lists a session, which lives from then on.
func (s *Store) AddSession(ctx context.Context, subject string, e *gatewaystorev1.ListedSession) (epoch uint64, err error) {
	a, _, err := s.accounts.Update(ctx, kv.EncodeKey(subject), func(a *gatewaystorev1.Account) (*gatewaystorev1.Account, error) {
		if a == nil {
			a = &gatewaystorev1.Account{Subject: subject}
		}
		a.Sessions = slices.DeleteFunc(a.Sessions, func(e *gatewaystorev1.ListedSession) bool {
			return !s.now().Before(e.GetEndTime().AsTime())
		})
		for len(a.Sessions) >= maxSessions {
			oldest := slices.MinFunc(a.Sessions, func(a, b *gatewaystorev1.ListedSession) int {
				return a.GetLastUsedTime().AsTime().Compare(b.GetLastUsedTime().AsTime())
			})
			a.Sessions = slices.DeleteFunc(a.Sessions, func(e *gatewaystorev1.ListedSession) bool { return e == oldest })
		}
		a.Sessions = append(a.Sessions, e)
		return a, nil
	})
	return a.GetSessionEpoch(), kv.ToAPI(err)
}

// EndSessions ends those sessions of the subject that end says, and returns how many these were.
func (s *Store) EndSessions(ctx context.Context, subject string, end func(e *gatewaystorev1.ListedSession) bool) (n int, err error) {
	_, _, err = s.accounts.Update(ctx, kv.EncodeKey(subject), func(a *gatewaystorev1.Account) (*gatewaystorev1.Account, error) {
		n = len(a.GetSessions())
		if a != nil {
			a.Sessions = slices.DeleteFunc(a.Sessions, end)
		}
		if n -= len(a.GetSessions()); n == 0 {
			return nil, kv.ErrSkip
		}
		return a, nil
	})
	return n, kv.ToAPI(err)
}

// SessionEnded is the error of whoever comes with one.
func SessionEnded() error {
	return apierr.New(apierr.ReasonUnauthenticated, "Your session has ended. Sign in again.")
}
