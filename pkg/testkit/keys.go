package testkit

import (
	"context"
	"sync"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/seal"
)

// Services are the names of the five services.
var Services = []string{"auth", "repo", "webhook", "deployer", "gateway"}

// Keys makes identity keys for all five services.
func Keys(t testing.TB) *identity.Keys {
	t.Helper()
	k, err := identity.NewKeys(Services...)
	if err != nil {
		t.Fatalf("make identity keys: %v", err)
	}
	return k
}

// Keyset makes an encryption keyset.
func Keyset(t testing.TB) *seal.Keyset {
	t.Helper()
	k, err := seal.NewKeyset()
	if err != nil {
		t.Fatalf("make a keyset: %v", err)
	}
	return k
}

// As returns a context on whose calls the gateway speaks for a user. The user token is signed as the
// gateway does it, and lives as long; as the gateway signs one for every request, so does the context
// get a new one in time, however long the test takes.
func As(ctx context.Context, t testing.TB, keys *identity.Keys, user identity.Identity) context.Context {
	t.Helper()
	if user.SubjectKind == "" {
		user.SubjectKind = identity.SubjectSession
	}
	if user.Subject == "" {
		user.Subject = "jane"
	}
	if user.Label == "" {
		user.Label = "Jane Developer"
	}
	s, err := identity.NewSigner(keys, "gateway")
	if err != nil {
		t.Fatalf("sign as the gateway: %v", err)
	}
	c := &signedIn{Context: ctx, sign: func() (string, error) { return s.SignUser(user) }}
	if err := c.renew(); err != nil {
		t.Fatalf("sign the user: %v", err)
	}
	return c
}

// signedIn is a context with a user token that is always fresh.
type signedIn struct {
	context.Context
	sign func() (string, error)

	mu    sync.Mutex
	token context.Context // holds the token under the key that package identity keeps to itself
	until time.Time
}

// renew signs a new token when the one before is half way through its life.
func (c *signedIn) renew() error {
	if time.Now().Before(c.until) {
		return nil
	}
	token, err := c.sign()
	if err != nil {
		return err
	}
	c.token, c.until = identity.WithUserToken(context.Background(), token), time.Now().Add(identity.TokenLife/2)
	return nil
}

func (c *signedIn) Value(key any) any {
	c.mu.Lock()
	err := c.renew()
	token := c.token
	c.mu.Unlock()
	if err != nil {
		return c.Context.Value(key) // without a token: the call is refused, which says enough
	}
	if v := token.Value(key); v != nil {
		return v
	}
	return c.Context.Value(key)
}
