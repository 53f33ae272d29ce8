package testkit

import (
	"context"
	"testing"

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

// As returns a context on whose calls the gateway speaks for a user: the user token is signed as the
// gateway does it, and lives as long.
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
	token, err := s.SignUser(user)
	if err != nil {
		t.Fatalf("sign the user: %v", err)
	}
	return identity.WithUserToken(ctx, token)
}
