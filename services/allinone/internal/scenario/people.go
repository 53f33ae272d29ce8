package scenario

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Path is where the scenario answers, on the emulator's address. Below it is the identity provider.
const Path = "/_scenario"

const (
	// Provider is the id of the identity provider in addresses of the product.
	Provider   = "team"
	clientID   = "devpilot-scenario"
	issuerPath = Path + "/people"
	codeLife   = time.Minute // how long a code of the scenario's identity provider, and a token for it, count
)

// Person is somebody of the story.
type Person struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	Email string `json:"email"`
	Role  string `json:"role"` // in the workspace "default"; empty for somebody who is a member of nothing yet
}

// People are all of them, by role.
func People() []Person {
	return []Person{
		{"olga", "Olga Owner", "olga@acme.example.test", "owner"},
		{"adam", "Adam Admin", "adam@acme.example.test", "admin"},
		{"mia", "Mia Member", "mia@acme.example.test", "member"},
		{"ines", "Ines Invited", "ines@acme.example.test", ""},
	}
}

// Door is the identity provider of the scenario: it asks who one is, and believes it. It is there for a browser on this
// machine only.
type Door struct {
	issuer, callback string
	record           *Record
	key              ed25519.PrivateKey

	mu     sync.Mutex
	issued map[string]grant
}

// grant is a code that was not used yet.
type grant struct {
	person           Person
	nonce, challenge string
	until            time.Time
}

// NewDoor makes the provider at the emulator's site for the product at its public URL.
func NewDoor(record *Record, site, public string) (*Door, error) {
	u, err := url.Parse(site)
	if err != nil || !loopback(u.Hostname()) {
		return nil, fmt.Errorf("--scenario lets whoever reaches the emulator sign in as anybody, so that its address (--emulator-listen) must be one of this machine alone, such as localhost:8081")
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the key of the scenario's people: %w", err)
	}
	return &Door{
		issuer: site + issuerPath, callback: public + "/sign-in/" + Provider + "/callback", record: record, key: key, issued: map[string]grant{},
	}, nil
}

// Settings writes the file that tells the product of the provider, and returns its path.
func (d *Door) Settings() (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "providers:\n  - id: %s\n    name: %q\n    issuer: %q\n    clientId: %s\n    rules:\n", Provider, "the scenario's people", d.issuer, clientID)
	for _, p := range People() {
		if p.Role != "" {
			fmt.Fprintf(&b, "      - {workspace: %s, role: %s, email: %s}\n", workspace, p.Role, p.Email)
		}
	}
	fmt.Fprintf(&b, "      - {workspace: %s, role: owner, email: %s}\n", bareWorkspace, People()[0].Email)
	path := filepath.Join(d.record.dir, peopleFile)
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		return "", fmt.Errorf("write the scenario's people: %w", err)
	}
	return path, nil
}

// Beside serves the scenario below Path, and everything else by next.
func (d *Door) Beside(next http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+Path, d.serveState)
	mux.HandleFunc("GET "+issuerPath+"/.well-known/openid-configuration", d.serveDiscovery)
	mux.HandleFunc("GET "+issuerPath+"/keys", d.serveKeys)
	mux.HandleFunc("GET "+issuerPath+"/authorize", d.serveAuthorize)
	mux.HandleFunc("POST "+issuerPath+"/token", d.serveToken)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path != Path && !strings.HasPrefix(r.URL.Path, Path+"/"):
			next.ServeHTTP(w, r)
		case !local(r):
			http.Error(w, "The scenario answers to this machine only.", http.StatusForbidden)
		default:
			w.Header().Set("Cache-Control", "no-store")
			mux.ServeHTTP(w, r)
		}
	})
}

// local tells whether a request is of this machine, for a name of this machine, and came through no proxy.
func local(r *http.Request) bool {
	peer, _, err := net.SplitHostPort(r.RemoteAddr)
	host := (&url.URL{Host: r.Host}).Hostname()
	return err == nil && loopback(peer) && loopback(host) && r.Header.Get("X-Forwarded-For") == "" && r.Header.Get("Forwarded") == ""
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}

// serveState says how far the story is: 503 until it was told.
func (d *Door) serveState(w http.ResponseWriter, _ *http.Request) {
	state, status := "READY", http.StatusOK
	if !d.record.Finished() {
		state, status = "SEEDING", http.StatusServiceUnavailable
		w.Header().Set("Retry-After", "1")
	}
	answer(w, status, map[string]any{"scenario": d.record.Scenario, "state": state, "workspace": workspace, "people": People()})
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // a client that went away is no error of ours
}

func (d *Door) serveDiscovery(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, map[string]any{
		"issuer": d.issuer, "authorization_endpoint": d.issuer + "/authorize", "token_endpoint": d.issuer + "/token", "jwks_uri": d.issuer + "/keys",
		"response_types_supported": []string{"code"}, "subject_types_supported": []string{"public"}, "id_token_signing_alg_values_supported": []string{"EdDSA"},
	})
}

func (d *Door) serveKeys(w http.ResponseWriter, _ *http.Request) {
	public := d.key.Public().(ed25519.PublicKey)
	answer(w, http.StatusOK, map[string]any{"keys": []any{map[string]string{"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": "one", "x": encoded(public)}}})
}

func encoded(raw []byte) string { return base64.RawURLEncoding.EncodeToString(raw) }

var choice = template.Must(template.New("").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Who are you?</title><link rel="icon" href="data:,">
<style>body{font:16px/1.6 system-ui,sans-serif;max-width:32rem;margin:4rem auto;padding:0 1rem}</style>
<h1>Who are you?</h1>
<p>This is the scenario of Devpilot's emulator. Whom you choose you are; no password is asked.</p>
<ul>{{range .}}<li><a href="{{.To}}">{{.Name}}</a> ({{if .Role}}{{.Role}}{{else}}a member of nothing{{end}})</li>{{end}}</ul>
</html>
`))

// serveAuthorize asks who one is; with "as" in the address nobody is asked.
func (d *Door) serveAuthorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if q.Get("client_id") != clientID || q.Get("redirect_uri") != d.callback || q.Get("code_challenge_method") != "S256" {
		http.Error(w, "This is not a request of the Devpilot that this scenario is of.", http.StatusBadRequest)
		return
	}
	all := People()
	if i := slices.IndexFunc(all, func(p Person) bool { return p.ID == q.Get("as") }); i >= 0 {
		code := d.issue(grant{person: all[i], nonce: q.Get("nonce"), challenge: q.Get("code_challenge")})
		http.Redirect(w, r, d.callback+"?"+url.Values{"code": {code}, "state": {q.Get("state")}}.Encode(), http.StatusSeeOther)
		return
	}
	type option struct {
		Person
		To string
	}
	var options []option
	for _, p := range all {
		q.Set("as", p.ID)
		options = append(options, option{p, issuerPath + "/authorize?" + q.Encode()})
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_ = choice.Execute(w, options) // a client that went away is no error of ours
}

func (d *Door) issue(g grant) string {
	code := rand.Text()
	g.until = time.Now().Add(codeLife)
	d.mu.Lock()
	defer d.mu.Unlock()
	for old, other := range d.issued {
		if time.Now().After(other.until) {
			delete(d.issued, old)
		}
	}
	d.issued[code] = g
	return code
}

// serveToken takes a code once.
func (d *Door) serveToken(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	code := r.PostFormValue("code")
	d.mu.Lock()
	g, ok := d.issued[code]
	delete(d.issued, code)
	d.mu.Unlock()
	proof := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
	now := time.Now()
	if !ok || now.After(g.until) || encoded(proof[:]) != g.challenge || r.PostFormValue("redirect_uri") != d.callback {
		answer(w, http.StatusBadRequest, map[string]string{"error": "invalid_grant"})
		return
	}
	token, err := d.sign(map[string]any{
		"iss": d.issuer, "aud": clientID, "sub": g.person.ID, "nonce": g.nonce, "iat": now.Unix(), "exp": now.Add(codeLife).Unix(),
		"name": g.person.Name, "email": g.person.Email, "email_verified": true,
	})
	if err != nil {
		answer(w, http.StatusInternalServerError, map[string]string{"error": "server_error"})
		return
	}
	answer(w, http.StatusOK, map[string]any{"access_token": rand.Text(), "token_type": "Bearer", "expires_in": int(codeLife.Seconds()), "id_token": token})
}

// sign makes a JSON web token (RFC 7515, RFC 8037).
func (d *Door) sign(claims map[string]any) (string, error) {
	raw, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("write claims: %w", err)
	}
	text := encoded([]byte(`{"alg":"EdDSA","kid":"one"}`)) + "." + encoded(raw)
	return text + "." + encoded(ed25519.Sign(d.key, []byte(text))), nil
}
