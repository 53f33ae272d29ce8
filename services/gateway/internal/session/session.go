package session

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/seal"
	gatewaystorev1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/store/v1"
)

// Times of a session.
const (
	DefaultIdle = 14 * 24 * time.Hour // it ends when it was not used for so long
	DefaultLife = 90 * 24 * time.Hour // it ends in any case
	// renewEvery is how old the cookie of a used session gets.
	renewEvery = time.Hour
	// maxCookie bounds a cookie that is opened.
	maxCookie = 2048
	// maxUserAgent bounds what is kept of a browser's name, in bytes.
	maxUserAgent = 200

	associatedData = "devpilot gateway session v1"
)

// Session is a signed-in browser.
type Session struct {
	ID      string
	Subject string
	Label   string
	Epoch   uint64
	// Credential is what vouched for the subject when it signed in.
	Credential []byte
	CreateTime time.Time
	// ExpireTime is when it ends unless it is used.
	ExpireTime time.Time
	// Renew says that the browser should get a new cookie.
	Renew bool
	// Provider is by whom the person signed in; empty for the local owner.
	Provider string
	// EndTime is when it ends in any case.
	EndTime time.Time
	// Listed says that it is in its account's list: it lives as long as it is. Those of before are not.
	Listed bool
}

// New is what begins a session.
type New struct {
	Subject, Label string
	// Address and UserAgent are shown in the list of sessions.
	Address, UserAgent string
	// Provider is by whom the person signed in, and Life how long the session lasts at most; empty and 0 for
	// the local owner.
	Provider string
	Life     time.Duration
	// ProviderSession, RefreshToken and IDToken are what the provider gave; empty where it gave none.
	ProviderSession       string
	RefreshToken, IDToken seal.Secret
}

// ErrDead says that a cookie is not one of a living session: expired, signed out, changed, or
// sealed with a key that is gone.
var ErrDead = errors.New("session: not signed in")

// Accounts know which sessions of a subject live: those of the epoch that are listed. Its methods may be
// called concurrently; errors are those of the store.
type Accounts interface {
	SessionEpoch(ctx context.Context, subject, id string) (uint64, *gatewaystorev1.ListedSession, error)
	RaiseSessionEpoch(ctx context.Context, subject string) error
	AddSession(ctx context.Context, subject string, e *gatewaystorev1.ListedSession) (epoch uint64, err error)
	ChangeSession(ctx context.Context, subject, id string, change func(e *gatewaystorev1.ListedSession) error) (*gatewaystorev1.ListedSession, error)
	EndSessions(ctx context.Context, subject string, end func(e *gatewaystorev1.ListedSession) bool) (int, error)
}

// Provider asks an identity provider again. Its methods may be called concurrently.
type Provider interface {
	// Vouches says whether the provider is one of those in the settings.
	Vouches(provider string) bool
	// Check has the provider asked again where that is due: ErrDead when it does not know the person any
	// more, or the person lost the last role; another error when it cannot be asked and that has lasted too
	// long.
	Check(ctx context.Context, subject, provider string, e *gatewaystorev1.ListedSession) error
}

// Config is what a Manager needs.
type Config struct {
	Keyset   *seal.Keyset
	Accounts Accounts
	Ended    *ShortLived
	// Providers may be nil: then nobody signs in by one.
	Providers Provider
	// Credential is what vouches for the subject today, beside its epoch; nil for nothing. A
	// session that another one began is dead.
	Credential func(subject string) []byte
	Idle       time.Duration // 0: DefaultIdle
	Life       time.Duration // 0: DefaultLife
	Now        func() time.Time
}

// Manager begins, checks and ends sessions. It is safe for concurrent use.
type Manager struct{ cfg Config }

// NewManager fills in the defaults.
func NewManager(cfg Config) *Manager {
	if cfg.Idle == 0 {
		cfg.Idle = DefaultIdle
	}
	if cfg.Life == 0 {
		cfg.Life = DefaultLife
	}
	if cfg.Credential == nil {
		cfg.Credential = func(string) []byte { return nil }
	}
	return &Manager{cfg: cfg}
}

// Begin makes a new session and lists it. Its id is always fresh: nothing that the browser had before
// lives on.
func (m *Manager) Begin(ctx context.Context, n New) (Session, error) {
	var raw [16]byte
	_, _ = rand.Read(raw[:]) // never fails (crypto/rand)
	now := m.cfg.Now().UTC()
	s := Session{
		ID: base64.RawURLEncoding.EncodeToString(raw[:]), Subject: n.Subject, Label: n.Label, Credential: m.cfg.Credential(n.Subject),
		CreateTime: now, Renew: true, Provider: n.Provider, EndTime: now.Add(m.life(n.Life)), Listed: true,
	}
	s.ExpireTime = m.expiry(s.EndTime, now)
	e := &gatewaystorev1.ListedSession{
		Id: s.ID, CreateTime: timestamppb.New(now), LastUsedTime: timestamppb.New(now.Truncate(time.Hour)), EndTime: timestamppb.New(s.EndTime),
		Address: n.Address, UserAgent: cut(n.UserAgent), Provider: n.Provider, ProviderSession: n.ProviderSession, CheckTime: timestamppb.New(now),
	}
	var err error
	if e.SealedRefreshToken, err = m.Keep(n.Subject, s.ID, n.RefreshToken); err != nil {
		return Session{}, err
	}
	if e.SealedIdToken, err = m.Keep(n.Subject, s.ID, n.IDToken); err != nil {
		return Session{}, err
	}
	s.Epoch, err = m.cfg.Accounts.AddSession(ctx, n.Subject, e)
	return s, err
}

func (m *Manager) life(own time.Duration) time.Duration {
	if own == 0 {
		return m.cfg.Life
	}
	return min(own, m.cfg.Life)
}

// cut bounds what a browser says of itself.
func cut(userAgent string) string {
	return strings.ToValidUTF8(userAgent[:min(len(userAgent), maxUserAgent)], "")
}

// Keep encrypts a secret of a session for its record; nothing for none.
func (m *Manager) Keep(subject, id string, secret seal.Secret) ([]byte, error) {
	if secret.IsZero() {
		return nil, nil
	}
	sealed, err := m.cfg.Keyset.Seal([]byte(secret.Reveal()), Bound(subject, id))
	if err != nil {
		return nil, fmt.Errorf("session: seal what the provider gave: %w", err)
	}
	return sealed, nil
}

// Kept decrypts what Keep encrypted for the same session.
func (m *Manager) Kept(subject, id string, sealed []byte) (seal.Secret, error) {
	if len(sealed) == 0 {
		return seal.Secret{}, nil
	}
	plain, err := m.cfg.Keyset.Open(sealed, Bound(subject, id))
	if err != nil {
		return seal.Secret{}, fmt.Errorf("session: open what the provider gave: %w", err)
	}
	return seal.NewSecret(string(plain)), nil
}

// Bound is what the secrets of a session are bound to.
func Bound(subject, id string) []byte {
	return []byte(kv.EncodeKey("gateway-session", subject, id))
}

// sealedNow tells whether the key that seals now has sealed it. A cookie of an earlier key is replaced, so that that key can go.
func (m *Manager) sealedNow(text []byte) bool {
	key, _ := seal.KeyOf(text)
	return key == m.cfg.Keyset.Primary()
}

// expiry is when a session ends that ends at the latest then, and whose cookie was made at issued.
func (m *Manager) expiry(end, issued time.Time) time.Time {
	idle := issued.Add(m.cfg.Idle)
	if idle.Before(end) {
		return idle
	}
	return end
}

// Seal makes the cookie's value, as of now.
func (m *Manager) Seal(s Session) (value string, expire time.Time, err error) {
	now := m.cfg.Now().UTC()
	raw, err := proto.Marshal(&gatewaystorev1.SessionCookie{
		Id: s.ID, Subject: s.Subject, Label: s.Label, Epoch: s.Epoch, Credential: s.Credential,
		CreateTime: timestamppb.New(s.CreateTime), IssueTime: timestamppb.New(now),
		Provider: s.Provider, EndTime: timestamppb.New(s.EndTime), Listed: s.Listed,
	})
	if err != nil {
		return "", time.Time{}, err
	}
	sealed, err := m.cfg.Keyset.Seal(raw, []byte(associatedData))
	if err != nil {
		return "", time.Time{}, err
	}
	return base64.RawURLEncoding.EncodeToString(sealed), m.expiry(s.EndTime, now), nil
}

// Verify opens a cookie and makes sure that its session lives: ErrDead, or the store's error when
// that cannot be found out now.
func (m *Manager) Verify(ctx context.Context, value string) (Session, error) {
	s, err := m.open(value)
	if err != nil {
		return Session{}, err
	}
	return s, m.Alive(ctx, s)
}

func (m *Manager) open(value string) (Session, error) {
	if len(value) > maxCookie {
		return Session{}, ErrDead
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(value)
	if err != nil {
		return Session{}, ErrDead
	}
	raw, err := m.cfg.Keyset.Open(sealed, []byte(associatedData))
	if err != nil {
		return Session{}, ErrDead
	}
	var c gatewaystorev1.SessionCookie
	if err := proto.Unmarshal(raw, &c); err != nil || c.GetId() == "" || c.GetSubject() == "" {
		return Session{}, ErrDead
	}
	issued := c.GetIssueTime().AsTime()
	end := c.GetCreateTime().AsTime().Add(m.cfg.Life) // also where it was made with a longer one
	if own := c.GetEndTime(); own != nil && own.AsTime().Before(end) {
		end = own.AsTime()
	}
	return Session{
		ID: c.GetId(), Subject: c.GetSubject(), Label: c.GetLabel(), Epoch: c.GetEpoch(), Credential: c.GetCredential(),
		CreateTime: c.GetCreateTime().AsTime(),
		ExpireTime: m.expiry(end, issued),
		Renew:      m.cfg.Now().Sub(issued) >= renewEvery || !m.sealedNow(sealed),
		Provider:   c.GetProvider(), EndTime: end, Listed: c.GetListed(),
	}, nil
}

// Alive says again whether a session that was verified before still lives: nil, ErrDead, or the
// store's error.
func (m *Manager) Alive(ctx context.Context, s Session) error {
	if !m.cfg.Now().Before(s.ExpireTime) || !bytes.Equal(s.Credential, m.cfg.Credential(s.Subject)) {
		return ErrDead
	}
	if s.Provider != "" && (m.cfg.Providers == nil || !m.cfg.Providers.Vouches(s.Provider)) {
		return ErrDead
	}
	epoch, listed, err := m.cfg.Accounts.SessionEpoch(ctx, s.Subject, s.ID)
	if err != nil {
		return err
	}
	if epoch != s.Epoch || s.Listed != (listed != nil) {
		return ErrDead
	}
	if s.Provider != "" {
		return m.cfg.Providers.Check(ctx, s.Subject, s.Provider, listed)
	}
	if s.Listed {
		return nil
	}
	ended, err := m.cfg.Ended.revoked(ctx, s.ID)
	if err != nil {
		return err
	}
	if ended {
		return ErrDead
	}
	return nil
}

// Used notes that a session was used, to the hour.
func (m *Manager) Used(ctx context.Context, subject, id string) error {
	hour := timestamppb.New(m.cfg.Now().Truncate(time.Hour))
	_, err := m.cfg.Accounts.ChangeSession(ctx, subject, id, func(e *gatewaystorev1.ListedSession) error {
		if !e.GetLastUsedTime().AsTime().Before(hour.AsTime()) {
			return kv.ErrSkip
		}
		e.LastUsedTime = hour
		return nil
	})
	return err
}

// End signs one session of the subject out, for whoever holds its cookie. ok is false when it is not
// listed: then it is one of before, or none.
func (m *Manager) End(ctx context.Context, subject, id string) (ok bool, err error) {
	n, err := m.cfg.Accounts.EndSessions(ctx, subject, func(e *gatewaystorev1.ListedSession) bool { return e.GetId() == id })
	return n > 0, err
}

// EndUnlisted signs a session out that is not listed.
func (m *Manager) EndUnlisted(ctx context.Context, id string) error {
	return m.cfg.Ended.revoke(ctx, id, m.cfg.Life)
}

// EndAll signs all sessions of the subject out.
func (m *Manager) EndAll(ctx context.Context, subject string) error {
	return m.cfg.Accounts.RaiseSessionEpoch(ctx, subject)
}

// Cookies names and makes the session cookie of one installation.
type Cookies struct {
	// Secure is whether browsers reach us over https. The cookie then has the __Host- prefix,
	// which binds it to the host, and to https.
	Secure bool
}

// Name of the cookie.
func (c Cookies) Name() string {
	if c.Secure {
		return "__Host-devpilot_session"
	}
	return "devpilot_session"
}

// Value is the session cookie that the request carries, or "". Of several under the same name none
// counts: somebody else set one of them.
func (c Cookies) Value(r *http.Request) string {
	found := r.CookiesNamed(c.Name())
	if len(found) != 1 {
		return ""
	}
	return found[0].Value
}

// Set gives the browser the cookie.
func (c Cookies) Set(w http.ResponseWriter, value string, expire, now time.Time) {
	http.SetCookie(w, c.cookie(value, int(expire.Sub(now)/time.Second)))
}

// Clear takes the cookie from the browser.
func (c Cookies) Clear(w http.ResponseWriter) { http.SetCookie(w, c.cookie("", -1)) }

func (c Cookies) cookie(value string, maxAge int) *http.Cookie {
	return &http.Cookie{
		Name: c.Name(), Value: value, Path: "/", MaxAge: maxAge,
		HttpOnly: true, Secure: c.Secure, SameSite: http.SameSiteLaxMode,
	}
}
