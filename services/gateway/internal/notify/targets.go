package notify

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/url"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/seal"
	gatewaystorev1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/store/v1"
	gatewayv1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/v1"
)

const (
	maxTargets  = 20 // per workspace
	secretMark  = "dpn_"
	secretBytes = 32 // of randomness in what signs
	idBytes     = 8  // of a target's id
	// secretOverlap is how long the secret before a rotation signs too.
	secretOverlap = 24 * time.Hour
)

// NewSecret makes what signs for a WEBHOOK. Its first bytes are the id of the target that it is made
// with, by which a repeated request finds it.
func NewSecret() seal.Secret {
	var raw [idBytes + secretBytes]byte
	_, _ = rand.Read(raw[:]) // never fails (crypto/rand)
	return seal.NewSecret(secretMark + hex.EncodeToString(raw[:idBytes]) + "_" + base64.RawURLEncoding.EncodeToString(raw[idBytes:]))
}

// IDOf is the id of a target that is made with the secret.
func IDOf(secret seal.Secret) string {
	text := secret.Reveal()
	return text[len(secretMark) : len(secretMark)+2*idBytes]
}

func notFound(workspace, id string) error {
	return apierr.Newf(apierr.ReasonNotificationTargetNotFound, "The workspace %q has no notification target %q; it may have been deleted before.", workspace, id)
}

// List returns the workspace's targets, oldest first.
func (s *Store) List(ctx context.Context, workspace string) ([]*gatewayv1.NotificationTarget, error) {
	list, err := s.read(ctx, workspace)
	if err != nil {
		return nil, kv.ToAPI(err)
	}
	var out []*gatewayv1.NotificationTarget
	for _, t := range list.GetTargets() {
		out = append(out, s.shown(t))
	}
	return out, nil
}

// Get returns a target.
func (s *Store) Get(ctx context.Context, workspace, id string) (*gatewayv1.NotificationTarget, error) {
	t, err := s.target(ctx, workspace, id)
	if err != nil {
		return nil, err
	}
	return s.shown(t), nil
}

func (s *Store) target(ctx context.Context, workspace, id string) (*gatewaystorev1.NotificationTarget, error) {
	list, err := s.read(ctx, workspace)
	if err != nil {
		return nil, kv.ToAPI(err)
	}
	if t := find(list, id); t != nil {
		return t, nil
	}
	return nil, notFound(workspace, id)
}

func find(list *gatewaystorev1.NotificationTargets, id string) *gatewaystorev1.NotificationTarget {
	at := slices.IndexFunc(list.GetTargets(), func(t *gatewaystorev1.NotificationTarget) bool { return t.GetPublic().GetId() == id })
	if at < 0 {
		return nil
	}
	return list.GetTargets()[at]
}

// shown is what everybody may see of a target.
func (s *Store) shown(t *gatewaystorev1.NotificationTarget) *gatewayv1.NotificationTarget {
	out := proto.CloneOf(t.GetPublic())
	out.Etag = strconv.FormatInt(t.GetVersion(), 10)
	if e := out.GetOldSecretExpireTime(); e != nil && !s.now().Before(e.AsTime()) {
		out.OldSecretExpireTime = nil
	}
	return out
}

// Create adds a target that Check has passed; its id is the secret's.
func (s *Store) Create(ctx context.Context, workspace string, in *gatewayv1.NotificationTarget, secret seal.Secret) (*gatewayv1.NotificationTarget, error) {
	now := timestamppb.New(s.now())
	t := &gatewaystorev1.NotificationTarget{Public: proto.CloneOf(in), Version: 1}
	p := t.GetPublic()
	p.Id, p.Workspace, p.CreateTime, p.UpdateTime, p.Etag = IDOf(secret), workspace, now, now, ""
	if err := s.sealURL(t); err != nil {
		return nil, err
	}
	if p.GetKind() == gatewayv1.NotificationTarget_WEBHOOK {
		var err error
		if t.SealedSecret, err = s.keyset.SealSecret(secret, secretOf(p)); err != nil {
			return nil, err
		}
	}
	_, _, err := s.targets.Update(ctx, workspace, func(list *gatewaystorev1.NotificationTargets) (*gatewaystorev1.NotificationTargets, error) {
		if list == nil {
			list = &gatewaystorev1.NotificationTargets{}
		}
		if len(list.GetTargets()) >= maxTargets {
			return nil, apierr.Newf(apierr.ReasonInvalidArgument, "The workspace has %d notification targets, which is the most there can be. Delete one that is not used any more.", maxTargets)
		}
		list.Targets = append(list.Targets, t)
		return list, nil
	})
	if err != nil {
		return nil, kv.ToAPI(err)
	}
	return s.shown(t), nil
}

// Change is what an update does to a target, given what it is; its URL is empty there, and one that it
// returns is stored.
type Change func(cur *gatewayv1.NotificationTarget) (*gatewayv1.NotificationTarget, error)

// Update changes a target; etag, when it is not empty, must be the target's. With dry nothing is stored.
func (s *Store) Update(ctx context.Context, workspace, id, etag string, dry bool, change Change) (*gatewayv1.NotificationTarget, error) {
	return s.edit(ctx, workspace, id, etag, func(t *gatewaystorev1.NotificationTarget) error {
		next, err := change(proto.CloneOf(t.GetPublic()))
		if err != nil {
			return err
		}
		t.Public = next
		return s.sealURL(t)
	}, dry)
}

// edit changes one target's record. With dry the change is made and not stored.
func (s *Store) edit(ctx context.Context, workspace, id, etag string, change func(*gatewaystorev1.NotificationTarget) error, dry bool) (*gatewayv1.NotificationTarget, error) {
	var out *gatewayv1.NotificationTarget
	_, _, err := s.targets.Update(ctx, workspace, func(list *gatewaystorev1.NotificationTargets) (*gatewaystorev1.NotificationTargets, error) {
		t := find(list, id)
		if t == nil {
			return nil, notFound(workspace, id)
		}
		if err := matches(t, etag); err != nil {
			return nil, err
		}
		before := proto.CloneOf(t)
		if err := change(t); err != nil {
			return nil, err
		}
		if proto.Equal(before, t) {
			out = s.shown(t)
			return nil, kv.ErrSkip
		}
		t.Public.UpdateTime = timestamppb.New(s.now())
		t.Version++
		out = s.shown(t)
		if dry {
			return nil, kv.ErrSkip
		}
		return list, nil
	})
	if err != nil {
		return nil, kv.ToAPI(err)
	}
	return out, nil
}

func matches(t *gatewaystorev1.NotificationTarget, etag string) error {
	if etag != "" && etag != strconv.FormatInt(t.GetVersion(), 10) {
		return apierr.Newf(apierr.ReasonEtagMismatch, "Notification target %q was changed meanwhile. Read it again and repeat the change.", t.GetPublic().GetLabel())
	}
	return nil
}

// Rotate has the target sign with the secret from now on, and with the one before for a while. A secret
// that signs already stays as it is.
func (s *Store) Rotate(ctx context.Context, workspace, id string, secret seal.Secret) (*gatewayv1.NotificationTarget, error) {
	return s.edit(ctx, workspace, id, "", func(t *gatewaystorev1.NotificationTarget) error {
		p := t.GetPublic()
		if p.GetKind() != gatewayv1.NotificationTarget_WEBHOOK {
			return apierr.Newf(apierr.ReasonInvalidArgument, "Notification target %q has no secret: only webhooks are signed.", p.GetLabel())
		}
		if cur, err := s.keyset.OpenSecret(t.GetSealedSecret(), secretOf(p)); err == nil && cur.Reveal() == secret.Reveal() {
			return nil
		}
		sealed, err := s.keyset.SealSecret(secret, secretOf(p))
		if err != nil {
			return err
		}
		t.SealedOldSecret, t.SealedSecret = t.GetSealedSecret(), sealed
		p.OldSecretExpireTime = timestamppb.New(s.now().Add(secretOverlap))
		return nil
	}, false)
}

// Delete removes a target with what waits for it.
func (s *Store) Delete(ctx context.Context, workspace, id, etag string) error {
	_, _, err := s.targets.Update(ctx, workspace, func(list *gatewaystorev1.NotificationTargets) (*gatewaystorev1.NotificationTargets, error) {
		t := find(list, id)
		if t == nil {
			return nil, notFound(workspace, id)
		}
		if err := matches(t, etag); err != nil {
			return nil, err
		}
		list.Targets = slices.DeleteFunc(list.GetTargets(), func(other *gatewaystorev1.NotificationTarget) bool { return other == t })
		return list, nil
	})
	if err != nil {
		return kv.ToAPI(err)
	}
	return kv.ToAPI(s.forget(ctx, queueKey(workspace, id)))
}

func (s *Store) forget(ctx context.Context, queue string) error {
	if err := s.queues.Delete(ctx, queue, 0); err != nil && !errors.Is(err, kv.ErrNotFound) {
		return err
	}
	return nil
}

// What a secret is sealed for: it opens for no other target.
func urlOf(p *gatewayv1.NotificationTarget) []byte {
	return []byte("notification url " + p.GetWorkspace() + "/" + p.GetId())
}

func secretOf(p *gatewayv1.NotificationTarget) []byte {
	return []byte("notification secret " + p.GetWorkspace() + "/" + p.GetId())
}

// sealURL moves the URL, if there is one, to where it is encrypted.
func (s *Store) sealURL(t *gatewaystorev1.NotificationTarget) (err error) {
	p := t.GetPublic()
	if p.GetUrl() == "" {
		return nil
	}
	u, err := url.Parse(p.GetUrl())
	if err != nil {
		return apierr.InvalidArgument("target.url", "no URL") // Check has refused it before
	}
	p.Host = u.Host
	t.SealedUrl, err = s.keyset.SealSecret(seal.NewSecret(p.GetUrl()), urlOf(p))
	p.Url = ""
	return err
}

// opened is a target with its secrets, for the one who sends.
type opened struct {
	*gatewayv1.NotificationTarget
	url     seal.Secret
	secrets []seal.Secret // that sign, the newest first
}

func (s *Store) open(t *gatewaystorev1.NotificationTarget) (opened, error) {
	p := t.GetPublic()
	out := opened{NotificationTarget: p}
	var err error
	if len(t.GetSealedUrl()) > 0 {
		if out.url, err = s.keyset.OpenSecret(t.GetSealedUrl(), urlOf(p)); err != nil {
			return out, err
		}
	}
	sealed := [][]byte{t.GetSealedSecret()}
	if e := p.GetOldSecretExpireTime(); e != nil && s.now().Before(e.AsTime()) {
		sealed = append(sealed, t.GetSealedOldSecret())
	}
	for _, b := range sealed {
		if len(b) == 0 {
			continue
		}
		secret, err := s.keyset.OpenSecret(b, secretOf(p))
		if err != nil {
			return out, err
		}
		out.secrets = append(out.secrets, secret)
	}
	return out, nil
}
