package handshake

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/redis/go-redis/v9"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/redisx"
	"devpilot.io/bitbucket/pkg/seal"
	authstorev1 "devpilot.io/bitbucket/proto/gen/devpilot/auth/store/v1"
)

// Store keeps handshakes. It is safe for concurrent use. Its errors are *apierr.Error:
// HANDSHAKE_EXPIRED, HANDSHAKE_MISMATCH, SERVICE_UNAVAILABLE when Redis is away and does not come back within
// a few seconds.
type Store struct {
	cache    *redisx.Cache
	keyset   *seal.Keyset
	now      func() time.Time
	patience time.Duration // with Redis
}

const (
	// patience is how long a person who connects is kept waiting for Redis. Another server takes the place of
	// one that died within about this time, and each process asks Redis again within two seconds of that; a
	// person who is turned away at once has to start over.
	patience = 4 * time.Second
	// pause is how long it is between two questions. The circuit before Redis answers most of them without asking.
	pause = 100 * time.Millisecond
)

// NewStore does no I/O.
func NewStore(client redis.UniversalClient, keyset *seal.Keyset, now func() time.Time) (*Store, error) {
	cache, err := redisx.NewCache(client)
	if err != nil {
		return nil, err
	}
	return &Store{cache: cache, keyset: keyset, now: now, patience: patience}, nil
}

// Visitor is who stands before us, as the gateway identified them.
type Visitor struct {
	Subject   string
	Workspace string // in which their role was checked
}

// Target is the consumer and site that a handshake leads to.
type Target struct {
	SiteURL     string
	ConsumerKey string
}

// Wish is what a handshake is begun with. ReturnPath has been through the function of that name.
type Wish struct {
	ReturnPath     string
	EvenIfAppsStop bool
}

// Begin starts a handshake of the visitor and returns its id, a secret that works once.
func (s *Store) Begin(ctx context.Context, v Visitor, w Wish) (id string, expire time.Time, _ error) {
	id, now := random(), s.now()
	h := &authstorev1.Handshake{
		Workspace: v.Workspace, Subject: v.Subject, ReturnPath: w.ReturnPath, StartTime: timestamppb.New(now), Name: random()[:16],
		EvenIfAppsStop: w.EvenIfAppsStop,
	}
	if err := s.put(ctx, startKey(id), h); err != nil {
		return "", time.Time{}, err
	}
	expire = now.Add(Life)
	p := &authstorev1.PendingHandshake{Name: h.GetName(), StartTime: h.GetStartTime(), ExpireTime: timestamppb.New(expire)}
	if _, err := patiently(ctx, s.patience, func() (struct{}, error) {
		return struct{}{}, s.cache.SetProto(ctx, pendingKey(v.Workspace), p, Life)
	}); err != nil {
		return "", time.Time{}, away(err)
	}
	return id, expire, nil
}

// LookUp finds a handshake by its id, or where that is empty by its state, and spends nothing.
func (s *Store) LookUp(ctx context.Context, id, state string) (*authstorev1.Handshake, error) {
	if id != "" {
		return s.get(ctx, startKey(id))
	}
	return s.get(ctx, stateKey(state))
}

// Authorization is what sends a browser to Bitbucket and binds the handshake to it.
type Authorization struct {
	State       string
	Challenge   string // PKCE, S256
	BindingName string // tells this handshake's cookie from those of others
	Binding     string // the cookie's value
	Life        time.Duration
}

// Authorize spends the id for a state. Nothing is spent unless the visitor is the one who began.
func (s *Store) Authorize(ctx context.Context, id string, v Visitor, t Target) (Authorization, error) {
	key := startKey(id)
	h, err := s.get(ctx, key)
	if err != nil {
		return Authorization{}, err
	}
	if err := began(h, v); err != nil {
		return Authorization{}, err
	}
	if h, err = s.take(ctx, key); err != nil {
		return Authorization{}, err
	}
	a := Authorization{State: random(), BindingName: h.GetName(), Binding: random(), Life: Life}
	h.Verifier = bitbucket.NewVerifier()
	a.Challenge = bitbucket.Challenge(h.GetVerifier())
	sum := sha256.Sum256([]byte(a.Binding))
	h.BindingSha256 = sum[:]
	h.SiteUrl, h.ConsumerKey = t.SiteURL, t.ConsumerKey
	if err := s.put(ctx, stateKey(a.State), h); err != nil {
		return Authorization{}, err
	}
	return a, nil
}

// Complete spends the state. bindings are all binding cookies that the browser sent, by name.
// Nothing is spent unless the visitor is the one who began, in the browser that was sent off, and
// Devpilot is still set up for the same site and consumer.
func (s *Store) Complete(ctx context.Context, state string, bindings map[string]string, v Visitor, t Target) (*authstorev1.Handshake, error) {
	key := stateKey(state)
	h, err := s.get(ctx, key)
	if err != nil {
		return nil, err
	}
	if err := began(h, v); err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(bindings[h.GetName()]))
	if subtle.ConstantTimeCompare(sum[:], h.GetBindingSha256()) != 1 {
		return nil, apierr.New(apierr.ReasonHandshakeMismatch,
			"This browser is not the one in which the connection was begun, or it does not accept cookies. Start the connection again under Integrations.")
	}
	if h.GetSiteUrl() != t.SiteURL || h.GetConsumerKey() != t.ConsumerKey {
		return nil, apierr.New(apierr.ReasonHandshakeExpired,
			"Devpilot was set up for another OAuth consumer while you were at Bitbucket. Start the connection again under Integrations.")
	}
	if h, err = s.take(ctx, key); err != nil {
		return nil, err
	}
	s.answered(ctx, h)
	return h, nil
}

// answered forgets that the workspace waits for an answer, unless it waits for another one by now.
// What cannot be forgotten expires.
func (s *Store) answered(ctx context.Context, h *authstorev1.Handshake) {
	p, err := s.Pending(ctx, h.GetWorkspace())
	if err == nil && p.GetName() == h.GetName() {
		_ = s.cache.Delete(ctx, pendingKey(h.GetWorkspace()))
	}
}

// Pending is the workspace's handshake that waits for an answer; nil when none does.
func (s *Store) Pending(ctx context.Context, workspace string) (*authstorev1.PendingHandshake, error) {
	p := &authstorev1.PendingHandshake{}
	err := s.cache.GetProto(ctx, pendingKey(workspace), p)
	switch {
	case errors.Is(err, redisx.ErrMiss):
		return nil, nil
	case err != nil:
		return nil, away(err)
	case !p.GetExpireTime().AsTime().After(s.now()):
		return nil, nil
	}
	return p, nil
}

func began(h *authstorev1.Handshake, v Visitor) error {
	if v.Subject == "" || h.GetSubject() != v.Subject || h.GetWorkspace() != v.Workspace {
		return apierr.New(apierr.ReasonHandshakeMismatch,
			"This connection was begun by somebody else. Start one of your own under Integrations.")
	}
	return nil
}

func (s *Store) put(ctx context.Context, key string, h *authstorev1.Handshake) error {
	plain, err := proto.Marshal(h)
	if err != nil {
		return fmt.Errorf("encode a handshake: %w", err)
	}
	sealed, err := s.keyset.Seal(plain, []byte(key))
	if err != nil {
		return fmt.Errorf("seal a handshake: %w", err)
	}
	if _, err := patiently(ctx, s.patience, func() (struct{}, error) {
		return struct{}{}, s.cache.Set(ctx, key, sealed, Life)
	}); err != nil {
		return away(err)
	}
	return nil
}

func (s *Store) get(ctx context.Context, key string) (*authstorev1.Handshake, error) {
	sealed, err := patiently(ctx, s.patience, func() ([]byte, error) { return s.cache.Get(ctx, key) })
	return s.open(key, sealed, err)
}

// patiently asks Redis again for a while when it is away. Only what may be done twice is asked so.
func patiently[T any](ctx context.Context, most time.Duration, ask func() (T, error)) (T, error) {
	return backoff.Retry(ctx, func() (T, error) {
		v, err := ask()
		if err != nil && !errors.Is(err, redisx.ErrUnavailable) {
			err = backoff.Permanent(err)
		}
		return v, err
	}, backoff.WithBackOff(backoff.NewConstantBackOff(pause)), backoff.WithMaxElapsedTime(most))
}

// take is get for exactly one of several callers. It is not repeated: what did not answer may have taken.
func (s *Store) take(ctx context.Context, key string) (*authstorev1.Handshake, error) {
	sealed, err := s.cache.Take(ctx, key)
	return s.open(key, sealed, err)
}

func (s *Store) open(key string, sealed []byte, err error) (*authstorev1.Handshake, error) {
	switch {
	case errors.Is(err, redisx.ErrMiss):
		return nil, expired(nil)
	case err != nil:
		return nil, away(err)
	}
	plain, err := s.keyset.Open(sealed, []byte(key))
	if err != nil {
		return nil, expired(err) // sealed with a key that was retired, or planted
	}
	h := &authstorev1.Handshake{}
	if err := proto.Unmarshal(plain, h); err != nil {
		return nil, expired(err)
	}
	return h, nil
}

func expired(cause error) error {
	return apierr.New(apierr.ReasonHandshakeExpired,
		fmt.Sprintf("This connection was finished already, or was begun more than %d minutes ago. Start it again under Integrations.", Life/time.Minute), apierr.WithCause(cause))
}

func away(err error) error {
	return apierr.New(apierr.ReasonServiceUnavailable,
		"Connections to Bitbucket cannot be made at the moment, because Devpilot's Redis does not answer. Try again shortly; what is connected goes on working.",
		apierr.WithCause(err))
}

// random is 256 bits, base64url.
func random() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // crypto/rand.Read never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}
