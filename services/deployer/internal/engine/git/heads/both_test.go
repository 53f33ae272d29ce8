package heads

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/services/deployer/internal/engine/git/remote"
)

// both runs a test with the two ways to ask for heads.
func both(t *testing.T, fn func(t *testing.T, f *fixture, program bool)) {
	t.Helper()
	for _, program := range []bool{false, true} {
		name := "connection"
		if program {
			name = "program"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := setUp(t, 2*time.Second)
			if program {
				f.lister.list = f.lister.byProgram
			}
			fn(t, f, program)
		})
	}
}

// meaning is what an error of Heads is to its callers.
type meaning struct {
	reason                    string
	temporary, doubtful, gone bool
	wait                      time.Duration
}

func meaningOf(err error) meaning {
	e, ok := remote.AsError(err)
	if !ok {
		return meaning{reason: "none"}
	}
	return meaning{e.Reason, e.Temporary, e.Doubtful, remote.IsGone(err), e.RetryAfter}
}

func TestHeads_refusalsMeanTheSameHoweverItIsAsked(t *testing.T) {
	t.Parallel()
	plain := func(status int, text string, header ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			for i := 0; i+1 < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(status)
			_, _ = w.Write([]byte(text))
		}
	}
	hang := func(_ http.ResponseWriter, r *http.Request) {
		panic(http.ErrAbortHandler) // the connection breaks
	}
	unavailable := meaning{reason: "BITBUCKET_UNAVAILABLE", temporary: true}
	gone := meaning{reason: "REPOSITORY_NOT_FOUND", gone: true}
	cases := []struct {
		name   string
		answer http.HandlerFunc
		want   meaning
		words  string // that the message holds
	}{
		{"401", plain(401, "Invalid credentials"), meaning{reason: "ACCESS_REFUSED", temporary: true, doubtful: true}, "acme/web"},
		{"403 for want of access", plain(403, "You may not have access to this repository or it no longer exists in this workspace."), gone, "no longer exists in this workspace"},
		{"403 without a word", plain(403, ""), gone, ""},
		{"403 for the address", plain(403, "To access this repository, an admin must whitelist your IP."), meaning{reason: "ACCESS_RESTRICTED"}, "whitelist your IP"},
		{"403 for want of a second factor", plain(403, "You must enable two-step verification."), meaning{reason: "ACCESS_RESTRICTED"}, "two-step"},
		{"403 for want of a scope", plain(403, "Your credentials lack one or more required privilege scopes."), meaning{reason: "SCOPE_MISSING"}, "scope"},
		{"404", plain(404, "Repository acme/web not found"), gone, ""},
		{"410", plain(410, ""), gone, ""},
		{"429", plain(429, "Rate limit for this resource has been exceeded", "Retry-After", "7"), meaning{reason: "BITBUCKET_RATE_LIMITED", temporary: true, wait: 7 * time.Second}, ""},
		{"429 without a time", plain(429, ""), meaning{reason: "BITBUCKET_RATE_LIMITED", temporary: true}, ""},
		{"500", plain(500, "oops"), unavailable, ""},
		{"503 with a time", plain(503, "", "Retry-After", "20"), meaning{reason: "BITBUCKET_UNAVAILABLE", temporary: true, wait: 20 * time.Second}, ""},
		{"a redirect", plain(302, "", "Location", "/acme/other.git/info/refs?service=git-upload-pack"), unavailable, ""},
		{"a page", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = w.Write([]byte("<html>down for maintenance</html>"))
		}, unavailable, ""},
		{"a page that says it is git's", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
			_, _ = w.Write([]byte("<html>down for maintenance</html>"))
		}, unavailable, ""},
		{"nothing", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
		}, unavailable, ""},
		{"a broken connection", hang, unavailable, ""},
	}
	both(t, func(t *testing.T, f *fixture, program bool) {
		f.git.Repo("acme/web").Commit("main", "x", map[string]string{"f": "1"})
		for _, step := range []string{"/info/refs", "/git-upload-pack"} {
			for _, c := range cases {
				if step == "/git-upload-pack" && strings.HasPrefix(c.name, "a page that") {
					continue // the type of another answer
				}
				if step == "/git-upload-pack" && program && c.words != "" && strings.HasPrefix(c.name, "403") {
					continue // git passes on what the server says to people at its first step only
				}
				f.tokens.Rejected = nil
				f.git.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
					if !strings.HasSuffix(r.URL.Path, step) {
						return false
					}
					c.answer(w, r)
					return true
				})
				_, err := f.lister.Heads(t.Context(), "acme-inc", "acme/web", remote.Wanted{Branch: every, Tag: every})
				if got := meaningOf(err); got != c.want {
					t.Errorf("%s at %s: %+v, want %+v: %v", c.name, step, got, c.want, err)
				}
				if e, ok := remote.AsError(err); ok && !strings.Contains(e.Message, c.words) {
					t.Errorf("%s at %s: %q", c.name, step, e.Message)
				}
			}
		}
		f.git.Intercept(nil)
		if heads, err := f.lister.Heads(t.Context(), "acme-inc", "acme/web", remote.Wanted{Branch: every}); err != nil || len(heads.Branches) != 1 {
			t.Errorf("afterwards: %v, %v", heads, err)
		}
		f.logs.MustNotContain(t, remote.Forms(seal.NewSecret(token))...)
	})
}

func TestHeads_listsTheSameHoweverItIsAsked(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, f *fixture, _ bool) {
		ask := func(name string, want remote.Wanted) remote.Heads {
			t.Helper()
			heads, err := f.lister.Heads(t.Context(), "acme-inc", name, want)
			if err != nil {
				t.Fatal(err)
			}
			return heads
		}
		repo := f.git.Repo("acme/web")
		if heads := ask("acme/web", remote.Wanted{Branch: every, Tag: every}); !heads.Empty {
			t.Errorf("a repository without commits: %v", heads)
		}
		one := repo.Commit("feature/größe", "one", map[string]string{"f": "1"})
		repo.Git("-c", "user.name=Jane Developer", "-c", "user.email=jane@example.test", "tag", "-a", "-m", "annotated", "v1", one)
		repo.Git("-c", "user.name=Jane Developer", "-c", "user.email=jane@example.test", "tag", "-a", "-m", "of a tag", "v2", "v1")
		heads := ask("acme/web", remote.Wanted{Branch: every, Tag: named("v2")})
		if heads.Empty || len(heads.Branches) != 1 || heads.Branches["feature/größe"] != one || len(heads.Tags) != 1 || heads.Tags["v2"] != one {
			t.Errorf("%v", heads)
		}
		if heads := ask("acme/web", remote.Wanted{Tag: named("nope")}); heads.Empty || len(heads.Tags) != 0 {
			t.Errorf("tags that nobody wants: %v", heads)
		}
		_, err := f.lister.Heads(t.Context(), "acme-inc", "acme/none", remote.Wanted{Branch: every})
		if !remote.IsGone(err) {
			t.Errorf("%v", err)
		}
		f.git.Rename("acme/web", "acme/shop")
		if _, err := f.lister.Heads(t.Context(), "acme-inc", "acme/web", remote.Wanted{Branch: every}); !remote.IsGone(err) {
			t.Errorf("renamed: %v", err)
		}
		if heads := ask("acme/shop", remote.Wanted{Branch: every}); heads.Branches["feature/größe"] != one {
			t.Errorf("under its new name: %v", heads)
		}
	})
}

// TestHeads_anOlderServerIsLeftToTheProgram: it answers in a version that only git speaks.
func TestHeads_anOlderServerIsLeftToTheProgram(t *testing.T) {
	t.Parallel()
	f := setUp(t, time.Minute)
	hash := f.git.Repo("acme/web").Commit("main", "x", map[string]string{"f": "1"})
	f.git.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		r.Header.Del("Git-Protocol")
		return false
	})
	heads, err := f.lister.Heads(t.Context(), "acme-inc", "acme/web", remote.Wanted{Branch: every})
	if err != nil || len(heads.Branches) != 1 || heads.Branches["main"] != hash {
		t.Fatalf("%v %v", heads, err)
	}
}

// TestHeads_startsNoProcessAndKeepsItsConnection: a question costs two requests on a connection that is there.
func TestHeads_startsNoProcessAndKeepsItsConnection(t *testing.T) {
	t.Parallel()
	f := setUp(t, time.Minute)
	f.git.Repo("acme/web").Commit("main", "x", map[string]string{"f": "1"})
	var runs, connections atomic.Int32
	f.lister.git.Observe = func(operation string, _ time.Duration, _ error) {
		if operation != "ls-refs" {
			runs.Add(1)
		}
	}
	var remotes []string
	f.git.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if !slices.Contains(remotes, r.RemoteAddr) {
			remotes = append(remotes, r.RemoteAddr)
			connections.Add(1)
		}
		return false
	})
	before := len(f.git.Requests())
	for range 20 {
		if _, err := f.lister.Heads(t.Context(), "acme-inc", "acme/web", remote.Wanted{Branch: every, Tag: every}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(f.git.Requests()) - before; n != 40 || runs.Load() != 0 || connections.Load() != 1 {
		t.Errorf("%d requests on %d connections, git was run %d times", n, connections.Load(), runs.Load())
	}
}

// TestHeads_theTokenGoesNowhereElse: neither where a redirect leads, nor into an error.
func TestHeads_theTokenGoesNowhereElse(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, f *fixture, _ bool) {
		var elsewhere atomic.Int32
		other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
		defer other.Close()
		f.git.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, other.URL+r.URL.RequestURI()+"&"+token, http.StatusTemporaryRedirect)
			return true
		})
		_, err := f.lister.Heads(t.Context(), "acme-inc", "acme/web", remote.Wanted{Branch: every})
		if err == nil || elsewhere.Load() != 0 {
			t.Errorf("%v, %d requests elsewhere", err, elsewhere.Load())
		}
		f.git.Intercept(func(w http.ResponseWriter, r *http.Request) bool { // a server that repeats what it was sent
			user, password, _ := r.BasicAuth()
			w.Header().Set("Content-Type", "text/plain")
			w.WriteHeader(http.StatusForbidden)
			_, _ = w.Write([]byte(user + ":" + password + " " + r.Header.Get("Authorization")))
			return true
		})
		_, err = f.lister.Heads(t.Context(), "acme-inc", "acme/web", remote.Wanted{Branch: every})
		var e *remote.Error
		if !errors.As(err, &e) {
			t.Fatal(err)
		}
		for _, form := range remote.Forms(seal.NewSecret(token)) {
			if strings.Contains(err.Error()+e.Message, form) {
				t.Error("the token is in the error")
			}
		}
	})
}
