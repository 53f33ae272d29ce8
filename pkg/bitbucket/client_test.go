package bitbucket

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/seal"
)

// A server written by hand: what it answers comes from BITBUCKET.md, not from this package's types.
type server struct {
	*httptest.Server
	mu   sync.Mutex
	seen []seenRequest
}

type seenRequest struct {
	Method, Path, Query, Authorization, UserAgent, ContentType, Body string
}

func newServer(t *testing.T, handler http.HandlerFunc) *server {
	t.Helper()
	s := &server{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var b strings.Builder
		if r.Body != nil {
			buf := make([]byte, 1<<16)
			for {
				n, err := r.Body.Read(buf)
				b.Write(buf[:n])
				if err != nil {
					break
				}
			}
		}
		s.mu.Lock()
		s.seen = append(s.seen, seenRequest{
			Method: r.Method, Path: r.URL.EscapedPath(), Query: r.URL.RawQuery, Authorization: r.Header.Get("Authorization"),
			UserAgent: r.UserAgent(), ContentType: r.Header.Get("Content-Type"), Body: b.String(),
		})
		s.mu.Unlock()
		handler(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *server) requests() []seenRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]seenRequest(nil), s.seen...)
}

func (s *server) site(t *testing.T) Site {
	t.Helper()
	site, err := NewSite(s.URL, s.URL+"/2.0")
	if err != nil {
		t.Fatal(err)
	}
	return site
}

// account makes calls to the server with the token "token-1", renewed to "token-2" and so on.
func (s *server) account(t *testing.T, o ClientOptions) *Account {
	t.Helper()
	return NewClient(s.site(t), o).As(&tokens{n: 1})
}

// tokens is a TokenSource that counts renewals.
type tokens struct {
	mu  sync.Mutex
	n   int
	err error // instead of a renewal
}

func (ts *tokens) Token(_ context.Context, rejected seal.Secret) (seal.Secret, error) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if rejected.Equal(ts.current()) {
		if ts.err != nil {
			return seal.Secret{}, ts.err
		}
		ts.n++
	}
	return ts.current(), nil
}

func (ts *tokens) current() seal.Secret { return seal.NewSecret(fmt.Sprintf("token-%d", ts.n)) }

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func answerText(w http.ResponseWriter, status int, contentType, body string) {
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_, _ = w.Write([]byte(body))
}

const userJSON = `{"type":"user","uuid":"{0B7C0E0A-1111-4222-8333-444455556666}","account_id":"557058:x","username":"jane-dev",
 "nickname":"Jane","display_name":"Jane Developer","links":{"avatar":{"href":"https://avatar.example.test/abc"}}}`

// budget is a Budget that records and refuses on demand.
type budget struct {
	mu        sync.Mutex
	wait      time.Duration
	taken     []string
	exhausted []string
}

func (b *budget) Take(_ context.Context, c Call, p Priority, workspace string) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.taken = append(b.taken, strings.TrimSuffix(fmt.Sprintf("%s/%s of %s", c.Resource, p, workspace), " of "))
	return b.wait
}

func (b *budget) Exhausted(_ context.Context, c Call, wait time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.exhausted = append(b.exhausted, fmt.Sprintf("%s %s %s/%s", c.Resource, c.Route, c.Object, wait))
}
