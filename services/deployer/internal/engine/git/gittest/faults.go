package gittest

import (
	"context"
	"net/http"
	"strings"
)

// Intercept has fn see every request before its credential is checked; true means that fn has
// answered it. nil ends that.
func (s *Server) Intercept(fn func(w http.ResponseWriter, r *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.intercept = fn
}

// StallAfter has the server send so many bytes of each pack, and then nothing until the client gives
// up or the test ends. Below zero it ends that.
func (s *Server) StallAfter(bytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stall = bytes
}

// stalling is a ResponseWriter that falls silent.
type stalling struct {
	http.ResponseWriter
	left    int
	ctx     context.Context //nolint:containedctx // of the request that is answered
	stopped <-chan struct{}
}

func (s *stalling) Write(b []byte) (int, error) {
	n := min(len(b), max(s.left, 0))
	s.left -= n
	if n > 0 {
		if _, err := s.ResponseWriter.Write(b[:n]); err != nil {
			return 0, err
		}
		s.Flush()
	}
	if n == len(b) {
		return n, nil
	}
	select {
	case <-s.ctx.Done():
	case <-s.stopped:
	}
	return n, http.ErrAbortHandler
}

func (s *stalling) Flush() {
	if f, ok := s.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}

func isPack(r *http.Request) bool {
	return r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/git-upload-pack")
}
