// Package edge is what every HTTP request to the gateway goes through, whatever it asks for: request
// id, access line, panics, known hosts, cross-origin rules, headers that browsers obey.
//
// The order, outermost first: request id and client address → trace → access line and metrics →
// recovery → known host → cross-origin → handler.
//
// It depends on pkg/apierr, pkg/logs and pkg/rpc.
package edge

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	nooptrace "go.opentelemetry.io/otel/trace/noop"

	"devpilot.io/bitbucket/pkg/apierr"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/rpc"
	"devpilot.io/bitbucket/pkg/tracing"
)

// HeaderRequestID names the request id in requests and answers.
const HeaderRequestID = "X-Request-Id"

// Config is what Wrap needs.
type Config struct {
	Logger         *slog.Logger
	Registerer     prometheus.Registerer // nil: metrics are not exported
	TracerProvider trace.TracerProvider  // nil: no traces
	Hosts          Hosts
	Origins        Origins
	Proxies        Proxies
	Now            func() time.Time
	// Secure is whether browsers reach us over https, and are to do so only.
	Secure bool
}

// Wrap puts the chain around a handler.
func Wrap(cfg Config, next http.Handler) (http.Handler, error) {
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, err
	}
	cross, err := cfg.Origins.protection()
	if err != nil {
		return nil, err
	}
	tp := cfg.TracerProvider
	if tp == nil {
		tp = nooptrace.NewTracerProvider()
	}
	h := cfg.Origins.guard(cross, next)
	h = cfg.Hosts.guard(h)
	h = recovery(h)
	h = accessLog(cfg.Logger, m, cfg.Now, h)
	h = traced(tp.Tracer("devpilot.io/bitbucket/services/gateway"), h)
	return begin(cfg, h), nil
}

// begin gives the request its id, its notes and the headers of every answer.
func begin(cfg Config, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.Header.Get(HeaderRequestID)
		if !rpc.ValidRequestID(id) {
			id = rpc.NewRequestID()
		}
		ctx := rpc.WithRequestID(r.Context(), id)
		ctx = context.WithValue(ctx, requestKey{}, &Request{Client: cfg.Proxies.client(r)})
		h := w.Header()
		h.Set(HeaderRequestID, id)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		if cfg.Secure {
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

func traced(tracer trace.Tracer, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := rpc.Propagator().Extract(r.Context(), propagation.HeaderCarrier(r.Header))
		ctx, span := tracer.Start(ctx, r.Method, trace.WithSpanKind(trace.SpanKindServer))
		defer span.End()
		next.ServeHTTP(w, r.WithContext(ctx))
		note := Of(ctx)
		span.SetName(r.Method + " " + note.Route)
		span.SetAttributes(attribute.String("http.request.method", r.Method), attribute.String("http.route", note.Route))
		if note.Err != nil && apierr.KindOf(note.Err) == apierr.Internal {
			span.SetStatus(codes.Error, string(apierr.ReasonOf(note.Err)))
		}
	})
}

// accessLog writes the one line of each request. It never names the path or the query: they carry
// codes and states.
func accessLog(logger *slog.Logger, m *metrics, now func() time.Time, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := now()
		m.inFlight.Inc()
		defer m.inFlight.Dec()
		sw := &statusWriter{ResponseWriter: w}
		defer func() {
			note := Of(r.Context())
			if note.Route == "" {
				note.Route = "unknown"
			}
			took := now().Sub(start)
			m.observe(r.Context(), r.Method, note.Route, sw.code(), took)
			attrs := []slog.Attr{
				slog.String(logs.KeyHTTPMethod, method(r.Method)), slog.String(logs.KeyHTTPRoute, note.Route),
				slog.Int(logs.KeyHTTPStatus, sw.code()), logs.Duration(took), slog.String(logs.KeyAddr, note.Client),
			}
			if note.Subject != "" {
				attrs = append(attrs, slog.String(logs.KeySubject, note.Subject))
			}
			if note.Workspace != "" {
				attrs = append(attrs, slog.String(logs.KeyWorkspace, note.Workspace))
			}
			logger.LogAttrs(r.Context(), level(sw.code()), "http served", append(attrs, errorAttrs(note.Err)...)...)
		}()
		next.ServeHTTP(sw, r)
	})
}

func level(status int) slog.Level {
	switch {
	case status == http.StatusInternalServerError:
		return slog.LevelError
	case status > http.StatusInternalServerError, status == http.StatusTooManyRequests:
		return slog.LevelWarn
	}
	return logs.LevelRequest
}

// panicked is what a recovered panic becomes.
type panicked struct {
	value any
	stack []byte
}

// Error implements error.
func (p *panicked) Error() string { return fmt.Sprintf("panic: %v\n%s", p.value, p.stack) }

// recovery answers a panic as INTERNAL, or, when an answer has begun, cuts the connection so that
// the client notices.
func recovery(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			v := recover()
			if v == nil {
				return
			}
			if err, ok := v.(error); ok && err == http.ErrAbortHandler { //nolint:errorlint // compared by identity, as net/http does
				panic(v)
			}
			err := &panicked{value: v, stack: debug.Stack()}
			if sw, ok := w.(*statusWriter); ok && sw.status != 0 {
				Of(r.Context()).Err = Typed(err)
				panic(http.ErrAbortHandler)
			}
			Fail(w, r, err)
		}()
		next.ServeHTTP(w, r)
	})
}

// statusWriter remembers the status. Flush and deadlines reach the connection through Unwrap.
type statusWriter struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements http.ResponseWriter.
func (w *statusWriter) WriteHeader(status int) {
	if w.status == 0 && status >= http.StatusOK {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *statusWriter) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *statusWriter) code() int {
	if w.status == 0 {
		return http.StatusOK
	}
	return w.status
}

// method bounds what appears in logs and labels to the methods that there are.
func method(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return m
	}
	return "other"
}

type metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	inFlight prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "devpilot_http_requests_total", Help: "HTTP requests to the gateway by method, route and status.",
		}, []string{"method", "route", "status"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "devpilot_http_request_duration_seconds", Help: "Time from the first byte of a request to the last of its answer; streams included.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"method", "route"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "devpilot_http_requests_in_flight", Help: "HTTP requests being served, streams included.",
		}),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.requests, m.duration, m.inFlight} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("edge: register metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) observe(ctx context.Context, meth, route string, status int, took time.Duration) {
	m.requests.WithLabelValues(method(meth), route, strconv.Itoa(status)).Inc()
	tracing.Observe(ctx, m.duration.WithLabelValues(method(meth), route), took)
}
