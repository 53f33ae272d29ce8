package ops_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/trace"

	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/ops"
)

func get(t *testing.T, h http.Handler, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

func TestHandler_livezAsksNothing(t *testing.T) {
	var ready ops.Readiness
	ready.Add("store", func(context.Context) error { t.Error("asked"); return errors.New("down") })
	if code, body := get(t, ops.Handler(&ready, ops.NewRegistry("v1"), false), "/livez"); code != 200 || body != "ok\n" {
		t.Errorf("%d %s", code, body)
	}
}

func TestHandler_readyzNamesWhatFailed(t *testing.T) {
	var ready ops.Readiness
	var down error
	ready.Add("nats", func(context.Context) error { return nil })
	ready.Add("mirror", func(context.Context) error { return down })
	h := ops.Handler(&ready, ops.NewRegistry("v1"), false)
	if code, body := get(t, h, "/readyz"); code != 200 || !strings.Contains(body, "ready      nats") || !strings.HasSuffix(body, "ok\n") {
		t.Errorf("%d %s", code, body)
	}
	down = errors.New("first pass not done\nyet")
	code, body := get(t, h, "/readyz")
	if code != 503 || !strings.Contains(body, "not ready  mirror: first pass not done; yet\n") || !strings.Contains(body, "ready      nats") || strings.Contains(body, "ok\n") {
		t.Errorf("%d %s", code, body)
	}
	down = nil
	ready.Drain()
	if code, body := get(t, h, "/readyz"); code != 503 || !strings.Contains(body, "process: shutting down") {
		t.Errorf("%d %s", code, body)
	}
}

func TestReadiness_boundsChecksThatHangOrPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ready ops.Readiness
		release := make(chan struct{})
		defer close(release)
		ready.Add("hangs", func(context.Context) error { <-release; return nil }) // ignores its context
		ready.Add("slow", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		ready.Add("panics", func(context.Context) error { panic("no") })
		start := time.Now()
		err := ready.Ready(t.Context())
		if took := time.Since(start); took != ops.CheckTimeout {
			t.Errorf("took %s", took)
		}
		for _, part := range []string{"hangs: no answer within 1s", "slow: ", "panics: check panicked: no"} {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("%q is missing in %v", part, err)
			}
		}
	})
}

func TestReadiness_watchReportsChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ready ops.Readiness
		var mu sync.Mutex
		down := errors.New("down")
		ready.Add("nats", func(context.Context) error { mu.Lock(); defer mu.Unlock(); return down })
		ctx, cancel := context.WithCancel(t.Context())
		var got []string
		done := make(chan struct{})
		go func() {
			defer close(done)
			ready.Watch(ctx, time.Second, func(err error) { mu.Lock(); got = append(got, fmt.Sprint(err)); mu.Unlock() })
		}()
		set := func(err error) { mu.Lock(); down = err; mu.Unlock() }
		<-time.After(3500 * time.Millisecond) // the bubble's clock: many looks without a change
		set(nil)
		<-time.After(2 * time.Second)
		set(errors.New("gone"))
		<-time.After(2 * time.Second)
		cancel()
		<-done
		if want := "[nats: down <nil> nats: gone shutting down]"; fmt.Sprint(got) != want {
			t.Errorf("%v", got)
		}
	})
}

func TestHandler_metricsAndPprof(t *testing.T) {
	h := ops.Handler(&ops.Readiness{}, ops.NewRegistry("v1.2.3"), true)
	for path, want := range map[string]string{
		"/metrics":               `devpilot_build_info{version="v1.2.3"} 1`,
		"/debug/pprof/":          "goroutine",
		"/debug/pprof/goroutine": "",
		"/debug/pprof/cmdline":   "",
	} {
		if code, body := get(t, h, path); code != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d", path, code)
		}
	}
	quiet := ops.Handler(&ops.Readiness{}, ops.NewRegistry("v1.2.3"), false)
	for _, path := range []string{"/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/cmdline"} {
		if code, _ := get(t, quiet, path); code != 404 {
			t.Errorf("%s unasked: %d", path, code)
		}
	}
	for _, path := range []string{"//livez", "/livez/", "/x/../readyz"} {
		if code, body := get(t, h, path); code != 404 || body == "" {
			t.Errorf("%s: %d %q", path, code, body)
		}
	}
	if code, _ := get(t, h, "/elsewhere"); code != 404 {
		t.Errorf("unknown path: %d", code)
	}
}

func TestServe_endsWithItsContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- ops.Serve(ctx, l, ops.Handler(&ops.Readiness{}, ops.NewRegistry("v1"), false), logs.Discard())
	}()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%v, %v", res, err)
	}
	res.Body.Close()
	cancel()
	if err := <-done; err != nil {
		t.Errorf("%v", err)
	}
	if err := ops.Serve(t.Context(), l, http.NotFoundHandler(), logs.Discard()); err == nil {
		t.Error("serving on a closed listener is no error")
	}
}

func TestNewTracing_withoutAnEndpointMakesIDsAndKeepsNothing(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "")
	tp, err := ops.NewTracing(t.Context(), "auth", "v1")
	if err != nil {
		t.Fatal(err)
	}
	ctx, span := tp.Tracer("x").Start(t.Context(), "y")
	if !trace.SpanContextFromContext(ctx).HasTraceID() || span.IsRecording() {
		t.Errorf("trace id %v, recording %v", trace.SpanContextFromContext(ctx).HasTraceID(), span.IsRecording())
	}
	if err := tp.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestNewTracing_withAnEndpointSends(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+l.Addr().String())
	tp, err := ops.NewTracing(t.Context(), "auth", "v1")
	if err != nil {
		t.Fatal(err)
	}
	_, span := tp.Tracer("x").Start(t.Context(), "y")
	if !span.IsRecording() {
		t.Error("nothing is recorded")
	}
	span.End()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	go func() { _ = tp.ForceFlush(ctx) }() // waits for an answer that never comes
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	preface := make([]byte, 14)
	if _, err := io.ReadFull(conn, preface); err != nil || string(preface) != "PRI * HTTP/2.0" {
		t.Errorf("%q, %v", preface, err)
	}
	cancel()
	short, stop := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer stop()
	_ = tp.Shutdown(short) // cannot deliver: the collector of this test only listens
}
