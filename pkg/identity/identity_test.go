package identity

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

var start = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// clock is the injected time of signers and verifiers.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

type world struct {
	keys  *Keys
	clock *clock
}

func newWorld(t *testing.T) world {
	t.Helper()
	keys, err := NewKeys("gateway", "auth", "repo", "deployer")
	if err != nil {
		t.Fatal(err)
	}
	return world{keys: keys, clock: &clock{start}}
}

func (w world) signer(t *testing.T, service string) *Signer {
	t.Helper()
	s, err := NewSigner(w.keys, service)
	if err != nil {
		t.Fatal(err)
	}
	s.now = w.clock.now
	return s
}

func (w world) verifier(service string) *Verifier {
	v := NewVerifier(w.keys, service)
	v.now = w.clock.now
	return v
}

var jane = Identity{Subject: "user-1", SubjectKind: SubjectSession, Label: "Jane Developer", Workspace: "acme-inc", Role: RoleAdmin, RequestID: "req-12345678"}

func (w world) user(t *testing.T, id Identity) string {
	t.Helper()
	token, err := w.signer(t, Gateway).SignUser(id)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func (w world) caller(t *testing.T, from, to string) string {
	t.Helper()
	token, err := w.signer(t, from).SignCaller(to)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestUserToken_everyServiceReadsWhatTheGatewaySigned(t *testing.T) {
	w := newWorld(t)
	outside := Identity{Subject: "key-7", SubjectKind: SubjectAPIKey}
	for _, id := range []Identity{jane, outside, {Subject: "olga", SubjectKind: SubjectSession, Operator: true}, {Subject: "local", SubjectKind: SubjectLocal, Workspace: "default", Role: RoleOwner}} {
		for _, service := range []string{"auth", "repo", "deployer", "gateway"} {
			got, err := w.verifier(service).User(w.user(t, id))
			if err != nil || got != id {
				t.Errorf("%s read %+v, %v", service, got, err)
			}
		}
	}
}

func TestUserToken_onlyTheGatewaySigns(t *testing.T) {
	w := newWorld(t)
	if _, err := w.signer(t, "auth").SignUser(jane); err == nil {
		t.Error("auth signed for a user")
	}
	if _, err := w.signer(t, Gateway).SignUser(Identity{SubjectKind: SubjectSession}); err == nil {
		t.Error("nobody was signed for")
	}
	if _, err := w.signer(t, Gateway).SignUser(Identity{Subject: "x", SubjectKind: "friend"}); err == nil {
		t.Error("an unknown kind was signed")
	}
}

func TestUserToken_longLabelsStillFit(t *testing.T) {
	w := newWorld(t)
	id := jane
	id.Label = strings.Repeat("ж", 5000)
	got, err := w.verifier("auth").User(w.user(t, id))
	if err != nil || !strings.HasPrefix(id.Label, got.Label) || got.Label == "" {
		t.Errorf("label of %d bytes, %v", len(got.Label), err)
	}
}

func TestCallerToken_namesTheCallerToItsTargetOnly(t *testing.T) {
	w := newWorld(t)
	token := w.caller(t, "repo", "auth")
	if got, err := w.verifier("auth").Caller(token); err != nil || got != "repo" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := w.verifier("deployer").Caller(token); !errors.Is(err, ErrInvalid) {
		t.Errorf("another service accepted it: %v", err)
	}
}

func TestCallerToken_isReusedFor30Seconds(t *testing.T) {
	w := newWorld(t)
	s := w.signer(t, "repo")
	sign := func(target string) string {
		token, err := s.SignCaller(target)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	first := sign("auth")
	w.clock.t = start.Add(29 * time.Second)
	if sign("auth") != first {
		t.Error("signed again within 30 s")
	}
	if sign("deployer") == first {
		t.Error("the token of one target was given to another")
	}
	w.clock.t = start.Add(31 * time.Second)
	if sign("auth") == first {
		t.Error("still the old one after 31 s")
	}
}

func TestCallerToken_goodOnesAreRememberedOnlyWhileTheyLive(t *testing.T) {
	w := newWorld(t)
	v := w.verifier("auth")
	token := w.caller(t, "repo", "auth")
	for range 3 {
		if got, err := v.Caller(token); err != nil || got != "repo" {
			t.Fatalf("%q, %v", got, err)
		}
	}
	if _, err := v.Caller(token + "x"); !errors.Is(err, ErrInvalid) {
		t.Errorf("one that only begins like a good one: %v", err)
	}
	w.clock.t = start.Add(66 * time.Second)
	if _, err := v.Caller(token); !errors.Is(err, ErrExpired) {
		t.Errorf("after its life: %v", err)
	}
	w.clock.t = start
	for i := range maxCallers + 10 {
		v.callers.put(fmt.Sprint(i), "", w.clock.t, w.clock.t)
	}
	if v.callers.entries.Len() > maxCallers {
		t.Errorf("%d tokens are remembered", v.callers.entries.Len())
	}
	if got, err := v.Caller(token); err != nil || got != "repo" {
		t.Errorf("forgotten and not verified again: %q, %v", got, err)
	}
}

// A machine's clock that was wrong for a moment leaves nothing behind: neither are tokens of that time given out again, nor is
// what was found good then good for longer.
func TestTokens_aClockThatWasWrongLeavesNothingBehind(t *testing.T) {
	id := jane
	id.RequestID = ""
	for _, jump := range []time.Duration{10 * time.Second, 3 * time.Hour, -2 * time.Minute, -3 * time.Hour} {
		w := newWorld(t)
		gateway, auth := w.signer(t, Gateway), w.verifier("auth")
		sign := func() (user, caller string) {
			user, err := gateway.SignUser(id)
			if err != nil {
				t.Fatal(err)
			}
			if caller, err = gateway.SignCaller("auth"); err != nil {
				t.Fatal(err)
			}
			return user, caller
		}
		w.clock.t = start.Add(jump)
		earlierUser, earlier := sign()
		w.clock.t = start
		user, caller := sign()
		if user == earlierUser || caller == earlier {
			t.Errorf("%v off: tokens of then are given out again", jump)
		}
		if _, err := auth.User(user); err != nil {
			t.Errorf("%v off: %v", jump, err)
		}
		if _, err := auth.Caller(caller); err != nil {
			t.Errorf("%v off: %v", jump, err)
		}
		w.clock.t = start.Add(jump) // it remembers both
		for what, err := range map[string]error{"user": second(auth.User(user)), "caller": second(auth.Caller(caller))} {
			if lives := jump == 10*time.Second; lives != (err == nil) {
				t.Errorf("by a clock that is %v off the token of a %s is judged %v", jump, what, err)
			}
		}
	}
}

func second[T any](_ T, err error) error { return err }

// The time of a caller token alone tells that two clocks differ; whatever else is wrong with it is no matter of clocks.
func TestCallerToken_clocksThatDifferAreNamed(t *testing.T) {
	for _, jump := range []time.Duration{-time.Hour, -2 * time.Minute, 10 * time.Second, time.Hour} {
		w := newWorld(t)
		v := w.verifier("auth")
		good := w.caller(t, "repo", "auth")
		w.clock.t = start.Add(-jump)
		var clock *ClockError
		if _, err := v.Caller(good); !errors.As(err, &clock) || !errors.Is(err, ErrInvalid) || clock.Caller != "repo" || clock.Ahead != jump {
			t.Errorf("signed by a clock that is %v ahead: %v", jump, err)
		}
		for _, bad := range []string{good[:len(good)-8] + "AAAAAAAA", w.caller(t, "repo", "deployer"), ""} {
			if _, err := v.Caller(bad); errors.As(err, &clock) || !errors.Is(err, ErrInvalid) {
				t.Errorf("a token that is wrong anyway, %v ahead: %v", jump, err)
			}
		}
	}
}

func TestUserToken_isReusedFor25SecondsByTheSameCallerOnly(t *testing.T) {
	w := newWorld(t)
	s := w.signer(t, Gateway)
	sign := func(change func(*Identity)) string {
		id := jane
		id.RequestID = ""
		if change != nil {
			change(&id)
		}
		token, err := s.SignUser(id)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := w.verifier("auth").User(token); err != nil || got != id {
			t.Errorf("%+v was signed and %+v verified, %v", id, got, err)
		}
		return token
	}
	first := sign(nil)
	w.clock.t = start.Add(24 * time.Second)
	if sign(nil) != first {
		t.Error("signed again within 25 s")
	}
	for what, change := range map[string]func(*Identity){
		"subject": func(id *Identity) { id.Subject = "user-2" }, "kind": func(id *Identity) { id.SubjectKind = SubjectAPIKey },
		"label": func(id *Identity) { id.Label = "Jane" }, "workspace": func(id *Identity) { id.Workspace = "other" },
		"role": func(id *Identity) { id.Role = RoleMember }, "request": func(id *Identity) { id.RequestID = "req-87654321" },
	} {
		if sign(change) == first {
			t.Errorf("another %s has the same token", what)
		}
	}
	w.clock.t = start.Add(26 * time.Second)
	if sign(nil) == first {
		t.Error("still the old one after 26 s: a request that takes its 30 s outlives it")
	}
}

func TestUserToken_goodOnesAreVerifiedOnce(t *testing.T) {
	w := newWorld(t)
	v := w.verifier("auth")
	token := w.user(t, jane)
	if _, err := v.User(token[:len(token)-4]); !errors.Is(err, ErrInvalid) {
		t.Fatal("a token without the end of its signature is good")
	}
	if n := v.users.entries.Len(); n != 0 {
		t.Errorf("%d tokens are remembered that are not good", n)
	}
	for range 3 {
		if got, err := v.User(token); err != nil || got != jane {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	v.keys = nil // a signature that is checked again would need them
	if got, err := v.User(token); err != nil || got != jane {
		t.Errorf("verified again: %+v, %v", got, err)
	}
	v.keys = w.keys
	if _, err := v.Caller(token); !errors.Is(err, ErrInvalid) {
		t.Error("a user token that is remembered passes for a caller token")
	}
	w.clock.t = start.Add(66 * time.Second)
	if _, err := v.User(token); !errors.Is(err, ErrExpired) {
		t.Errorf("after its life: %v", err)
	}
	w.clock.t = start
	for i := range maxUsers + 10 {
		v.users.put(fmt.Sprint(i), jane, w.clock.t, w.clock.t)
	}
	if n := v.users.entries.Len(); n > maxUsers {
		t.Errorf("%d tokens are remembered", n)
	}
}

func TestTokens_live60SecondsAndALeeway(t *testing.T) {
	w := newWorld(t)
	user, caller := w.user(t, jane), w.caller(t, "repo", "auth")
	for _, tc := range []struct {
		after   time.Duration
		ok      bool
		expired bool
	}{
		{-4 * time.Second, true, false}, // the verifier's clock is a little behind
		{-6 * time.Second, false, false},
		{59 * time.Second, true, false},
		{64 * time.Second, true, false},
		{66 * time.Second, false, true},
	} {
		w.clock.t = start.Add(tc.after)
		v := w.verifier("auth")
		_, uerr := v.User(user)
		_, cerr := v.Caller(caller)
		for _, err := range []error{uerr, cerr} {
			if (err == nil) != tc.ok || errors.Is(err, ErrExpired) != tc.expired || (err != nil && !errors.Is(err, ErrInvalid)) {
				t.Errorf("after %s: %v", tc.after, err)
			}
		}
	}
}

func TestRole_orderAndWords(t *testing.T) {
	if RoleNone >= RoleMember || RoleMember >= RoleAdmin || RoleAdmin >= RoleOwner {
		t.Error("the order of the roles")
	}
	for _, r := range []Role{RoleMember, RoleAdmin, RoleOwner} {
		if got, err := ParseRole(strings.ToUpper(r.String())); err != nil || got != r {
			t.Errorf("%s: %v, %v", r, got, err)
		}
	}
	for _, bad := range []string{"", "none", "root"} {
		if _, err := ParseRole(bad); err == nil {
			t.Errorf("%q is a role", bad)
		}
	}
}

func TestContext(t *testing.T) {
	ctx := WithUserToken(WithCaller(WithIdentity(t.Context(), jane), "repo"), "token")
	id, ok := FromContext(ctx)
	if !ok || id != jane || CallerFromContext(ctx) != "repo" || UserTokenFromContext(ctx) != "token" {
		t.Errorf("%+v %v", id, ok)
	}
	if _, ok := FromContext(t.Context()); ok || CallerFromContext(t.Context()) != "" || UserTokenFromContext(t.Context()) != "" {
		t.Error("an empty context carries somebody")
	}
}

func FuzzVerifier_User(f *testing.F) {
	keys, err := NewKeys("gateway", "auth")
	if err != nil {
		f.Fatal(err)
	}
	s, err := NewSigner(keys, Gateway)
	if err != nil {
		f.Fatal(err)
	}
	good, err := s.SignUser(jane)
	if err != nil {
		f.Fatal(err)
	}
	v := NewVerifier(keys, "auth")
	f.Add(good)
	f.Add("a.b.c")
	f.Fuzz(func(t *testing.T, token string) {
		if id, err := v.User(token); err == nil && (token != good || id != jane) {
			t.Errorf("%q is good", token)
		}
	})
}
