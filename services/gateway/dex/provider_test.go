package dex

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/dexidp/dex/server"
	"github.com/dexidp/dex/storage"
	"github.com/dexidp/dex/storage/memory"
	"github.com/sirupsen/logrus"
	"golang.org/x/crypto/bcrypt"
)

const (
	clientID       = "devpilot"
	scriptsID      = "devpilot-scripts"
	clientSecret   = "secret-of-the-client"
	password       = "correct horse battery staple"
	ofTheDirectory = "Log in with Directory"
	ofPasswords    = "Log in with Email"
)

// provider is dex, and the directory that it asks for people and groups.
type provider struct {
	t         *testing.T
	issuer    string
	storage   storage.Storage
	log       *output
	serving   atomic.Pointer[server.Server]
	directory *directory
}

// startDex serves dex, with the product as a client whose browsers come back to redirect.
func startDex(t *testing.T, redirect string) *provider {
	t.Helper()
	p := &provider{t: t, log: &output{}, directory: startDirectory(t)}
	logger := &logrus.Logger{Out: p.log, Formatter: &logrus.TextFormatter{}, Level: logrus.DebugLevel}
	p.storage = memory.New(logger)
	crowd, err := json.Marshal(map[string]string{"baseURL": p.directory.url, "clientID": "dex", "clientSecret": clientSecret, "usernamePrompt": "Username"})
	must(t, err)
	must(t, p.storage.CreateConnector(storage.Connector{ID: "directory", Type: "atlassian-crowd", Name: "Directory", Config: crowd}))
	must(t, p.storage.CreateConnector(storage.Connector{ID: server.LocalConnector, Type: server.LocalConnector, Name: "Email"}))
	must(t, p.storage.CreateClient(storage.Client{ID: clientID, Name: "Devpilot", Secret: clientSecret, RedirectURIs: []string{redirect}}))
	must(t, p.storage.CreateClient(storage.Client{ID: scriptsID, Name: "Scripts", Secret: clientSecret}))
	hash, err := bcrypt.GenerateFromPassword([]byte(password), 10) // dex takes none of a lower cost
	must(t, err)
	for _, name := range []string{"olga", "sam"} {
		must(t, p.storage.CreatePassword(storage.Password{Email: name + "@example.com", Hash: hash, Username: name, UserID: "id-of-" + name}))
	}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.serving.Load().ServeHTTP(w, r) }))
	t.Cleanup(web.Close)
	p.issuer = web.URL
	p.restart()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of dex's log:\n%s", p.log.end())
		}
	})
	return p
}

// restart has dex started anew on what it stored.
func (p *provider) restart() {
	p.t.Helper()
	s, err := server.NewServer(p.t.Context(), server.Config{
		Issuer: p.issuer, Storage: p.storage, SkipApprovalScreen: true, IDTokensValidFor: time.Hour, PasswordConnector: "directory",
		RefreshTokenPolicy: p.policy(), Logger: &logrus.Logger{Out: p.log, Formatter: &logrus.TextFormatter{}, Level: logrus.InfoLevel},
	})
	must(p.t, err)
	p.serving.Store(s)
}

// policy is dex's default: a refresh token works once, but for the time of a retry.
func (p *provider) policy() *server.RefreshTokenPolicy {
	policy, err := server.NewRefreshTokenPolicy(&logrus.Logger{Out: p.log, Formatter: &logrus.TextFormatter{}}, true, "", "", "3s")
	must(p.t, err)
	return policy
}

// otherKeys restarts dex without the keys that it had: it makes new ones.
func (p *provider) otherKeys() {
	p.t.Helper()
	must(p.t, p.storage.UpdateKeys(func(storage.Keys) (storage.Keys, error) { return storage.Keys{}, nil }))
	p.restart()
}

// revoke takes the refresh tokens of the person with this address back.
func (p *provider) revoke(email string) {
	p.t.Helper()
	tokens, err := p.storage.ListRefreshTokens()
	must(p.t, err)
	n := 0
	for _, token := range tokens {
		if token.Claims.Email == email {
			must(p.t, p.storage.DeleteRefresh(token.ID))
			n++
		}
	}
	if n != 1 {
		p.t.Fatalf("%s had %d refresh tokens at dex, not 1", email, n)
	}
}

// scriptToken is an ID token of dex for scripts, by the name and password of somebody in the directory.
func (p *provider) scriptToken(name string) string {
	p.t.Helper()
	resp, err := http.PostForm(p.issuer+"/token", url.Values{
		"grant_type": {"password"}, "client_id": {scriptsID}, "client_secret": {clientSecret}, "username": {name}, "password": {password}, "scope": {"openid groups"},
	})
	must(p.t, err)
	defer resp.Body.Close()
	var out struct {
		IDToken string `json:"id_token"`
		Error   string `json:"error_description"`
	}
	must(p.t, json.NewDecoder(resp.Body).Decode(&out))
	if out.IDToken == "" {
		p.t.Fatalf("dex gives no token: %d %s", resp.StatusCode, out.Error)
	}
	return out.IDToken
}

// description is what dex says of itself.
func (p *provider) description() (d map[string]any) {
	p.t.Helper()
	resp, err := http.Get(p.issuer + "/.well-known/openid-configuration")
	must(p.t, err)
	defer resp.Body.Close()
	must(p.t, json.NewDecoder(resp.Body).Decode(&d))
	return d
}

// directory answers what dex's connector asks of Atlassian Crowd. Everybody in it has the same password.
type directory struct {
	url string

	mu     sync.Mutex
	groups map[string][]string // by who is in it
}

func startDirectory(t *testing.T) *directory {
	t.Helper()
	d := &directory{groups: map[string][]string{}}
	reply := func(w http.ResponseWriter, status int, v any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(v) // whoever went away hears nothing
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /rest/usermanagement/1/session", func(w http.ResponseWriter, r *http.Request) {
		var in struct{ Username, Password string }
		err := json.NewDecoder(r.Body).Decode(&in)
		if _, ok := d.of(in.Username); err != nil || !ok || r.URL.Query().Get("validate-password") != "false" && in.Password != password {
			reply(w, http.StatusBadRequest, map[string]string{"reason": "INVALID_USER_AUTHENTICATION"})
			return
		}
		reply(w, http.StatusCreated, map[string]string{"token": "t"})
	})
	known := func(serve func(w http.ResponseWriter, name string, groups []string)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			name := r.URL.Query().Get("username")
			groups, ok := d.of(name)
			if !ok {
				reply(w, http.StatusNotFound, map[string]string{"reason": "USER_NOT_FOUND"})
				return
			}
			serve(w, name, groups)
		}
	}
	mux.HandleFunc("GET /rest/usermanagement/1/user", known(func(w http.ResponseWriter, name string, _ []string) {
		reply(w, http.StatusOK, map[string]any{"key": "key-of-" + name, "name": name, "active": true, "email": name + "@example.com"})
	}))
	mux.HandleFunc("GET /rest/usermanagement/1/user/group/nested", known(func(w http.ResponseWriter, _ string, groups []string) {
		list := []map[string]string{}
		for _, g := range groups {
			list = append(list, map[string]string{"name": g})
		}
		reply(w, http.StatusOK, map[string]any{"groups": list})
	}))
	web := httptest.NewServer(mux)
	t.Cleanup(web.Close)
	d.url = web.URL
	return d
}

// put has somebody in these groups and no others.
func (d *directory) put(name string, groups ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.groups[name] = groups
}

// remove has the directory know somebody no more.
func (d *directory) remove(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.groups, name)
}

func (d *directory) of(name string) ([]string, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	groups, ok := d.groups[name]
	return slices.Clone(groups), ok
}

// output keeps what a program says. It is safe for concurrent use.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements io.Writer.
func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

func (o *output) contains(s string) bool { return strings.Contains(o.String(), s) }

func (o *output) end() string {
	s := o.String()
	return s[max(0, len(s)-8000):]
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// freeAddress is one of this machine where nobody listens. Its port lies below those that the system gives to
// outgoing connections (32768 and above on Linux), so that between the look and its use nobody is given it by chance,
// and no two tests are given the same.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 200 {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(20_000+rand.IntN(12_000)))
		if _, taken := given.LoadOrStore(address, nil); taken {
			continue
		}
		c, err := net.DialTimeout("tcp", address, time.Second)
		if errors.Is(err, syscall.ECONNREFUSED) {
			return address
		}
		if err == nil {
			must(t, c.Close())
		}
	}
	t.Fatal("no free port was found")
	return ""
}

var given sync.Map

// eventually waits until what is wanted is so; until then, condition says what is there instead.
func eventually(t *testing.T, condition func() string) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		still := condition()
		if still == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(fmt.Errorf("after two minutes: %s", still))
		}
		select {
		case <-t.Context().Done():
			t.Fatal(still)
		case <-time.After(100 * time.Millisecond):
		}
	}
}
