package tenant

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/rpc"
	"devpilot.io/bitbucket/pkg/seal"
	gatewaystorev1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/store/v1"
)

// An invitation's token is dpi_<workspace>_<secret>: the workspace finds the record, the secret has 256
// random bits.
const (
	invitationMark  = "dpi_"
	maxInvitations  = 100 // per workspace, that may still be accepted
	maxToken        = 256
	InvitationLife  = 7 * 24 * time.Hour
	invitationBytes = 32
)

// errInvitation is the same for every invitation that does not let this person in: it does not say
// whether there ever was one.
func errInvitation() error {
	return apierr.New(apierr.ReasonInvitationInvalid,
		"This invitation does not work: it was accepted or withdrawn, has expired, or is for another e-mail address than the one that your provider has verified. Ask for a new one.")
}

// NewInvitation describes an invitation to make.
type NewInvitation struct {
	Workspace string
	Email     string // in lower case
	Role      identity.Role
	By        Subject
	Token     seal.Secret // of NewInvitationToken
}

// NewInvitationToken makes the token of an invitation.
func NewInvitationToken(workspace string) seal.Secret {
	var raw [invitationBytes]byte
	_, _ = rand.Read(raw[:]) // never fails (crypto/rand)
	return seal.NewSecret(invitationMark + workspace + "_" + base64.RawURLEncoding.EncodeToString(raw[:]))
}

// Invite makes an invitation. Its token is not stored.
func (s *Store) Invite(ctx context.Context, n NewInvitation) (*gatewaystorev1.Invitation, error) {
	sum := sha256.Sum256([]byte(n.Token.Reveal()))
	now := s.now()
	made := &gatewaystorev1.Invitation{
		Id: hex.EncodeToString(sum[:8]), TokenSha256: sum[:], Email: n.Email, Role: n.Role.String(),
		CreatedBy: n.By.ID, CreatedByLabel: n.By.Label, CreateTime: timestamppb.New(now), ExpireTime: timestamppb.New(now.Add(InvitationLife)),
	}
	_, err := s.changeTeam(ctx, n.Workspace, func(t *gatewaystorev1.Team) error {
		s.sweep(t)
		if len(t.GetInvitations()) >= maxInvitations {
			return apierr.Newf(apierr.ReasonTeamFull, "The workspace has %d open invitations, which is the most there can be. Withdraw some.", maxInvitations)
		}
		t.Invitations = append(t.Invitations, made)
		return nil
	})
	return made, err
}

// InvitationOf is the open invitation with that token; INVITATION_NOT_FOUND.
func (s *Store) InvitationOf(ctx context.Context, workspace string, token seal.Secret) (*gatewaystorev1.Invitation, error) {
	list, err := s.Invitations(ctx, workspace)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(token.Reveal()))
	for _, i := range list {
		if subtle.ConstantTimeCompare(i.GetTokenSha256(), sum[:]) == 1 {
			return i, nil
		}
	}
	return nil, apierr.New(apierr.ReasonInvitationNotFound, "The invitation that this request made is gone: it was accepted or withdrawn, or has expired. Use a new requestId to make another.")
}

// sweep drops the invitations that have expired.
func (s *Store) sweep(t *gatewaystorev1.Team) {
	t.Invitations = slices.DeleteFunc(t.Invitations, s.expired)
}

func (s *Store) expired(i *gatewaystorev1.Invitation) bool {
	return !s.now().Before(i.GetExpireTime().AsTime())
}

// Invitations lists those that may still be accepted, oldest first.
func (s *Store) Invitations(ctx context.Context, workspace string) ([]*gatewaystorev1.Invitation, error) {
	t, err := s.Team(ctx, workspace)
	return slices.DeleteFunc(slices.Clone(t.GetInvitations()), s.expired), err
}

// Withdraw makes an invitation stop working; INVITATION_NOT_FOUND.
func (s *Store) Withdraw(ctx context.Context, workspace, id string) error {
	_, err := s.changeTeam(ctx, workspace, func(t *gatewaystorev1.Team) error {
		s.sweep(t)
		at := slices.IndexFunc(t.GetInvitations(), func(i *gatewaystorev1.Invitation) bool { return i.GetId() == id })
		if at < 0 {
			return apierr.Newf(apierr.ReasonInvitationNotFound, "The workspace %q has no open invitation %q; it may have been accepted or withdrawn, or have expired.", workspace, id)
		}
		t.Invitations = slices.Delete(t.Invitations, at, at+1)
		return nil
	})
	return err
}

// accept lets the person in. The invitation is taken out by the same write, so that it works once.
func (s *Store) accept(ctx context.Context, p Person, token string) error {
	workspace, secret, ok := strings.Cut(strings.TrimPrefix(token, invitationMark), "_")
	if raw, err := base64.RawURLEncoding.Strict().DecodeString(secret); !ok || len(token) > maxToken || !strings.HasPrefix(token, invitationMark) || err != nil || len(raw) != invitationBytes || !rpc.ValidWorkspace(workspace) {
		return errInvitation()
	}
	if !p.EmailVerified {
		return apierr.New(apierr.ReasonInvitationInvalid, "Your provider does not say that it has verified your e-mail address, so the invitation cannot be accepted. Have it verified there, then open the link again.")
	}
	t, err := s.Team(ctx, workspace)
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(token))
	if s.open(t, sum[:], p.Email) < 0 {
		return errInvitation()
	}
	subject := p.Subject()
	if err := s.listWorkspace(ctx, subject, workspace); err != nil {
		return err
	}
	_, err = s.changeTeam(ctx, workspace, func(t *gatewaystorev1.Team) error {
		at := s.open(t, sum[:], p.Email)
		if at < 0 {
			return errInvitation()
		}
		i := t.GetInvitations()[at]
		m, err := s.joined(t, Subject{ID: subject, Label: p.Label, Email: p.Email})
		if err != nil {
			return err
		}
		if parsed(i.GetRole()) > parsed(m.GetRole()) {
			m.Role = i.GetRole()
		}
		m.Provider = p.Provider
		t.Removed = slices.DeleteFunc(t.Removed, func(r string) bool { return r == subject })
		t.Invitations = slices.Delete(t.Invitations, at, at+1)
		return nil
	})
	return err
}

// open is where the invitation is that the token and the address are of; -1 when there is none.
func (s *Store) open(t *gatewaystorev1.Team, sum []byte, email string) int {
	return slices.IndexFunc(t.GetInvitations(), func(i *gatewaystorev1.Invitation) bool {
		return subtle.ConstantTimeCompare(i.GetTokenSha256(), sum) == 1 && !s.expired(i) && strings.EqualFold(i.GetEmail(), email)
	})
}
