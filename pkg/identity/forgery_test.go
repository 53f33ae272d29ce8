package identity

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

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
