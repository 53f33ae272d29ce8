package identity

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

func TestScopeOf(t *testing.T) {
	for _, row := range []struct {
		least    Role
		readOnly bool
		want     Scope
	}{
		{RoleNone, true, ScopeRead},
		{RoleNone, false, ScopeDeploy},
		{RoleMember, true, ScopeRead},
		{RoleMember, false, ScopeDeploy},
		{RoleAdmin, true, ScopeAdmin},
		{RoleAdmin, false, ScopeAdmin},
		{RoleOwner, true, ScopeAdmin},
	} {
		if got := ScopeOf(row.least, row.readOnly); got != row.want {
			t.Errorf("least %s, read-only %v: %s, not %s", row.least, row.readOnly, got, row.want)
		}
	}
}

func TestScope_wordsAndRoles(t *testing.T) {
	for _, s := range []Scope{ScopeRead, ScopeDeploy, ScopeAdmin} {
		if got, err := ParseScope(s.String()); err != nil || got != s {
			t.Errorf("%s is read as %s, %v", s, got, err)
		}
	}
	for _, word := range []string{"", "none", "write", "read,deploy"} {
		if got, err := ParseScope(word); err == nil {
			t.Errorf("%q is the scope %s", word, got)
		}
	}
	if ScopeOfRole(RoleMember) != ScopeDeploy || ScopeOfRole(RoleAdmin) != ScopeAdmin || ScopeOfRole(RoleOwner) != ScopeAdmin || ScopeOfRole(RoleNone) != ScopeNone {
		t.Error("keys of before have other scopes")
	}
}

func TestApps(t *testing.T) {
	all := LimitedTo()
	if all.Limited() || !all.Has("web") || !all.Has("") || all.IDs() != nil || all != (Apps{}) {
		t.Errorf("no limit: %+v", all)
	}
	some := LimitedTo("web", "api", "web")
	if !some.Limited() || !some.Has("web") || !some.Has("api") || some.Has("we") || some.Has("") || some.Has("api,web") || !slices.Equal(some.IDs(), []string{"api", "web"}) {
		t.Errorf("%+v", some)
	}
	if some != LimitedTo("api", "web") {
		t.Error("the order counts")
	}
}

// TestUserToken_carriesWhatBoundsAProgram: a service knows of scope and apps, and nobody can take them out.
func TestUserToken_carriesWhatBoundsAProgram(t *testing.T) {
	w := newWorld(t)
	id := Identity{Subject: "api-key:1", SubjectKind: SubjectAPIKey, Workspace: "acme-inc", Role: RoleMember, Scope: ScopeDeploy, Apps: LimitedTo("web", "api")}
	if got, err := w.verifier("deployer").User(w.user(t, id)); err != nil || got != id {
		t.Errorf("%+v, %v", got, err)
	}
	wide := id
	wide.Scope, wide.Apps = ScopeNone, Apps{}
	s := w.signer(t, Gateway)
	narrowToken, err := s.SignUser(id)
	if err != nil {
		t.Fatal(err)
	}
	if wideToken, err := s.SignUser(wide); err != nil || wideToken == narrowToken {
		t.Errorf("one token for both, %v", err)
	}
	unknown, err := s.sign(userType, userClaims{
		RegisteredClaims: jwt.RegisteredClaims{Subject: "x", Issuer: Gateway, Audience: jwt.ClaimStrings{userAudience}, IssuedAt: jwt.NewNumericDate(w.clock.t), ExpiresAt: jwt.NewNumericDate(w.clock.t.Add(time.Minute))},
		Kind:             SubjectAPIKey, Scope: "everything",
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.verifier("auth").User(unknown); !errors.Is(err, ErrInvalid) {
		t.Errorf("a scope that nobody knows: %v", err)
	}
	var ids []string
	for i := range MaxApps {
		ids = append(ids, string(rune('a'+i))+"23456789012345678901234567890123456789012345678901234567890123")
	}
	// What JSON writes longest: six bytes for each of these.
	id.Apps, id.Label, id.Subject = LimitedTo(ids...), strings.Repeat("<", 256), strings.Repeat("<", 255)
	if got, err := w.verifier("auth").User(w.user(t, id)); err != nil || got != id {
		t.Errorf("the longest limit: %v", err)
	}
}
