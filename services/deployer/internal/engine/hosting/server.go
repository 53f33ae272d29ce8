package hosting

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/transport"
)

// DefaultCacheBytes bounds the compressed forms that are kept.
const DefaultCacheBytes = 32 << 20

// Config is what New needs.
type Config struct {
	Sites Sites
	// Host is the live host as CheckHost returned it: lower case, no port.
	Host string
	// Server is this worker's server. Addresses are where workers of another one serve releases, the
	// likeliest first, as they announced it: https:// and an address like 10.0.0.7:8083 where they have a
	// certificate, else http:// and one; nil: releases of other servers are not served.
	Server    string
	Addresses func(server string) []string
	// Certificate is shown to workers of other servers, and theirs is checked; nil: nothing is encrypted.
	Certificate *transport.Certificate
	// Logger gets one line per request at debug, and trouble at warn; nil: none.
	Logger *slog.Logger
	// Registerer may be nil.
	Registerer prometheus.Registerer
	// CacheBytes bounds the cache of compressed forms; 0: DefaultCacheBytes.
	CacheBytes int64
	// Now tells how long files were left alone; nil: time.Now.
	Now func() time.Time
}

// Server serves releases. It is safe for concurrent use and holds nothing that needs closing.
type Server struct {
	sites       Sites
	host        string
	server      string
	peers       *peers
	certificate *transport.Certificate
	logger      *slog.Logger
	metrics     *metrics
	digests     *digester
	compressor  *compressor
	headers     *lru[identity, []rule]
	now         func() time.Time
}

// New makes a server; it does no I/O. It fails on a host that CheckHost refuses, and on metrics that are
// registered already.
func New(cfg Config) (*Server, error) {
	if cfg.Sites == nil {
		return nil, errors.New("live: Sites is missing")
	}
	host, err := CheckHost(cfg.Host, "")
	if err != nil {
		return nil, err
	}
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, err
	}
	if cfg.CacheBytes == 0 {
		cfg.CacheBytes = DefaultCacheBytes
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Addresses == nil {
		cfg.Addresses = func(string) []string { return nil }
	}
	// Half of the processors at most: the other half deploys.
	c, err := newCompressor(cfg.CacheBytes, max(1, runtime.GOMAXPROCS(0)/2), cfg.Now)
	if err != nil {
		return nil, err
	}
	s := &Server{
		sites: cfg.Sites, host: host, server: cfg.Server, certificate: cfg.Certificate, logger: cfg.Logger, metrics: m, digests: newDigester(), compressor: c,
		headers: newLRU[identity, []rule](headersCacheBytes),
		now:     cfg.Now,
	}
	s.peers = newPeers(cfg, s.dialPeer)
	return s, nil
}

// headersCacheBytes bounds the _headers files that are remembered, by the bytes of the files.
const headersCacheBytes = 4 << 20

// Handler serves every host name. It must be mounted as it is: an http.ServeMux before it would redirect
// paths that it refuses.
func (s *Server) Handler() http.Handler { return http.HandlerFunc(s.serveHTTP) }

// HTTPServer is a server for Handler whose limits suit visitors from anywhere: headers within 10 s and 16
// KiB, no request bodies to speak of, and answers of any length as long as the visitor takes the next
// part of it within a minute. It listens to nothing yet.
func (s *Server) HTTPServer() *http.Server {
	return &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       20 * time.Second,
		WriteTimeout:      stall, // moved on by the recorder
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.logger.Handler(), slog.LevelDebug),
	}
}

// visit is one request.
type visit struct {
	name Name
	site string // for the metrics: live, numbered, elsewhere or none
}

func (s *Server) serveHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	rec := newRecorder(w)
	v := visit{site: "none"}
	s.serve(rec, r, &v)
	coding := rec.Header().Get("Content-Encoding")
	s.metrics.request(v.site, coding, rec.status, rec.bytes)
	if s.logger.Enabled(r.Context(), slog.LevelDebug) {
		s.logger.DebugContext(r.Context(), "release served", append(v.name.attrs(),
			slog.String(logs.KeyHTTPMethod, r.Method), slog.Int(logs.KeyHTTPStatus, rec.status), slog.String(logs.KeyPath, r.URL.Path),
			slog.Int64("bytes", rec.bytes), slog.String("coding", coding), slog.Bool("cut", rec.broken),
			slog.Float64(logs.KeyDuration, float64(time.Since(start))/float64(time.Millisecond)))...)
	}
	if rec.broken {
		panic(http.ErrAbortHandler) // what was announced cannot be sent: the visitor must see the answer break off
	}
}

// serve finds the site and answers from it.
func (s *Server) serve(w *recorder, r *http.Request, v *visit) {
	hop, done := s.forwarded(w, r)
	if done {
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		methodNotAllowed(w, r)
		return
	}
	name, err := ParseHost(r.Host, s.host)
	if err != nil {
		s.unknownHost(w, r)
		return
	}
	v.name = name
	path, slash, err := cleanPath(r.URL)
	if err != nil {
		malformed(w, r)
		return
	}
	site, err := s.sites.Site(r.Context(), name.Workspace, name.App, name.Number)
	var elsewhere *ElsewhereError
	switch {
	case errors.As(err, &elsewhere) && hop:
		misdirected(w, r) // once is enough: two workers that disagree would send it to and fro
		return
	case errors.As(err, &elsewhere):
		v.site = "elsewhere"
		s.forward(w, r, name, elsewhere.Server)
		return
	case errors.Is(err, ErrNotFound), errors.Is(err, ErrNotServed):
		notServed(w, r)
		return
	case errors.Is(err, ErrMoving):
		siteMoving(w, r)
		return
	case errors.Is(err, ErrGone):
		gone(w, r, name)
		return
	case err != nil:
		s.trouble(w, r, name, err)
		return
	}
	defer site.close()
	v.site = "numbered"
	if site.Live {
		v.site = "live"
	}
	top, err := openTree(site.Release, site.Directory)
	if errors.Is(err, errAbsent) {
		noDirectory(w, r)
		return
	}
	if err == nil {
		defer top.close()
		top.shared = site.Shared
		err = s.serveSite(w, r, &site, top, path, slash)
	}
	if err != nil {
		s.trouble(w, r, name, err)
	}
}

// trouble answers for a volume or a store that fails.
func (s *Server) trouble(w *recorder, r *http.Request, name Name, err error) {
	if r.Context().Err() == nil && !errors.Is(err, errChanged) {
		s.logger.WarnContext(r.Context(), "release cannot be served", append(name.attrs(), logs.Err(err))...)
	}
	unavailable(w, r)
}

// rules are those of the site's _headers file; none if there is no such file. Problems in it are for
// CheckHeaders to report, when the release is made.
func (s *Server) rules(ctx context.Context, top *tree) ([]rule, error) {
	dir := node{tree: top, parent: top.dir}
	id, ok := dir.regular(headersFile)
	if !ok {
		return nil, nil
	}
	if rules, ok := s.headers.get(id); ok {
		return rules, nil
	}
	file, err := dir.open(headersFile)
	if errors.Is(err, errAbsent) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.close()
	rules, problems := parseHeaders(io.Reader(file))
	if file.broken.Load() {
		return nil, errChanged
	}
	if len(problems) > 0 {
		s.logger.DebugContext(ctx, "headers file has problems", slog.Int(logs.KeyCount, len(problems)))
	}
	if file.settled(s.now()) {
		s.headers.add(file.id, rules, file.id.size+entryCost)
	}
	return rules, nil
}
