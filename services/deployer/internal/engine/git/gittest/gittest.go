// Package gittest is a git server for tests: git's own upload-pack behind the authentication of
// BITBUCKET.md#git.
package gittest

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Server is a git server on a free loopback port.
type Server struct {
	URL  *url.URL
	root string
	t    testing.TB

	stopped chan struct{} // closed when the test ends

	mu        sync.Mutex
	tokens    []string
	fail      func(r *http.Request) (status int, text string)
	intercept func(w http.ResponseWriter, r *http.Request) bool
	stall     int
	lfs       *LFS
	requests  []string
}

// New starts a server that accepts the given tokens.
func New(t testing.TB, tokens ...string) *Server {
	t.Helper()
	s := &Server{root: t.TempDir(), t: t, tokens: tokens, stall: -1, stopped: make(chan struct{})}
	srv := httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(srv.Close)
	t.Cleanup(func() { close(s.stopped) })
	u, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	s.URL = u
	return s
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests = append(s.requests, r.Method+" "+r.URL.String())
	fail, tokens, intercept, stall, lfs := s.fail, s.tokens, s.intercept, s.stall, s.lfs
	s.mu.Unlock()
	if intercept != nil && intercept(w, r) {
		return
	}
	if fail != nil {
		if status, text := fail(r); status != 0 {
			w.Header().Set("Content-Type", "text/plain")
			w.WriteHeader(status)
			_, _ = w.Write([]byte(text))
			return
		}
	}
	user, password, ok := r.BasicAuth()
	if !ok || user != "x-token-auth" || !slices.Contains(tokens, password) {
		w.Header().Set("WWW-Authenticate", `Basic realm="Bitbucket.org HTTP"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	r.Header.Del("Authorization")
	if lfs != nil && strings.HasSuffix(r.URL.Path, "/info/lfs/objects/batch") {
		lfs.batch(w, r)
		return
	}
	if stall >= 0 && isPack(r) {
		w = &stalling{ResponseWriter: w, left: stall, ctx: r.Context(), stopped: s.stopped}
	}
	s.uploadPack(w, r)
}

// Accept replaces the tokens that are accepted.
func (s *Server) Accept(tokens ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens = tokens
}

// Fail has fn decide about every request: a status other than 0 is answered with the text.
func (s *Server) Fail(fn func(r *http.Request) (int, string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = fn
}

// Requests are the method and URL of all requests so far.
func (s *Server) Requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Repo makes a bare repository, or returns the one that is there.
func (s *Server) Repo(fullName string) *Repo {
	s.t.Helper()
	r := &Repo{Dir: filepath.Join(s.root, fullName+".git"), t: s.t}
	if !r.there() {
		r.create()
	}
	return r
}

// Rename gives a repository another name.
func (s *Server) Rename(from, to string) {
	s.t.Helper()
	if err := os.MkdirAll(filepath.Dir(filepath.Join(s.root, to)), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(s.root, from+".git"), filepath.Join(s.root, to+".git")); err != nil {
		s.t.Fatal(err)
	}
}

// Repo is a bare repository on the server.
type Repo struct {
	Dir string
	t   testing.TB
}

// Entry is one entry of a tree that Tree makes: mode as git writes it, and content.
type Entry struct{ Mode, Name, Content string }

// E is an Entry.
func E(mode, name, content string) Entry { return Entry{Mode: mode, Name: name, Content: content} }

func (r *Repo) run(stdin string, args ...string) string {
	r.t.Helper()
	cmd := exec.CommandContext(r.t.Context(), "git", args...)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_AUTHOR_NAME=Jane Developer", "GIT_AUTHOR_EMAIL=jane@example.test", "GIT_COMMITTER_NAME=Jane Developer", "GIT_COMMITTER_EMAIL=jane@example.test")
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		r.t.Fatalf("git %s: %v: %s", strings.Join(args, " "), err, errs.String())
	}
	return strings.TrimSpace(out.String())
}

// Git runs git on the repository.
func (r *Repo) Git(args ...string) string {
	r.t.Helper()
	return r.run("", append([]string{"--git-dir=" + r.Dir}, args...)...)
}

// Blob stores a file's content.
func (r *Repo) Blob(content string) string {
	r.t.Helper()
	return r.object("blob", []byte(content))
}

// Tree stores a tree of exactly these entries, hostile names included. A mode of 040000 or 160000
// takes the content for the object's id.
func (r *Repo) Tree(entries ...Entry) string {
	r.t.Helper()
	var stored []treeEntry
	for _, e := range entries {
		id := e.Content
		if e.Mode != "040000" && e.Mode != "160000" {
			id = r.Blob(e.Content)
		}
		stored = append(stored, treeEntry{e.Mode, e.Name, id})
	}
	return r.tree(stored)
}

// CommitTree makes a tree the head of a branch.
func (r *Repo) CommitTree(branch, tree, message string) string {
	r.t.Helper()
	return r.commit(branch, tree, message)
}

// Commit makes a commit with exactly these files (path to content) the head of a branch.
func (r *Repo) Commit(branch, message string, files map[string]string) string {
	r.t.Helper()
	return r.commit(branch, r.files(files), message)
}

// Head is the hash of a branch, empty when there is none.
func (r *Repo) Head(branch string) string {
	r.t.Helper()
	if b, err := os.ReadFile(filepath.Join(r.Dir, "refs", "heads", filepath.FromSlash(branch))); err == nil {
		return strings.TrimSpace(string(b))
	}
	if _, err := os.Stat(filepath.Join(r.Dir, "packed-refs")); err != nil {
		return ""
	}
	return r.Git("for-each-ref", "--format=%(objectname)", "refs/heads/"+branch)
}

// MainBranch is a branch that there is, main if it is among them; empty when there is none.
func (r *Repo) MainBranch() string {
	r.t.Helper()
	if r.Head("main") != "" {
		return "main"
	}
	// Whoever asks in the background may still ask when the test is over, and no program is run any more.
	loose, _ := os.ReadDir(filepath.Join(r.Dir, "refs", "heads"))
	if _, err := os.Stat(filepath.Join(r.Dir, "packed-refs")); err != nil && len(loose) == 0 {
		return ""
	}
	name, _, _ := strings.Cut(r.Git("for-each-ref", "--count=1", "--format=%(refname:strip=2)", "refs/heads/"), "\n")
	return name
}

// Delete removes a branch.
func (r *Repo) Delete(branch string) {
	r.t.Helper()
	r.Git("update-ref", "-d", "refs/heads/"+branch)
}

// Input runs git on the repository with something to read.
func (r *Repo) Input(stdin string, args ...string) string {
	r.t.Helper()
	return r.run(stdin, append([]string{"--git-dir=" + r.Dir}, args...)...)
}

// Object stores an object of a kind ("tree", "commit") with exactly this content, whatever git would
// say of it, and returns its name.
func (r *Repo) Object(kind, content string) string {
	r.t.Helper()
	return r.object(kind, []byte(content))
}
