package session

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/seal"
	gatewaystorev1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/store/v1"
)

const (
	// LoginLife is how long a program waits for a person to let it in.
	LoginLife = 10 * time.Minute
	// LoginInterval is how long a program waits before it asks what came of its login request.
	LoginInterval = 2 * time.Second
	// MaxLoginName bounds what a program says that its machine is called, in characters.
	MaxLoginName = 64

	maxLogins           = 1000          // login requests that are open at the same time
	maxLoginsPerNetwork = 20            // of them from one IPv4 address or IPv6 /64
	placesTried         = 12            // of all places, before a login request is refused
	maxPolls            = 4 * maxLogins // login requests whose last question one process remembers

	// userCodeLetters are those of RFC 8628, section 6.1: no vowels, which would make words, and none that look
	// like another one. Eight of them are 25,600,000,000 codes.
	userCodeLetters = "BCDFGHJKLMNPQRSTVWXZ"
	userCodeLength  = 8 // letters that a person compares
	deviceMark      = "dpl_"
)

// errLoginGone is the one answer to a wrong code, an old one and one that was used: it does not say which.
func errLoginGone() error {
	return apierr.New(apierr.ReasonLoginRequestNotFound, "There is no such login request: it has expired, was used, or its code is mistyped.")
}

// NewLogin makes a login request of a program that comes from the address, and its device code, which is kept
// hashed. RATE_LIMITED where too many are open.
func (s *ShortLived) NewLogin(ctx context.Context, clientName, address string) (*gatewaystorev1.LoginRequest, seal.Secret, error) {
	var raw [8 + codeBytes]byte
	_, _ = rand.Read(raw[:]) // never fails (crypto/rand)
	now := s.now()
	r := &gatewaystorev1.LoginRequest{
		Id: hex.EncodeToString(raw[:8]), UserCode: newUserCode(), ClientName: clientName, Address: address,
		CreateTime: timestamppb.New(now), ExpireTime: timestamppb.New(now.Add(LoginLife)),
	}
	device := deviceMark + r.GetUserCode() + "_" + base64.RawURLEncoding.EncodeToString(raw[8:])
	sum := sha256.Sum256([]byte(device))
	r.DeviceCodeSha256 = sum[:]
	if err := s.takePlaces(ctx, r); err != nil {
		return nil, seal.Secret{}, err
	}
	_, err := s.bucket.Create(ctx, loginKey(r.GetUserCode()), &gatewaystorev1.ShortLived{Kind: &gatewaystorev1.ShortLived_LoginRequest{LoginRequest: r}}, kv.TTL(LoginLife))
	if err != nil {
		s.leavePlaces(ctx, r)
		return nil, seal.Secret{}, kv.ToAPI(err)
	}
	return r, seal.NewSecret(device), nil
}

// takePlaces has a login request count: one of the places of its network, and one of all. Places are keys that end
// by themselves, because nothing is updated in this bucket. Of all places a few are tried: when most are taken, some
// requests are refused before the last place is.
func (s *ShortLived) takePlaces(ctx context.Context, r *gatewaystorev1.LoginRequest) error {
	from := sha256.Sum256([]byte(network(r.GetAddress()).String()))
	var own, all []string
	for i := range maxLoginsPerNetwork {
		own = append(own, fmt.Sprintf("login-place.%s.%d", hex.EncodeToString(from[:8]), i))
	}
	for range placesTried {
		all = append(all, fmt.Sprintf("login-place.all.%d", random(maxLogins)))
	}
	for _, list := range [][]string{own, all} {
		place, err := s.takePlace(ctx, list, r.GetExpireTime())
		if err != nil {
			return err
		}
		if place == "" {
			s.leavePlaces(ctx, r)
			return apierr.New(apierr.ReasonRateLimited, "Too many logins wait for somebody to approve them. Try again in a minute, or sign in with an API key.", apierr.WithRetryAfter(window))
		}
		r.Places = append(r.Places, place)
	}
	return nil
}

// takePlace takes the first place that is free; empty for none.
func (s *ShortLived) takePlace(ctx context.Context, places []string, expire *timestamppb.Timestamp) (string, error) {
	taken := &gatewaystorev1.ShortLived{Kind: &gatewaystorev1.ShortLived_LoginPlace{LoginPlace: &gatewaystorev1.LoginPlace{ExpireTime: expire}}}
	for _, key := range places {
		_, err := s.bucket.Create(ctx, key, taken, kv.TTL(LoginLife))
		if errors.Is(err, kv.ErrExists) {
			if !s.leftPlace(ctx, key) {
				continue
			}
			_, err = s.bucket.Create(ctx, key, taken, kv.TTL(LoginLife))
		}
		switch {
		case err == nil:
			return key, nil
		case !errors.Is(err, kv.ErrExists):
			return "", kv.ToAPI(err)
		}
	}
	return "", nil
}

// leftPlace frees a place whose time is over: the store's clock may be behind.
func (s *ShortLived) leftPlace(ctx context.Context, key string) bool {
	v, rev, err := s.bucket.Get(ctx, key)
	if err != nil || s.now().Before(v.GetLoginPlace().GetExpireTime().AsTime()) {
		return errors.Is(err, kv.ErrNotFound)
	}
	return s.bucket.Delete(ctx, key, rev) == nil
}

// leavePlaces frees what a login request took. What is left over goes by itself.
func (s *ShortLived) leavePlaces(ctx context.Context, r *gatewaystorev1.LoginRequest) {
	for _, key := range r.GetPlaces() {
		_ = s.bucket.Delete(ctx, key, 0)
	}
}

// Login is the login request with that user code, however it is typed, and what was decided about it; nil where
// nothing was. LOGIN_REQUEST_NOT_FOUND.
func (s *ShortLived) Login(ctx context.Context, userCode string) (*gatewaystorev1.LoginRequest, *gatewaystorev1.LoginAnswer, error) {
	code, ok := plainUserCode(userCode)
	if !ok {
		return nil, nil, errLoginGone()
	}
	r, _, err := s.login(ctx, code)
	if err != nil {
		return nil, nil, err
	}
	a, err := s.loginAnswer(ctx, r.GetId())
	return r, a, err
}

func (s *ShortLived) login(ctx context.Context, code string) (*gatewaystorev1.LoginRequest, uint64, error) {
	v, rev, err := s.bucket.Get(ctx, loginKey(code))
	if errors.Is(err, kv.ErrNotFound) {
		return nil, 0, errLoginGone()
	}
	if err != nil {
		return nil, 0, kv.ToAPI(err)
	}
	if r := v.GetLoginRequest(); r != nil && s.now().Before(r.GetExpireTime().AsTime()) { // the store's clock removes keys a little late
		return r, rev, nil
	}
	return nil, 0, errLoginGone()
}

func (s *ShortLived) loginAnswer(ctx context.Context, id string) (*gatewaystorev1.LoginAnswer, error) {
	v, _, err := s.bucket.Get(ctx, answerKey(id))
	if errors.Is(err, kv.ErrNotFound) {
		return nil, nil
	}
	return v.GetLoginAnswer(), kv.ToAPI(err)
}

// AnswerLogin keeps what a person decided about a login request: the first decision, whichever replica it reaches.
// Every other one is LOGIN_REQUEST_ANSWERED.
func (s *ShortLived) AnswerLogin(ctx context.Context, r *gatewaystorev1.LoginRequest, a *gatewaystorev1.LoginAnswer) error {
	_, err := s.bucket.Create(ctx, answerKey(r.GetId()), &gatewaystorev1.ShortLived{Kind: &gatewaystorev1.ShortLived_LoginAnswer{LoginAnswer: a}}, kv.TTL(LoginLife))
	if errors.Is(err, kv.ErrExists) {
		return apierr.New(apierr.ReasonLoginRequestAnswered, "This login was approved or denied already.")
	}
	return kv.ToAPI(err)
}

// FindLogin is the login request of a device code; LOGIN_REQUEST_NOT_FOUND.
func (s *ShortLived) FindLogin(ctx context.Context, device seal.Secret) (*gatewaystorev1.LoginRequest, error) {
	r, _, err := s.loginOf(ctx, device)
	return r, err
}

func (s *ShortLived) loginOf(ctx context.Context, device seal.Secret) (*gatewaystorev1.LoginRequest, uint64, error) {
	marked, secret, found := strings.Cut(device.Reveal(), "_")
	code, rest, split := strings.Cut(secret, "_")
	code, ok := plainUserCode(code)
	if !found || !split || !ok || marked+"_" != deviceMark || len(rest) != base64.RawURLEncoding.EncodedLen(codeBytes) {
		return nil, 0, errLoginGone()
	}
	r, rev, err := s.login(ctx, code)
	if err != nil {
		return nil, 0, err
	}
	sum := sha256.Sum256([]byte(device.Reveal()))
	if subtle.ConstantTimeCompare(sum[:], r.GetDeviceCodeSha256()) != 1 {
		return nil, 0, errLoginGone()
	}
	return r, rev, nil
}

// TakeLogin is what was decided about the login request of a device code; nil where nothing was yet. What was
// decided is told once: then the request is gone. Of several that ask at once, one is told.
func (s *ShortLived) TakeLogin(ctx context.Context, device seal.Secret) (*gatewaystorev1.LoginRequest, *gatewaystorev1.LoginAnswer, error) {
	r, rev, err := s.loginOf(ctx, device)
	if err != nil {
		return nil, nil, err
	}
	a, err := s.loginAnswer(ctx, r.GetId())
	if err != nil || a == nil {
		return r, nil, err
	}
	err = s.bucket.Delete(ctx, loginKey(r.GetUserCode()), rev)
	switch {
	case errors.Is(err, kv.ErrConflict), errors.Is(err, kv.ErrNotFound):
		return nil, nil, errLoginGone()
	case err != nil:
		return nil, nil, kv.ToAPI(err)
	}
	s.leavePlaces(ctx, r)
	return r, a, nil // the answer goes by itself, and belongs to no other request
}

func newUserCode() string {
	code := make([]byte, userCodeLength)
	for i := range code {
		code[i] = userCodeLetters[random(len(userCodeLetters))]
	}
	return string(code)
}

func random(below int) int64 {
	n, _ := rand.Int(rand.Reader, big.NewInt(int64(below))) // never fails (crypto/rand)
	return n.Int64()
}

// plainUserCode is a user code as it is kept, of one as people type it; ok is false for what is none.
func plainUserCode(typed string) (code string, ok bool) {
	if len(typed) > 4*userCodeLength {
		return "", false
	}
	code = strings.ToUpper(strings.NewReplacer("-", "", " ", "").Replace(typed))
	return code, len(code) == userCodeLength && strings.Trim(code, userCodeLetters) == ""
}

// ShownUserCode is a user code as people read it: BCDF-GHJK.
func ShownUserCode(code string) string {
	return code[:userCodeLength/2] + "-" + code[userCodeLength/2:]
}

func loginKey(code string) string {
	sum := sha256.Sum256([]byte(code))
	return "login." + hex.EncodeToString(sum[:])
}

func answerKey(id string) string { return "login-answer." + id }

// Polls holds programs to LoginInterval, in this process. Its memory is bounded. It is safe for concurrent use.
type Polls struct {
	now func() time.Time

	mu   sync.Mutex
	last map[string]time.Time
}

// NewPolls makes one that has heard nobody yet.
func NewPolls(now func() time.Time) *Polls {
	return &Polls{now: now, last: map[string]time.Time{}}
}

// Take notes a question about a login request; ok is false when it comes too soon, and wait says for how long.
func (p *Polls) Take(id string) (wait time.Duration, ok bool) {
	now := p.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if at, asked := p.last[id]; asked && now.Sub(at) < LoginInterval {
		return LoginInterval - now.Sub(at), false
	}
	if len(p.last) >= maxPolls {
		for other, at := range p.last {
			if now.Sub(at) >= LoginInterval {
				delete(p.last, other)
			}
		}
	}
	if len(p.last) < maxPolls { // else it is not held to it
		p.last[id] = now
	}
	return 0, true
}
