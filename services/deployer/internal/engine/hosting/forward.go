package hosting

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"

	"devpilot.io/bitbucket/pkg/logs"
)

// ElsewhereError is what a Sites answers when another server has the release.
type ElsewhereError struct{ Server string }

// Error implements error.
func (e *ElsewhereError) Error() string {
	return fmt.Sprintf("live: server %s has the release", e.Server)
}

// errMisdirected says that the server that was asked does not have the release either: two workers
// disagree, for as long as one of them has not heard of a switch.
var errMisdirected = errors.New("live: the other server does not have the release")

// private are the headers of a visitor that a static site has no use for. They stay here.
var private = []string{"Cookie", "Authorization", "Proxy-Authorization", "Connection", "Upgrade"}

// forwarded answers a request that another worker sent here, as far as that is to be seen from it. It
// tells whether there is nothing left to do: a request for another server's name is nobody's.
func (s *Server) forwarded(w *recorder, r *http.Request) (hop, done bool) {
	server := r.Header.Get(forwardedTo)
	switch server {
	case "":
		return false, false
	case s.server:
		w.Header().Set(answeredBy, server)
		return true, false
	}
	misdirected(w, r)
	return true, true
}

// forward has a worker of another server answer: with the visitor's own host and conditions, and without
// a change of what it says.
func (s *Server) forward(w *recorder, r *http.Request, name Name, server string) {
	result := forwardedOK
	defer func() {
		// ReverseProxy cuts an answer that breaks off by this panic, which would skip the log.
		if p := recover(); p == http.ErrAbortHandler { //nolint:errorlint // as net/http compares it
			w.broken, result = true, forwardedBroken
		} else if p != nil {
			panic(p)
		}
		s.metrics.forwarded(result)
	}()
	proxy := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			rewrite(p)
			p.Out.Header.Set(forwardedTo, server)
		},
		Transport: s.peers, BufferPool: partsPool{}, FlushInterval: -1,
		ErrorLog: slog.NewLogLogger(s.logger.Handler(), slog.LevelDebug),
		ModifyResponse: func(resp *http.Response) error {
			resp.Header.Del(answeredBy)
			if resp.StatusCode == http.StatusMisdirectedRequest {
				return errMisdirected
			}
			return nil
		},
		ErrorHandler: func(_ http.ResponseWriter, r *http.Request, err error) {
			result = s.unforwarded(w, r, name, server, err)
		},
	}
	proxy.ServeHTTP(w, r)
}

// rewrite makes the request for another worker. Its address is put in by peers; nothing of what the
// request says decides where it goes.
func rewrite(p *httputil.ProxyRequest) {
	in, out := p.In, p.Out
	out.URL = &url.URL{Path: in.URL.Path, RawPath: in.URL.RawPath, RawQuery: in.URL.RawQuery, ForceQuery: in.URL.ForceQuery}
	out.Host = in.Host
	out.Body, out.ContentLength, out.TransferEncoding, out.Trailer = nil, 0, nil, nil
	for _, name := range private {
		out.Header.Del(name)
	}
	p.SetXForwarded() // what the visitor said of it is gone already
}

// unforwarded tells the visitor why there is no answer, without a name of a server or an address.
func (s *Server) unforwarded(w *recorder, r *http.Request, name Name, server string, err error) (result string) {
	switch {
	case errors.Is(err, context.Canceled) && r.Context().Err() != nil:
		w.broken = true // nobody is there to be told
		return forwardedBroken
	case errors.Is(err, errMisdirected):
		siteMoving(w, r)
		result = forwardedMisdirected
	case errors.Is(err, errStranger):
		serverStrange(w, r)
		result = forwardedStranger
	default:
		serverAway(w, r)
		result = forwardedAway
	}
	s.logger.DebugContext(r.Context(), "a release of another server cannot be served", append(name.attrs(), slog.String(logs.KeyServer, server), logs.Err(err))...)
	return result
}

// partsPool is httputil.BufferPool's.
type partsPool struct{}

// Get implements httputil.BufferPool.
func (partsPool) Get() []byte { return parts.Get().(*[part]byte)[:] }

// Put implements httputil.BufferPool.
func (partsPool) Put(b []byte) { parts.Put((*[part]byte)(b)) }
