package session

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/seal"
	gatewaystorev1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/store/v1"
)

const (
	shortLivedBucket = "gateway_short_lived"

	// CodeLife is how long a one-time sign-in code works.
	CodeLife = 5 * time.Minute
	// RequestLife is how long request ids are remembered (DESIGN.md#the-api).
	RequestLife = 24 * time.Hour

	codeMark  = "dpc_"
	codeBytes = 32 // bytes of a sign-in code
)

// Buckets are all buckets of Store.
func Buckets() []string { return []string{shortLivedBucket} }

// ShortLived keeps what disappears by itself: codes, ends of sessions, request ids. Open it before
// use; then it is safe for concurrent use.
type ShortLived struct {
	js      jetstream.JetStream
	keyset  *seal.Keyset
	bucket  *kv.Bucket[gatewaystorev1.ShortLived, *gatewaystorev1.ShortLived]
	copy    *kv.Copy[gatewaystorev1.ShortLived, *gatewaystorev1.ShortLived] // read by each request of a session
	metrics *kv.Metrics
	now     func() time.Time
}

// NewShortLived makes a store that is not open yet. The keyset encrypts what it keeps of secrets.
// Metrics are those of its copy; nil: none.
func NewShortLived(js jetstream.JetStream, keyset *seal.Keyset, metrics *kv.Metrics, now func() time.Time) *ShortLived {
	return &ShortLived{js: js, keyset: keyset, metrics: metrics, now: now}
}

// Open creates the bucket or brings its settings up to date. It can be repeated.
func (s *ShortLived) Open(ctx context.Context) (err error) {
	s.bucket, err = kv.Open[gatewaystorev1.ShortLived](ctx, s.js, shortLivedConfig())
	if err == nil {
		s.copy = kv.NewCopy(s.bucket, kv.CopyConfig[*gatewaystorev1.ShortLived]{Metrics: s.metrics})
	}
	return err
}

// Watch keeps the copy up to date until ctx is done, by which each request learns at once of a session
// that ended. Call it after Open; reads work without it too, from the leader.
func (s *ShortLived) Watch(ctx context.Context) error { return s.copy.Run(ctx) }

// NewCode makes a one-time code that signs the subject in while the credential still vouches for it.
func (s *ShortLived) NewCode(ctx context.Context, subject, label string, credential []byte) (seal.Secret, time.Time, error) {
	var raw [codeBytes]byte
	_, _ = rand.Read(raw[:]) // never fails (crypto/rand)
	code := codeMark + base64.RawURLEncoding.EncodeToString(raw[:])
	expire := s.now().Add(CodeLife)
	_, err := s.bucket.Create(ctx, codeKey(code), &gatewaystorev1.ShortLived{Kind: &gatewaystorev1.ShortLived_SignInCode{
		SignInCode: &gatewaystorev1.SignInCode{Subject: subject, Label: label, ExpireTime: timestamppb.New(expire), Credential: credential},
	}}, kv.TTL(CodeLife))
	if err != nil {
		return seal.Secret{}, time.Time{}, kv.ToAPI(err)
	}
	return seal.NewSecret(code), expire, nil
}

// NewCodeOnce is NewCode for a request that may come again: a repeat gets the first one's code, which
// works once all the same.
func (s *ShortLived) NewCodeOnce(ctx context.Context, subject, label string, credential []byte, requestID, method string) (seal.Secret, time.Time, error) {
	code, expire, err := s.NewCode(ctx, subject, label, credential)
	if err != nil {
		return seal.Secret{}, time.Time{}, err
	}
	kept, at, first, err := s.OnceWithSecret(ctx, subject, requestID, method, nil, code)
	switch {
	case err != nil:
		return seal.Secret{}, time.Time{}, err
	case first:
		return code, expire, nil
	}
	if err := s.bucket.Delete(ctx, codeKey(code.Reveal()), 0); err != nil && !errors.Is(err, kv.ErrNotFound) {
		return seal.Secret{}, time.Time{}, kv.ToAPI(err)
	}
	return kept, at.Add(CodeLife), nil
}

// LooksLikeCode tells a one-time code from other tokens.
func LooksLikeCode(token string) bool {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(strings.TrimPrefix(token, codeMark))
	return strings.HasPrefix(token, codeMark) && err == nil && len(raw) == codeBytes
}

// TakeCode takes a code out, so that it works once; ok is false when there is none. Of several that
// show it at once, one gets it. valid says whether what vouched for the subject when the code was made
// still does.
func (s *ShortLived) TakeCode(ctx context.Context, code string, valid func(subject string, credential []byte) bool) (subject, label string, ok bool, err error) {
	v, rev, err := s.bucket.Get(ctx, codeKey(code))
	if errors.Is(err, kv.ErrNotFound) {
		return "", "", false, nil
	}
	if err != nil {
		return "", "", false, kv.ToAPI(err)
	}
	c := v.GetSignInCode()
	err = s.bucket.Delete(ctx, codeKey(code), rev)
	switch {
	case errors.Is(err, kv.ErrConflict), errors.Is(err, kv.ErrNotFound):
		return "", "", false, nil
	case err != nil:
		return "", "", false, kv.ToAPI(err)
	}
	if c == nil || !valid(c.GetSubject(), c.GetCredential()) || !s.now().Before(c.GetExpireTime().AsTime()) { // the store's clock removes keys a little late
		return "", "", false, nil
	}
	return c.GetSubject(), c.GetLabel(), true, nil
}

// UseOnce notes that something that works once is used; first is false when it was before. It is remembered
// for as long as it could be shown again.
func (s *ShortLived) UseOnce(ctx context.Context, what string, remember time.Duration) (first bool, err error) {
	sum := sha256.Sum256([]byte(what))
	_, err = s.bucket.Create(ctx, "used."+hex.EncodeToString(sum[:]), &gatewaystorev1.ShortLived{Kind: &gatewaystorev1.ShortLived_Used{
		Used: &gatewaystorev1.Used{Time: timestamppb.New(s.now())},
	}}, kv.TTL(max(remember.Round(time.Second), time.Second)))
	if errors.Is(err, kv.ErrExists) {
		return false, nil
	}
	return err == nil, kv.ToAPI(err)
}

// KeepOwner notes whose a provider's session is, for as long as it may last; Owner finds it.
func (s *ShortLived) KeepOwner(ctx context.Context, issuer, id, subject string, life time.Duration) error {
	_, err := s.bucket.Create(ctx, ownerKey(issuer, id), &gatewaystorev1.ShortLived{Kind: &gatewaystorev1.ShortLived_SessionOwner{
		SessionOwner: &gatewaystorev1.SessionOwner{Subject: subject},
	}}, kv.TTL(max(life.Round(time.Second), time.Second)))
	if errors.Is(err, kv.ErrExists) { // another of the person's sessions here, by the same one there
		return nil
	}
	return kv.ToAPI(err)
}

// Owner is whose a provider's session is; empty where nobody has it here.
func (s *ShortLived) Owner(ctx context.Context, issuer, id string) (subject string, err error) {
	v, _, err := s.bucket.Get(ctx, ownerKey(issuer, id))
	if errors.Is(err, kv.ErrNotFound) {
		return "", nil
	}
	return v.GetSessionOwner().GetSubject(), kv.ToAPI(err)
}

func ownerKey(issuer, id string) string {
	sum := sha256.Sum256([]byte(issuer + "\n" + id))
	return "owner." + hex.EncodeToString(sum[:])
}

func codeKey(code string) string {
	sum := sha256.Sum256([]byte(code))
	return "code." + hex.EncodeToString(sum[:])
}

func (s *ShortLived) revoke(ctx context.Context, id string, life time.Duration) error {
	_, err := s.bucket.Create(ctx, "revoked."+id, &gatewaystorev1.ShortLived{Kind: &gatewaystorev1.ShortLived_RevokedSession{
		RevokedSession: &gatewaystorev1.RevokedSession{Time: timestamppb.New(s.now())},
	}}, kv.TTL(max(life.Round(time.Second), time.Second)))
	if errors.Is(err, kv.ErrExists) {
		return nil
	}
	return kv.ToAPI(err)
}

func (s *ShortLived) revoked(ctx context.Context, id string) (bool, error) {
	_, _, err := s.copy.Get(ctx, "revoked."+id)
	if errors.Is(err, kv.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, kv.ToAPI(err)
	}
	return true, nil
}

// Once notes that a request id is used for this request. first is false when it was noted before
// for the same request: the caller then answers what the first one made. The same id for another
// request is REQUEST_ID_REUSED.
func (s *ShortLived) Once(ctx context.Context, subject, requestID, method string, fingerprint []byte) (first bool, err error) {
	_, first, err = s.once(ctx, subject, requestID, &gatewaystorev1.Request{Method: method, Fingerprint: fingerprint})
	return first, err
}

// OnceWithSecret is Once for a request whose answer tells a secret that is stored nowhere in plain.
// kept is what a repeat answers: the secret of the first. at is when that was.
func (s *ShortLived) OnceWithSecret(ctx context.Context, subject, requestID, method string, fingerprint []byte, secret seal.Secret) (kept seal.Secret, at time.Time, first bool, err error) {
	bound := []byte(kv.EncodeKey("gateway-request", subject, requestID))
	sealed, err := s.keyset.Seal([]byte(secret.Reveal()), bound)
	if err != nil {
		return seal.Secret{}, time.Time{}, false, fmt.Errorf("session: seal the secret of a request: %w", err)
	}
	r, first, err := s.once(ctx, subject, requestID, &gatewaystorev1.Request{Method: method, Fingerprint: fingerprint, SealedSecret: sealed})
	if err != nil || first {
		return secret, s.now(), first, err
	}
	plain, err := s.keyset.Open(r.GetSealedSecret(), bound)
	if err != nil {
		return seal.Secret{}, time.Time{}, false, fmt.Errorf("session: open the secret of a request: %w", err)
	}
	return seal.NewSecret(string(plain)), r.GetTime().AsTime(), false, nil
}

func (s *ShortLived) once(ctx context.Context, subject, requestID string, made *gatewaystorev1.Request) (seen *gatewaystorev1.Request, first bool, err error) {
	made.Time = timestamppb.New(s.now())
	key := kv.EncodeKey("request", subject, requestID)
	_, err = s.bucket.Create(ctx, key, &gatewaystorev1.ShortLived{Kind: &gatewaystorev1.ShortLived_Request{Request: made}}, kv.TTL(RequestLife))
	if err == nil {
		return made, true, nil
	}
	if !errors.Is(err, kv.ErrExists) {
		return nil, false, kv.ToAPI(err)
	}
	v, _, err := s.bucket.Get(ctx, key)
	if errors.Is(err, kv.ErrNotFound) {
		return made, true, nil // expired in this very moment
	}
	if err != nil {
		return nil, false, kv.ToAPI(err)
	}
	seen = v.GetRequest()
	if seen.GetMethod() != made.GetMethod() || string(seen.GetFingerprint()) != string(made.GetFingerprint()) {
		return nil, false, apierr.New(apierr.ReasonRequestIDReused, fmt.Sprintf("This requestId was used for a different request in the last %d hours. Use a new one.", RequestLife/time.Hour),
			apierr.WithField("requestId", "used for a different request"))
	}
	return seen, false, nil
}
