package identity

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
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
	for _, id := range []Identity{jane, outside, {Subject: "local", SubjectKind: SubjectLocal, Workspace: "default", Role: RoleOwner}} {
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
		v.remember(fmt.Sprint(i), verifiedCaller{})
	}
	if len(v.callers) > maxCallers {
		t.Errorf("%d tokens are remembered", len(v.callers))
	}
	if got, err := v.Caller(token); err != nil || got != "repo" {
		t.Errorf("forgotten and not verified again: %q, %v", got, err)
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

// forge makes a token with any header, claims and key.
func forge(t *testing.T, k key, header map[string]any, c jwt.Claims) string {
	t.Helper()
	tok := jwt.NewWithClaims(jwt.SigningMethodEdDSA, c)
	tok.Header = map[string]any{"alg": "EdDSA", "typ": userType, "kid": k.id}
	for h, v := range header {
		tok.Header[h] = v
	}
	s, err := tok.SignedString(k.private)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestUserToken_forgeriesAreRefused(t *testing.T) {
	w := newWorld(t)
	gateway, auth := w.keys.services["gateway"][0], w.keys.services["auth"][0]
	stranger, err := NewKeys("gateway")
	if err != nil {
		t.Fatal(err)
	}
	claims := func(change func(*userClaims)) userClaims {
		c := userClaims{RegisteredClaims: w.signer(t, Gateway).registered(userAudience), Kind: SubjectSession, Workspace: "acme-inc", Role: "owner"}
		c.Subject = "user-1"
		if change != nil {
			change(&c)
		}
		return c
	}
	good := forge(t, gateway, nil, claims(nil))
	if _, err := w.verifier("auth").User(good); err != nil {
		t.Fatalf("the pattern of the forgeries is not good itself: %v", err)
	}
	parts := strings.Split(good, ".")
	tokens := map[string]string{
		"signed by another service":               forge(t, auth, nil, claims(nil)),
		"signed by another service, gateway's id": forge(t, auth, map[string]any{"kid": gateway.id}, claims(nil)),
		"signed by a stranger":                    forge(t, stranger.services["gateway"][0], nil, claims(nil)),
		"a caller token's type":                   forge(t, gateway, map[string]any{"typ": callerType}, claims(nil)),
		"no type":                                 forge(t, gateway, map[string]any{"typ": ""}, claims(nil)),
		"no key id":                               forge(t, gateway, map[string]any{"kid": ""}, claims(nil)),
		"key id of a number":                      forge(t, gateway, map[string]any{"kid": 7}, claims(nil)),
		"issuer is another service":               forge(t, gateway, nil, claims(func(c *userClaims) { c.Issuer = "auth" })),
		"no issuer":                               forge(t, gateway, nil, claims(func(c *userClaims) { c.Issuer = "" })),
		"audience of a caller token":              forge(t, gateway, nil, claims(func(c *userClaims) { c.Audience = jwt.ClaimStrings{"auth"} })),
		"no audience":                             forge(t, gateway, nil, claims(func(c *userClaims) { c.Audience = nil })),
		"no expiry":                               forge(t, gateway, nil, claims(func(c *userClaims) { c.ExpiresAt = nil })),
		"no time of issue":                        forge(t, gateway, nil, claims(func(c *userClaims) { c.IssuedAt = nil })),
		"lives for an hour":                       forge(t, gateway, nil, claims(func(c *userClaims) { c.ExpiresAt = jwt.NewNumericDate(start.Add(time.Hour)) })),
		"issued in the future":                    forge(t, gateway, nil, claims(func(c *userClaims) { c.IssuedAt = jwt.NewNumericDate(start.Add(30 * time.Second)) })),
		"not valid yet":                           forge(t, gateway, nil, claims(func(c *userClaims) { c.NotBefore = jwt.NewNumericDate(start.Add(30 * time.Second)) })),
		"no subject":                              forge(t, gateway, nil, claims(func(c *userClaims) { c.Subject = "" })),
		"unknown kind":                            forge(t, gateway, nil, claims(func(c *userClaims) { c.Kind = "friend" })),
		"unknown role":                            forge(t, gateway, nil, claims(func(c *userClaims) { c.Role = "emperor" })),
		"algorithm none":                          b64(`{"alg":"none","typ":"`+userType+`","kid":"`+gateway.id+`"}`) + "." + parts[1] + ".",
		"HMAC with the public key":                hs256(gateway, parts[1]),
		"no signature":                            parts[0] + "." + parts[1] + ".",
		"claims changed":                          parts[0] + "." + strings.Replace(parts[1], parts[1][10:14], "AAAA", 1) + "." + parts[2],
		"signature cut":                           good[:len(good)-4],
		"text after it":                           good + "x",
		"empty":                                   "",
		"too long":                                good + strings.Repeat(" ", maxToken),
		"no token at all":                         "Bearer abc",
	}
	for name, token := range tokens {
		if id, err := w.verifier("auth").User(token); !errors.Is(err, ErrInvalid) || id != (Identity{}) {
			t.Errorf("%s: %+v, %v", name, id, err)
		} else if errors.Is(err, ErrExpired) {
			t.Errorf("%s: passes for expired: %v", name, err)
		}
	}
}

func TestUserToken_expiredForgeryIsNotExpired(t *testing.T) {
	w := newWorld(t)
	stranger, err := NewKeys("gateway")
	if err != nil {
		t.Fatal(err)
	}
	c := userClaims{RegisteredClaims: w.signer(t, Gateway).registered(userAudience), Kind: SubjectSession}
	c.Subject = "user-1"
	k := stranger.services["gateway"][0]
	k.id = w.keys.services["gateway"][0].id
	forged := forge(t, k, nil, c)
	w.clock.t = start.Add(time.Hour)
	if _, err := w.verifier("auth").User(forged); !errors.Is(err, ErrInvalid) || errors.Is(err, ErrExpired) {
		t.Errorf("a token that was never good passes for one that was: %v", err)
	}
}

func TestCallerToken_forgeriesAreRefused(t *testing.T) {
	w := newWorld(t)
	repo, auth := w.keys.services["repo"][0], w.keys.services["auth"][0]
	c := w.signer(t, "repo").registered("auth")
	typ := map[string]any{"typ": callerType}
	asGateway := c
	asGateway.Issuer = Gateway
	nobody := c
	nobody.Issuer = ""
	for name, token := range map[string]string{
		"names another service":           forge(t, repo, typ, asGateway),
		"signed with the target's key":    forge(t, auth, typ, c),
		"names nobody":                    forge(t, repo, typ, nobody),
		"a user token's type":             forge(t, repo, nil, c),
		"a user token":                    w.user(t, jane),
		"names gateway, own key, own id":  forge(t, repo, map[string]any{"typ": callerType, "kid": repo.id}, asGateway),
		"names gateway, gateway's key id": forge(t, repo, map[string]any{"typ": callerType, "kid": w.keys.services["gateway"][0].id}, asGateway),
	} {
		if caller, err := w.verifier("auth").Caller(token); !errors.Is(err, ErrInvalid) || caller != "" {
			t.Errorf("%s: %q, %v", name, caller, err)
		}
	}
	if _, err := w.verifier("auth").User(w.caller(t, "gateway", "auth")); !errors.Is(err, ErrInvalid) {
		t.Error("a caller token passes for a user token")
	}
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

func hs256(k key, claims string) string {
	signed := b64(`{"alg":"HS256","typ":"`+userType+`","kid":"`+k.id+`"}`) + "." + claims
	mac := hmac.New(sha256.New, k.public)
	mac.Write([]byte(signed))
	return signed + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func TestKeysFile_roundTripAndModes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "identity.json")
	made, err := CreateKeysFile(path, "gateway", "auth")
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	loaded, err := LoadKeysFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewSigner(made, Gateway)
	if err != nil {
		t.Fatal(err)
	}
	token, err := s.SignUser(jane)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := NewVerifier(loaded, "auth").User(token); err != nil || got != jane {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := CreateKeysFile(path, "gateway"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second create: %v", err)
	}
}

func TestKeys_ForKeepsOnlyTheNamedPrivateHalves(t *testing.T) {
	w := newWorld(t)
	path := filepath.Join(t.TempDir(), "repo.json")
	if err := w.keys.For("repo").WriteFile(path); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(raw, []byte(`"private"`)); n != 1 {
		t.Errorf("%d private keys in the file of one service", n)
	}
	keys, err := LoadKeysFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewSigner(keys, Gateway); err == nil {
		t.Error("repo can sign as the gateway")
	}
	if _, err := NewSigner(keys, "repo"); err != nil {
		t.Errorf("repo cannot sign as itself: %v", err)
	}
	w.keys = keys
	full := newWorld(t)
	if _, err := w.verifier("repo").User(full.user(t, jane)); !errors.Is(err, ErrInvalid) {
		t.Error("keys of another installation are accepted")
	}
}

func TestKeys_rotationAcceptsBothKeys(t *testing.T) {
	w := newWorld(t)
	next, err := NewKeys("gateway")
	if err != nil {
		t.Fatal(err)
	}
	oldToken := w.user(t, jane)
	both := w.keys.For()
	both.services["gateway"] = append(next.services["gateway"], both.services["gateway"]...)
	rotated := world{keys: both, clock: w.clock}
	for name, token := range map[string]string{"old": oldToken, "new": rotated.user(t, jane)} {
		if _, err := rotated.verifier("auth").User(token); err != nil {
			t.Errorf("%s key: %v", name, err)
		}
	}
}

func TestLoadKeysFile_refusesAndDoesNotQuote(t *testing.T) {
	dir := t.TempDir()
	w := newWorld(t)
	good := filepath.Join(dir, "good.json")
	if err := w.keys.WriteFile(good); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	var f keysFile
	if err := json.Unmarshal(raw, &f); err != nil {
		t.Fatal(err)
	}
	seed := f.Services["auth"][0].Private
	entry := func(public, private string) string {
		return fmt.Sprintf(`{"services":{"auth":[{"public":%q,"private":%q}]}}`, public, private)
	}
	for name, content := range map[string]string{
		"not JSON":            seed,
		"unknown member":      `{"services":{},"extra":"` + seed + `"}`,
		"empty":               `{}`,
		"short public":        entry("AAAA", seed),
		"short private":       entry(f.Services["auth"][0].Public, seed[:8]),
		"halves do not match": entry(f.Services["repo"][0].Public, seed),
	} {
		path := filepath.Join(dir, "bad.json")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadKeysFile(path); err == nil || strings.Contains(err.Error(), seed) || strings.Contains(err.Error(), seed[:8]) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if out := fmt.Sprintf("%v %+v %#v", w.keys, w.keys, w.keys); strings.Contains(out, seed) {
		t.Error("keys print themselves")
	}
}

func TestNewKeys_refusesANamelessService(t *testing.T) {
	if _, err := NewKeys("auth", ""); err == nil {
		t.Error("accepted")
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
