package httpserver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// The deadlines that all servers share.
const (
	headerTimeout = 10 * time.Second
	// bodyTimeout is for a whole body; the largest that is read anywhere has 2 MiB.
	bodyTimeout = 30 * time.Second
	// writeTimeout is for the next part of an answer. An answer as a whole has none: events and
	// logs are followed for hours.
	writeTimeout = time.Minute
	idleTimeout  = 2 * time.Minute

	maxHeaderBytes = 64 << 10
)

// Config is what New needs.
type Config struct {
	Handler http.Handler
	Logger  *slog.Logger
	// Connections is the most connections at a time; half of them, 2048 at most, may come from one
	// address. See Share.
	Connections int
	// TLS has HTTPS served; nil: plain HTTP.
	TLS *tls.Config
	// BodyTimeout and HeaderBytes replace what all servers share; 0 leaves it.
	BodyTimeout time.Duration
	HeaderBytes int
}

// Server is an HTTP server with bounds.
type Server struct {
	http  *http.Server
	bound *bound
}

// New makes a server that does not listen yet.
func New(cfg Config) *Server {
	body, header := cfg.BodyTimeout, cfg.HeaderBytes
	if body == 0 {
		body = bodyTimeout
	}
	if header == 0 {
		header = maxHeaderBytes
	}
	// Bounds and deadlines are of connections, of which HTTP/1 has one for each request at a time.
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	return Bound(&http.Server{
		Handler:           deadlines(body, cfg.Handler),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    header,
		TLSConfig:         cfg.TLS, Protocols: &protocols,
		ErrorLog: slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
	}, cfg.Connections)
}

// Bound bounds the connections of a server that has deadlines of its own. It must not have been
// started, and is started by Serve.
func Bound(server *http.Server, connections int) *Server {
	server.ConnState = changed
	server.ConnContext = func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) }
	server.Handler = whole(server.Handler)
	return &Server{http: server, bound: newBound(connections)}
}

// Serve serves until Stop or Close; then it returns nil.
func (s *Server) Serve(l net.Listener) error {
	serve := s.http.Serve
	if s.http.TLSConfig != nil {
		serve = func(l net.Listener) error { return s.http.ServeTLS(l, "", "") }
	}
	if err := serve(&listener{Listener: l, bound: s.bound}); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Stop lets running requests end until ctx is done, then cuts them.
func (s *Server) Stop(ctx context.Context) error {
	if err := s.http.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("requests still running were cut: %w", err), s.http.Close())
	}
	return nil
}

// Close cuts everything.
func (s *Server) Close() error { return s.http.Close() }

type connKey struct{}

// changed keeps the bound's knowledge of a connection.
func changed(nc net.Conn, state http.ConnState) {
	c, ok := counted(nc)
	if !ok {
		return
	}
	switch state {
	case http.StateIdle:
		c.bound.waits(c)
	case http.StateHijacked, http.StateClosed:
		c.bound.gone(c)
	case http.StateNew, http.StateActive: // waits, since it was accepted or has answered
	}
}

// counted is the bound's connection, which may be within one that encrypts.
func counted(nc any) (*conn, bool) {
	if t, ok := nc.(*tls.Conn); ok {
		nc = t.NetConn()
	}
	c, ok := nc.(*conn)
	return c, ok
}

// whole tells the bound when a request has been read to its end.
func whole(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, ok := counted(r.Context().Value(connKey{})); ok {
			atEnd(r, func() { c.bound.served(c) })
		}
		next.ServeHTTP(w, r)
	})
}

// deadlines gives each body its time.
func deadlines(timeout time.Duration, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		if r.Body != nil && r.Body != http.NoBody {
			_ = rc.SetReadDeadline(time.Now().Add(timeout)) // the connection was ours a moment ago
		}
		atEnd(r, func() { _ = rc.SetReadDeadline(time.Time{}) }) // or a long answer would look like a lost client
		next.ServeHTTP(w, r)
	})
}

// atEnd calls fn once the body of the request was read to its end: at once, when there is none.
func atEnd(r *http.Request, fn func()) {
	if r.Body == nil || r.Body == http.NoBody {
		fn()
		return
	}
	r.Body = &body{ReadCloser: r.Body, whole: fn}
}

// body calls whole once when it has been read to its end.
type body struct {
	io.ReadCloser
	once  sync.Once
	whole func()
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		b.once.Do(b.whole)
	}
	return n, err
}
