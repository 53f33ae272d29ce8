package ops

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"path"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"devpilot.io/bitbucket/pkg/httpserver"
)

// NewRegistry makes the metrics registry of a process, with the Go runtime's and the process's own
// metrics and a constant devpilot_build_info{version}.
func NewRegistry(version string) *prometheus.Registry {
	r := prometheus.NewRegistry()
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "devpilot_build_info", Help: "Always 1; the version is a label.", ConstLabels: prometheus.Labels{"version": version},
	})
	info.Set(1)
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), info)
	return r
}

// connections bounds those of the ops listener: probes and scrapes are few.
const connections = 64

// Handler serves the ops endpoints, profiles only when asked for: they say much about a process and
// take its time.
func Handler(ready *Readiness, metrics prometheus.Gatherer, profiles bool) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { plain(w, http.StatusOK, "ok\n") })
	mux.HandleFunc("GET /readyz", ready.serve)
	// Exemplars are told in OpenMetrics only.
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	if !profiles {
		return plainPaths(mux)
	}
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("POST /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return plainPaths(mux)
}

// plainPaths has no path redirected to its plain form, as a mux does with an empty answer: a prober is
// told that it is wrong.
func plainPaths(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p := r.URL.Path; path.Clean(p) != p && path.Clean(p)+"/" != p {
			plain(w, http.StatusNotFound, "There is nothing at this address: /livez, /readyz and /metrics are.\n")
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (r *Readiness) serve(w http.ResponseWriter, req *http.Request) {
	status := http.StatusOK
	var b strings.Builder
	for _, res := range r.Results(req.Context()) {
		if res.Err != nil {
			status = http.StatusServiceUnavailable
			fmt.Fprintf(&b, "not ready  %s: %s\n", res.Name, strings.ReplaceAll(res.Err.Error(), "\n", "; "))
			continue
		}
		fmt.Fprintf(&b, "ready      %s (%s)\n", res.Name, res.Took.Round(10*time.Microsecond))
	}
	if status == http.StatusOK {
		b.WriteString("ok\n")
	}
	plain(w, status, b.String())
}

func plain(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(body)) // a prober that went away is no error of ours
}

// Serve serves handler on l until ctx is done, then closes; probes need no draining.
func Serve(ctx context.Context, l net.Listener, handler http.Handler, logger *slog.Logger) error {
	server := httpserver.New(httpserver.Config{Handler: handler, Logger: logger, Connections: connections})
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(l); err != nil {
		return fmt.Errorf("ops: serve: %w", err)
	}
	return nil
}
