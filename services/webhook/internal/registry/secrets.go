package registry

import (
	"crypto/rand"
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/seal"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
	"devpilot.io/bitbucket/services/webhook/internal/natsstore"
)

// NewID makes a webhook's id: 26 characters of [a-z2-7] with 130 random bits, none of them reserved
// in a URL (BITBUCKET.md#webhook-fields tells of deliveries lost over one).
func NewID() string { return strings.ToLower(rand.Text()) }

// newSecret makes a webhook's secret: 52 characters, 260 random bits. Bitbucket takes 128
// characters (BITBUCKET.md#webhook-fields).
func newSecret() seal.Secret { return seal.NewSecret(rand.Text() + rand.Text()) }

// Vault seals and opens the secrets of webhooks. The record's key and the secret's version are
// bound to it: a secret copied to another record does not open.
type Vault struct{ keys *seal.Keyset }

// NewVault makes a vault.
func NewVault(keys *seal.Keyset) *Vault { return &Vault{keys: keys} }

func secretContext(rec *storev1.WebhookRecord, version int32) []byte {
	return []byte(natsstore.WebhooksBucket + "/" + natsstore.WebhookKey(rec.GetWorkspace(), rec.GetId()) + "/secret/" + strconv.Itoa(int(version)))
}

// fresh makes the next secret of a webhook, sealed.
func (v *Vault) fresh(rec *storev1.WebhookRecord, now time.Time) (*storev1.SealedSecret, error) {
	version := rec.GetSecret().GetVersion() + 1
	sealed, err := v.keys.SealSecret(newSecret(), secretContext(rec, version))
	if err != nil {
		return nil, fmt.Errorf("registry: seal the secret of webhook %s: %w", rec.GetId(), err)
	}
	return &storev1.SealedSecret{Sealed: sealed, Version: version, CreateTime: timestamppb.New(now)}, nil
}

func (v *Vault) open(rec *storev1.WebhookRecord, s *storev1.SealedSecret) (seal.Secret, error) {
	secret, err := v.keys.OpenSecret(s.GetSealed(), secretContext(rec, s.GetVersion()))
	if err != nil {
		return seal.Secret{}, fmt.Errorf("registry: open the secret of webhook %s: %w", rec.GetId(), err)
	}
	return secret, nil
}

// Open returns the one or two secrets that deliveries may be signed with now, the newest first, and
// their versions.
func (v *Vault) Open(rec *storev1.WebhookRecord, now time.Time) (secrets []seal.Secret, versions []int32, err error) {
	s, err := v.open(rec, rec.GetSecret())
	if err != nil {
		return nil, nil, err
	}
	secrets, versions = append(secrets, s), append(versions, rec.GetSecret().GetVersion())
	if old := rec.GetOldSecret(); old != nil && !oldExpired(rec, now) {
		s, err := v.open(rec, old)
		if err != nil {
			return nil, nil, err
		}
		secrets, versions = append(secrets, s), append(versions, old.GetVersion())
	}
	return secrets, versions, nil
}

// oldExpired reports whether the secret before the last rotation is no longer accepted.
func oldExpired(rec *storev1.WebhookRecord, now time.Time) bool {
	end := rec.GetOldSecretExpireTime()
	return end != nil && !end.AsTime().After(now)
}

// Overlap is how long the secret before a rotation is accepted after the new one is known to be in
// use.
const Overlap = 24 * time.Hour

// ConfirmSecret notes that the current secret is in use at Bitbucket: from now on the old one has
// an end. It reports whether the record changed.
func ConfirmSecret(rec *storev1.WebhookRecord, now time.Time) bool {
	changed := false
	if rec.GetSecret().GetConfirmTime() == nil {
		rec.Secret.ConfirmTime = timestamppb.New(now)
		changed = true
	}
	if rec.GetOldSecret() != nil && rec.GetOldSecretExpireTime() == nil {
		rec.OldSecretExpireTime = timestamppb.New(now.Add(Overlap))
		changed = true
	}
	return changed
}

// dropExpired forgets an old secret that is no longer accepted.
func dropExpired(rec *storev1.WebhookRecord, now time.Time) bool {
	if rec.GetOldSecret() == nil || !oldExpired(rec, now) {
		return false
	}
	rec.OldSecret, rec.OldSecretExpireTime = nil, nil
	return true
}
