package tenant

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/seal"
	gatewaystorev1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/store/v1"
)

// An API key is dpk_<id>_<secret>: the id finds the record, the secret has 256 random bits.
const (
	keyMark     = "dpk_"
	keySubject  = "api-key:" // begins the subject of a key
	keyIDBytes  = 8
	maxKeys     = 200 // per workspace: the list is one record
	maxLabel    = 100 // characters
	maxKeyBytes = 256
	// danglingAfter is how old an entry without a key must be before it is dropped: a create
	// writes the entry first.
	danglingAfter = 10 * time.Minute
)

// CreateKey makes a key and returns it with its secret, which is not stored.
func (s *Store) CreateKey(ctx context.Context, n NewKey) (*gatewaystorev1.ApiKey, seal.Secret, error) {
	now := s.now()
	if err := n.check(now); err != nil {
		return nil, seal.Secret{}, err
	}
	secret := n.Secret
	if secret.IsZero() {
		secret = NewKeySecret()
	}
	id := keyID(secret)
	_, _, err := s.keyLists.Update(ctx, n.Workspace, func(l *gatewaystorev1.ApiKeyList) (*gatewaystorev1.ApiKeyList, error) {
		if l == nil {
			l = &gatewaystorev1.ApiKeyList{}
		}
		if len(l.Entries) >= maxKeys {
			return nil, apierr.Newf(apierr.ReasonInvalidArgument, "The workspace has %d API keys, which is the most there can be. Delete one that is not used any more.", maxKeys)
		}
		l.Entries = append(l.Entries, &gatewaystorev1.ApiKeyList_Entry{Id: id, CreateTime: timestamppb.New(now)})
		return l, nil
	})
	if err != nil {
		return nil, seal.Secret{}, kv.ToAPI(err)
	}
	sum := sha256.Sum256([]byte(secret.Reveal()))
	k := &gatewaystorev1.ApiKey{
		Id: id, Workspace: n.Workspace, Label: n.Label, Role: n.Role.String(),
		Prefix: keyMark + id, SecretSha256: sum[:],
		CreatedBy: n.By.ID, CreatedByLabel: n.By.Label, CreateTime: timestamppb.New(now), Owner: n.Owner,
		Scope: n.Scope.String(), Apps: slices.Sorted(slices.Values(n.Apps)),
	}
	if !n.ExpireTime.IsZero() {
		k.ExpireTime = timestamppb.New(n.ExpireTime)
	}
	if _, err := s.keys.Create(ctx, id, k); err != nil {
		return nil, seal.Secret{}, kv.ToAPI(err)
	}
	return k, secret, nil
}

// KeyOwner is the person whose key it is; empty where that was not kept.
func KeyOwner(k *gatewaystorev1.ApiKey) string {
	if k.GetOwner() == "" && !strings.HasPrefix(k.GetCreatedBy(), keySubject) {
		return k.GetCreatedBy()
	}
	return k.GetOwner()
}

// KeyRole is what the key may do today: no more than the person whose key it is; and whether its workspace is closed.
// RoleNone when that person is not a member any more, or the workspace was deleted.
func (s *Store) KeyRole(ctx context.Context, k *gatewaystorev1.ApiKey) (identity.Role, Closed, error) {
	role, err := identity.ParseRole(k.GetRole())
	if err != nil {
		return identity.RoleNone, Open, fmt.Errorf("tenant: role of an API key: %w", err)
	}
	owner := KeyOwner(k)
	is, err := s.Standing(ctx, k.GetWorkspace(), owner)
	switch {
	case is.Closed == Deleted:
		return identity.RoleNone, is.Closed, err
	case owner == "":
		return role, is.Closed, err
	}
	return min(role, is.Role), is.Closed, err
}

// KeyScope is what the key may do, as far as its role goes. One of before there were scopes may do what its
// role was made for.
func KeyScope(k *gatewaystorev1.ApiKey) (identity.Scope, error) {
	if k.GetScope() == "" {
		return identity.ScopeOfRole(parsed(k.GetRole())), nil
	}
	scope, err := identity.ParseScope(k.GetScope())
	if err != nil {
		return identity.ScopeNone, fmt.Errorf("tenant: scope of an API key: %w", err)
	}
	return scope, nil
}

// NewKeySecret makes the secret of a key; the key's id is a part of it.
func NewKeySecret() seal.Secret {
	var raw [keyIDBytes + 32]byte
	_, _ = rand.Read(raw[:]) // never fails (crypto/rand)
	return seal.NewSecret(keyMark + hex.EncodeToString(raw[:keyIDBytes]) + "_" + base64.RawURLEncoding.EncodeToString(raw[keyIDBytes:]))
}

func keyID(secret seal.Secret) string {
	id, _, _ := strings.Cut(strings.TrimPrefix(secret.Reveal(), keyMark), "_")
	return id
}

// LooksLikeKey tells an API key from other bearer tokens.
func LooksLikeKey(token string) bool { return strings.HasPrefix(token, keyMark) }

// FindKey returns the key with that secret if it has not expired; ok is false when there is none. What it
// may do says KeyRole.
func (s *Store) FindKey(ctx context.Context, secret seal.Secret) (k *gatewaystorev1.ApiKey, ok bool, err error) {
	plain := secret.Reveal()
	if len(plain) > maxKeyBytes {
		return nil, false, nil
	}
	id, _, found := strings.Cut(strings.TrimPrefix(plain, keyMark), "_")
	if raw, err := hex.DecodeString(id); !found || err != nil || len(raw) != keyIDBytes {
		return nil, false, nil //nolint:nilerr // not a key of ours
	}
	k, _, err = s.copies.keys.Get(ctx, id)
	if errors.Is(err, kv.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, kv.ToAPI(err)
	}
	sum := sha256.Sum256([]byte(plain))
	if subtle.ConstantTimeCompare(sum[:], k.GetSecretSha256()) != 1 {
		return nil, false, nil
	}
	if k.ExpireTime != nil && !s.now().Before(k.ExpireTime.AsTime()) {
		return nil, false, nil
	}
	return k, true, nil
}

// Key is the key with that id, for callers that are already known; API_KEY_NOT_FOUND.
func (s *Store) Key(ctx context.Context, id string) (*gatewaystorev1.ApiKey, error) {
	k, _, err := s.copies.keys.Get(ctx, id)
	if errors.Is(err, kv.ErrNotFound) {
		return nil, apierr.New(apierr.ReasonAPIKeyNotFound, "The API key was deleted.")
	}
	return k, kv.ToAPI(err)
}

// KeyWorks says whether the key still exists, has not expired, and belongs to a member.
func (s *Store) KeyWorks(ctx context.Context, id string) (bool, error) {
	k, _, err := s.copies.keys.Get(ctx, id)
	if errors.Is(err, kv.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, kv.ToAPI(err)
	}
	if k.ExpireTime != nil && !s.now().Before(k.ExpireTime.AsTime()) {
		return false, nil
	}
	role, closed, err := s.KeyRole(ctx, k)
	return role != identity.RoleNone && closed == Open, err
}

// UsedWithinHour reports whether the key's last use needs no update.
func (s *Store) UsedWithinHour(k *gatewaystorev1.ApiKey) bool {
	return k.GetLastUsedTime().IsValid() && !s.now().Truncate(time.Hour).After(k.GetLastUsedTime().AsTime())
}

// TouchKey notes that the key is used, to the hour.
func (s *Store) TouchKey(ctx context.Context, id string) error {
	hour := s.now().Truncate(time.Hour)
	_, _, err := s.keys.Update(ctx, id, func(k *gatewaystorev1.ApiKey) (*gatewaystorev1.ApiKey, error) {
		if k == nil || s.UsedWithinHour(k) {
			return nil, kv.ErrSkip // deleted meanwhile, or noted by another replica
		}
		k.LastUsedTime = timestamppb.New(hour)
		return k, nil
	})
	return kv.ToAPI(err)
}

// ListKeys returns at most limit keys of the workspace that were made after the key with that id,
// oldest first, and whether there are more. A key that is gone from the list ends no page early.
func (s *Store) ListKeys(ctx context.Context, workspace, after string, limit int) (list []*gatewaystorev1.ApiKey, more bool, err error) {
	return s.ListKeysOf(ctx, workspace, "", after, limit)
}

// ListKeysOf is ListKeys of one person's keys; of all for an empty owner.
func (s *Store) ListKeysOf(ctx context.Context, workspace, owner, after string, limit int) (list []*gatewaystorev1.ApiKey, more bool, err error) {
	l, _, err := s.keyLists.Get(ctx, workspace)
	if errors.Is(err, kv.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, kv.ToAPI(err)
	}
	// The cursor is time and id, not the place, so that it survives deletions. Replicas' clocks
	// differ: the order of writing is not that of the times.
	entries := slices.SortedFunc(slices.Values(l.GetEntries()), func(a, b *gatewaystorev1.ApiKeyList_Entry) int {
		return strings.Compare(cursorOf(a), cursorOf(b))
	})
	if after != "" {
		at := slices.IndexFunc(entries, func(e *gatewaystorev1.ApiKeyList_Entry) bool { return cursorOf(e) > after })
		if at < 0 {
			return nil, false, nil
		}
		entries = entries[at:]
	}
	keys, err := s.copies.keys.Fresh(ctx)
	if err != nil {
		return nil, false, kv.ToAPI(err)
	}
	for _, e := range entries {
		if len(list) == limit {
			return list, true, nil
		}
		k, _, err := keys.Get(ctx, e.GetId())
		switch {
		case errors.Is(err, kv.ErrNotFound):
		case err != nil:
			return nil, false, kv.ToAPI(err)
		case owner == "" || KeyOwner(k) == owner:
			list = append(list, k)
		}
	}
	return list, false, nil
}

// CountKeysOf counts the keys of the workspace that belong to the person and have not expired.
func (s *Store) CountKeysOf(ctx context.Context, workspace, owner string) (n int, err error) {
	list, _, err := s.ListKeysOf(ctx, workspace, owner, "", maxKeys)
	for _, k := range list {
		if k.ExpireTime == nil || s.now().Before(k.ExpireTime.AsTime()) {
			n++
		}
	}
	return n, err
}

// KeyCursor is where a page that ends with this key ends, for ListKeys.
func KeyCursor(k *gatewaystorev1.ApiKey) string {
	return cursorOf(&gatewaystorev1.ApiKeyList_Entry{Id: k.GetId(), CreateTime: k.GetCreateTime()})
}

func cursorOf(e *gatewaystorev1.ApiKeyList_Entry) string {
	return e.GetCreateTime().AsTime().UTC().Format("20060102T150405.000000000") + e.GetId()
}

// DeleteKey makes the key stop working and takes it off the list. A key of another workspace, or
// none, is API_KEY_NOT_FOUND.
func (s *Store) DeleteKey(ctx context.Context, workspace, id string) error {
	return s.DeleteKeyOf(ctx, workspace, "", id)
}

// DeleteKeyOf is DeleteKey for one person's keys, as if there were no others; for all with an empty owner.
func (s *Store) DeleteKeyOf(ctx context.Context, workspace, owner, id string) error {
	notFound := apierr.Newf(apierr.ReasonAPIKeyNotFound, "The workspace %q has no API key %q; it may have been deleted before.", workspace, id)
	if raw, err := hex.DecodeString(id); err != nil || len(raw) != keyIDBytes {
		return notFound
	}
	k, _, err := s.keys.Get(ctx, id)
	switch {
	case errors.Is(err, kv.ErrNotFound):
		return notFound
	case err != nil:
		return kv.ToAPI(err)
	case k.GetWorkspace() != workspace || owner != "" && KeyOwner(k) != owner:
		return notFound
	}
	if err := s.keys.Delete(ctx, id, 0); err != nil && !errors.Is(err, kv.ErrNotFound) {
		return kv.ToAPI(err)
	}
	return s.unlist(ctx, workspace, id)
}

// unlist drops the key's entry, and those that a create left behind which was cut off.
func (s *Store) unlist(ctx context.Context, workspace, id string) error {
	l, _, err := s.keyLists.Get(ctx, workspace)
	if errors.Is(err, kv.ErrNotFound) {
		return nil
	}
	if err != nil {
		return kv.ToAPI(err)
	}
	dead := map[string]bool{id: true}
	for _, e := range l.GetEntries() {
		if s.now().Sub(e.GetCreateTime().AsTime()) < danglingAfter {
			continue
		}
		if _, _, err := s.keys.Get(ctx, e.GetId()); errors.Is(err, kv.ErrNotFound) {
			dead[e.GetId()] = true
		}
	}
	_, _, err = s.keyLists.Update(ctx, workspace, func(l *gatewaystorev1.ApiKeyList) (*gatewaystorev1.ApiKeyList, error) {
		if l == nil {
			return nil, kv.ErrSkip
		}
		kept := proto.Clone(l).(*gatewaystorev1.ApiKeyList)
		kept.Entries = slices.DeleteFunc(kept.Entries, func(e *gatewaystorev1.ApiKeyList_Entry) bool { return dead[e.GetId()] })
		return kept, nil
	})
	return kv.ToAPI(err)
}
