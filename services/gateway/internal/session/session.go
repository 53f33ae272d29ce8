package session

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"net/http"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

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
}

// ErrDead says that a cookie is not one of a living session: expired, signed out, changed, or
// sealed with a key that is gone.
var ErrDead = errors.New("session: not signed in")

// Epochs knows which epoch the living sessions of a subject have. Its methods may be called
// concurrently; errors are those of the store.
type Epochs interface {
	SessionEpoch(ctx context.Context, subject string) (uint64, error)
	RaiseSessionEpoch(ctx context.Context, subject string) error
}

// Config is what a Manager needs.
type Config struct {
	Keyset *seal.Keyset
	Epochs Epochs
	Ended  *ShortLived
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

// Begin makes a new session. Its id is always fresh: nothing that the browser had before lives on.
func (m *Manager) Begin(ctx context.Context, subject, label string) (Session, error) {
	epoch, err := m.cfg.Epochs.SessionEpoch(ctx, subject)
	if err != nil {
		return Session{}, err
	}
	var raw [16]byte
	_, _ = rand.Read(raw[:]) // never fails (crypto/rand)
	s := Session{
		ID: base64.RawURLEncoding.EncodeToString(raw[:]), Subject: subject, Label: label, Epoch: epoch, Credential: m.cfg.Credential(subject),
		CreateTime: m.cfg.Now().UTC(), Renew: true,
	}
	s.ExpireTime = m.expiry(s.CreateTime, s.CreateTime)
	return s, nil
}

func (m *Manager) expiry(created, issued time.Time) time.Time {
	idle, life := issued.Add(m.cfg.Idle), created.Add(m.cfg.Life)
	if idle.Before(life) {
		return idle
	}
	return life
}

// Seal makes the cookie's value, as of now.
func (m *Manager) Seal(s Session) (value string, expire time.Time, err error) {
	now := m.cfg.Now().UTC()
	raw, err := proto.Marshal(&gatewaystorev1.SessionCookie{
		Id: s.ID, Subject: s.Subject, Label: s.Label, Epoch: s.Epoch, Credential: s.Credential,
		CreateTime: timestamppb.New(s.CreateTime), IssueTime: timestamppb.New(now),
	})
	if err != nil {
		return "", time.Time{}, err
	}
	sealed, err := m.cfg.Keyset.Seal(raw, []byte(associatedData))
	if err != nil {
		return "", time.Time{}, err
	}
	return base64.RawURLEncoding.EncodeToString(sealed), m.expiry(s.CreateTime, now), nil
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
	return Session{
		ID: c.GetId(), Subject: c.GetSubject(), Label: c.GetLabel(), Epoch: c.GetEpoch(), Credential: c.GetCredential(),
		CreateTime: c.GetCreateTime().AsTime(),
		ExpireTime: m.expiry(c.GetCreateTime().AsTime(), issued),
		Renew:      m.cfg.Now().Sub(issued) >= renewEvery,
	}, nil
}

// Alive says again whether a session that was verified before still lives: nil, ErrDead, or the
// store's error.
func (m *Manager) Alive(ctx context.Context, s Session) error {
	if !m.cfg.Now().Before(s.ExpireTime) || !bytes.Equal(s.Credential, m.cfg.Credential(s.Subject)) {
		return ErrDead
	}
	epoch, err := m.cfg.Epochs.SessionEpoch(ctx, s.Subject)
	if err != nil {
		return err
	}
	if epoch != s.Epoch {
		return ErrDead
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

// End signs one session out, for whoever holds its cookie.
func (m *Manager) End(ctx context.Context, id string) error {
	return m.cfg.Ended.revoke(ctx, id, m.cfg.Life)
}

// EndAll signs all sessions of the subject out.
func (m *Manager) EndAll(ctx context.Context, subject string) error {
	return m.cfg.Epochs.RaiseSessionEpoch(ctx, subject)
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
