package e2e

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
)

// consumer is the OAuth consumer of the tests; its secret is planted.
var consumer = emulator.Consumer{
	Key: "e2eConsumerKey00000000000000000001", Secret: "e2eConsumerSecret-7d0f3c52b1e94a6fa8c8d41be02f6a95", Name: "Devpilot",
	Scopes: []string{"account", "email", "repository", "webhook"},
}

// site is the Bitbucket of a stack: an emulator, and before it a door that remembers every secret
// that passes. Its address is on localhost, the product's on 127.0.0.1: two sites to a browser.
type site struct {
	*emulator.Control
	address string

	mu      sync.Mutex
	next    http.Handler
	secrets map[string]string // value → what it is
}

// openSite opens the door; behind says what is behind it.
func openSite(t testing.TB) *site {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s := &site{address: "http://localhost:" + port, secrets: map[string]string{}, next: http.NotFoundHandler()}
	s.Control = emulator.NewControl(s.address)
	server := httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	if err := server.Listener.Close(); err != nil {
		t.Fatal(err)
	}
	server.Listener = l
	server.Start()
	t.Cleanup(server.Close)
	return s
}

// behind puts a handler behind the door.
func (s *site) behind(h http.Handler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next = h
}

// inProcess puts an emulator of this process behind the door.
func (s *site) inProcess(t testing.TB) {
	t.Helper()
	e, err := emulator.New(emulator.Options{SiteURL: s.address, DataDir: t.TempDir(), Consumer: consumer, Scenario: "sample"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Errorf("stop the emulator: %v", err)
		}
	})
	s.behind(e.Handler())
}

// at puts an emulator in another process behind the door.
func (s *site) at(address string) {
	target := &url.URL{Scheme: "http", Host: address}
	s.behind(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Host = r.In.Host
	}})
}

func (s *site) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	next := s.next
	s.mu.Unlock()
	switch {
	case r.URL.Path == "/site/oauth2/access_token":
		s.serveTokens(next, w, r)
	case strings.HasPrefix(r.URL.Path, "/2.0/") && strings.Contains(r.URL.Path, "/hooks") && r.Method != http.MethodGet:
		s.readHook(r)
		next.ServeHTTP(w, r)
	default:
		next.ServeHTTP(w, r)
	}
}

// serveTokens remembers the tokens of an answer.
func (s *site) serveTokens(next http.Handler, w http.ResponseWriter, r *http.Request) {
	answer := httptest.NewRecorder()
	next.ServeHTTP(answer, r)
	var pair struct {
		Access  string `json:"access_token"`
		Refresh string `json:"refresh_token"`
	}
	if json.Unmarshal(answer.Body.Bytes(), &pair) == nil {
		s.remember(pair.Access, "access token")
		s.remember(pair.Refresh, "refresh token")
	}
	for name, values := range answer.Header() {
		w.Header()[name] = values
	}
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes()) // who is gone does not read it
}

// readHook remembers the secret that a webhook is registered with.
func (s *site) readHook(r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return // the emulator sees the same cut body
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	var hook struct {
		Secret string `json:"secret"`
	}
	if json.Unmarshal(body, &hook) == nil {
		s.remember(hook.Secret, "webhook secret")
	}
}

func (s *site) remember(secret, what string) {
	if secret == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secrets[secret] = what
}

// passed lists the secrets of a kind that passed the door so far.
func (s *site) passed(kinds ...string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []string
	for secret, what := range s.secrets {
		if len(kinds) == 0 || slices.Contains(kinds, what) {
			list = append(list, secret)
		}
	}
	return list
}

// repository is a repository on the emulator.
type repository struct {
	name string // workspace/slug
	id   string
}

// repository makes a repository in acme that jane-dev administers; seed as in RepositoryInput.
func (s *site) repository(t testing.TB, slug, seed string) repository {
	t.Helper()
	name := "acme/" + slug
	made, err := s.PutRepository(t.Context(), name, emulator.RepositoryInput{
		Name: slug, Seed: seed, Permissions: map[string]string{jane: "admin"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return repository{name: name, id: made.UUID}
}

// jane is the account that connects, by UUID as permissions of new repositories want it.
const jane = "jane-dev"

// push changes refs in one push.
func (s *site) push(t testing.TB, repo repository, changes ...emulator.RefChange) []emulator.RefResult {
	t.Helper()
	results, err := s.Push(t.Context(), repo.name, "", changes...)
	if err != nil {
		t.Fatal(err)
	}
	return results
}

// commit pushes one commit with a file to a branch and returns its hash.
func (s *site) commit(t testing.TB, repo repository, branch, text string) string {
	t.Helper()
	hash, err := s.Commit(t.Context(), repo.name, branch, text, map[string]string{"index.html": text + "\n"})
	if err != nil {
		t.Fatal(err)
	}
	return hash
}

// head is a branch's commit; empty when there is no such branch.
func (s *site) head(t testing.TB, repo repository, branch string) string {
	t.Helper()
	refs, err := s.Refs(t.Context(), repo.name)
	if err != nil {
		t.Fatal(err)
	}
	return refs["refs/heads/"+branch]
}
