package gateway_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"devpilot.io/bitbucket/services/gateway"
)

const (
	clientID     = "devpilot-at-the-provider"
	clientSecret = "the-client-secret-of-this-test"
)

// idp is an OpenID Connect provider whose person at the browser the test decides, and that can be made to lie.
type idp struct {
	t   *testing.T
	url string

	mu   sync.Mutex
	keys []jose.JSONWebKey // the last one signs
	// published are other keys than those that sign; nil: these.
	published []jose.JSONWebKey
	claims    map[string]any   // who sits at the browser
	issued    map[string]grant // by code
	tokens    map[string]grant // by refresh token
	lie       func(claims map[string]any)
	alg       jose.SignatureAlgorithm
	renewed   int
	n         int
	down      bool
	now       func() time.Time
	kill      bool   // refresh tokens are refused
	killed    string // how a refusal of a refresh token is called; empty: invalid_grant
	one       bool   // a sign-in ends the person's earlier refresh tokens
	asked     int    // for the keys
}

type grant struct {
	claims                     map[string]any
	nonce, challenge, redirect string
}

func provider(t *testing.T) *idp {
	t.Helper()
	p := &idp{t: t, issued: map[string]grant{}, tokens: map[string]grant{}, alg: jose.ES256, now: time.Now}
	p.rotate()
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, map[string]any{
			"issuer": p.url, "authorization_endpoint": p.url + "/authorize", "token_endpoint": p.url + "/token", "jwks_uri": p.url + "/keys",
			"end_session_endpoint": p.url + "/end", "id_token_signing_alg_values_supported": []string{"ES256", "HS256", "none"},
		})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.asked++
		set := jose.JSONWebKeySet{}
		keys := p.published
		if keys == nil {
			keys = p.keys
		}
		for _, k := range keys {
			set.Keys = append(set.Keys, k.Public())
		}
		reply(w, set)
	})
	mux.HandleFunc("/token", p.serveToken)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		down := p.down
		p.mu.Unlock()
		if down {
			http.Error(w, "down", http.StatusServiceUnavailable)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	p.url = server.URL
	return p
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

// rotate has tokens signed by a new key, and forgets those before.
func (p *idp) rotate() {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		p.t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.n++
	p.keys = []jose.JSONWebKey{{Key: key, KeyID: fmt.Sprint("key-", p.n), Algorithm: "ES256", Use: "sig"}}
}

func (p *idp) keysAsked() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked
}

func (p *idp) set(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

// sign makes a token of the claims.
func (p *idp) sign(claims map[string]any) string {
	key := p.keys[len(p.keys)-1]
	var with any = key
	if p.alg == jose.HS256 { // by what everybody knows: the public key, or the client's secret
		with = jose.JSONWebKey{Key: []byte(strings.Repeat(clientSecret, 2)), KeyID: key.KeyID}
	}
	raw, err := json.Marshal(claims)
	if err != nil {
		p.t.Fatal(err)
	}
	if p.alg == "none" {
		enc := base64.RawURLEncoding.EncodeToString
		return enc([]byte(`{"alg":"none"}`)) + "." + enc(raw) + "."
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: p.alg, Key: with}, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	signed, err := signer.Sign(raw)
	if err != nil {
		p.t.Fatal(err)
	}
	out, err := signed.CompactSerialize()
	if err != nil {
		p.t.Fatal(err)
	}
	return out
}

func (p *idp) idToken(g grant) string {
	now := p.now()
	claims := map[string]any{"iss": p.url, "aud": clientID, "iat": now.Unix(), "exp": now.Add(time.Hour).Unix()}
	maps.Copy(claims, g.claims)
	if g.nonce != "" {
		claims["nonce"] = g.nonce
	}
	if p.lie != nil {
		p.lie(claims)
	}
	return p.sign(claims)
}

func (p *idp) serveToken(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	no := func(code string) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": code})
	}
	id, secret, basic := r.BasicAuth()
	if !basic {
		id, secret = r.PostFormValue("client_id"), r.PostFormValue("client_secret")
	}
	if id != clientID || secret != clientSecret {
		no("invalid_client")
		return
	}
	var g grant
	var ok bool
	switch r.PostFormValue("grant_type") {
	case "authorization_code":
		g, ok = p.issued[r.PostFormValue("code")]
		delete(p.issued, r.PostFormValue("code"))
		sum := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
		ok = ok && base64.RawURLEncoding.EncodeToString(sum[:]) == g.challenge && r.PostFormValue("redirect_uri") == g.redirect
	case "refresh_token":
		g, ok = p.tokens[r.PostFormValue("refresh_token")]
		delete(p.tokens, r.PostFormValue("refresh_token")) // they work once
		ok = ok && !p.kill
		sub := g.claims["sub"]
		if g.nonce = ""; ok && p.claims["sub"] == sub {
			g.claims = p.claims // what is true now
		}
		p.renewed++
	}
	if !ok && r.PostFormValue("grant_type") == "refresh_token" && p.killed != "" {
		no(p.killed)
		return
	}
	if !ok {
		no("invalid_grant")
		return
	}
	if p.one {
		maps.DeleteFunc(p.tokens, func(_ string, of grant) bool { return of.claims["sub"] == g.claims["sub"] })
	}
	p.n++
	refresh := fmt.Sprint("refresh-", p.n)
	p.tokens[refresh] = g
	reply(w, map[string]any{"access_token": "access", "token_type": "Bearer", "expires_in": 300, "refresh_token": refresh, "id_token": p.idToken(g)})
}

// authorize is what the provider does when the browser comes and the person says yes.
func (p *idp) authorize(address string) (code string, q url.Values) {
	p.t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		p.t.Fatal(err)
	}
	q = u.Query()
	if q.Get("code_challenge_method") != "S256" || q.Get("nonce") == "" || q.Get("response_type") != "code" || q.Get("client_id") != clientID {
		p.t.Errorf("the browser is sent to %s", address)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.n++
	code = fmt.Sprint("code-", p.n)
	p.issued[code] = grant{claims: maps.Clone(p.claims), nonce: q.Get("nonce"), challenge: q.Get("code_challenge"), redirect: q.Get("redirect_uri")}
	return code, q
}

// is says who sits at the browser.
func (p *idp) is(name string, groups ...string) {
	p.set(func() {
		p.claims = map[string]any{
			"sub": "id-of-" + name, "name": strings.ToUpper(name[:1]) + name[1:], "email": name + "@example.com", "email_verified": true, "groups": groups, "sid": "session-of-" + name,
		}
	})
}

// withProviders starts a gateway with the providers; rules are the lines of the first.
func withProviders(t *testing.T, rules string, providers ...*idp) option {
	t.Helper()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(clientSecret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString("providers:\n")
	for i, p := range providers {
		fmt.Fprintf(&b, "  - id: %s\n    name: %s\n    issuer: %s\n    clientId: %s\n    clientSecretFile: %s\n", []string{"corp", "other"}[i], []string{"Example Corp", "The Other"}[i], p.url, clientID, secret)
		if i == 0 && rules != "" {
			b.WriteString("    rules:\n" + rules)
		}
	}
	file := filepath.Join(t.TempDir(), "providers.yaml")
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return func(c *gateway.Config) { c.ProvidersFile = file }
}

// begin begins a sign-in and answers where the browser is sent.
func (c *client) begin(provider string, body map[string]any) string {
	c.g.t.Helper()
	var out struct{ AuthorizeURL string }
	c.post("/sign-in/"+provider, body).want(http.StatusOK).into(&out)
	return out.AuthorizeURL
}

// signIn signs the person in who sits at the browser, and answers what the callback said.
func (c *client) signIn(p *idp, body map[string]any) *answer {
	c.g.t.Helper()
	code, q := p.authorize(c.begin("corp", body))
	return c.get("/sign-in/corp/callback?" + url.Values{"code": {code}, "state": {q.Get("state")}}.Encode())
}
