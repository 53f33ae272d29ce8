package logs_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"

	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/seal"
)

func newLogger(t *testing.T, format logs.Format, level string) (*slog.Logger, *bytes.Buffer) {
	t.Helper()
	var b bytes.Buffer
	l, err := logs.New(&b, format, level)
	if err != nil {
		t.Fatal(err)
	}
	return l, &b
}

func line(t *testing.T, b *bytes.Buffer) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(b.Bytes(), &m); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	return m
}

func TestNew_contextAttributesAndTraceAreInEveryLine(t *testing.T) {
	l, b := newLogger(t, logs.FormatJSON, "info")
	sc := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{0xab}, SpanID: trace.SpanID{1}})
	ctx := trace.ContextWithSpanContext(t.Context(), sc)
	ctx = logs.WithRequestID(ctx, "req-12345678")
	ctx = logs.WithAttrs(ctx, slog.String(logs.KeyWorkspace, "acme-inc"), slog.String(logs.KeyApp, "web"))
	ctx = logs.WithAttrs(ctx, slog.String(logs.KeyApp, "api")) // a closer one replaces
	l.With(slog.String(logs.KeyService, "auth")).InfoContext(ctx, "did it", slog.String(logs.KeyWorkspace, "own wins"))
	m := line(t, b)
	for k, want := range map[string]string{
		"service": "auth", "request_id": "req-12345678", "workspace": "own wins", "app": "api",
		"trace_id": sc.TraceID().String(), "msg": "did it", "level": "INFO",
	} {
		if m[k] != want {
			t.Errorf("%s is %v, not %s", k, m[k], want)
		}
	}
	if n := strings.Count(b.String(), `"app"`); n != 1 {
		t.Errorf("%d times app: %s", n, b)
	}
	if at, err := time.Parse(time.RFC3339Nano, m["time"].(string)); err != nil || at.Location() != time.UTC {
		t.Errorf("time %v", m["time"])
	}
	if logs.RequestID(ctx) != "req-12345678" || logs.RequestID(t.Context()) != "" {
		t.Error("RequestID")
	}
}

func TestWithAttrs_doesNotReachTheParentOrSiblings(t *testing.T) {
	parent := logs.WithAttrs(t.Context(), slog.String("a", "1"))
	left, right := logs.WithAttrs(parent, slog.String("b", "left")), logs.WithAttrs(parent, slog.String("b", "right"))
	if len(logs.Attrs(parent)) != 1 || logs.Attrs(left)[1].Value.String() != "left" || logs.Attrs(right)[1].Value.String() != "right" {
		t.Errorf("%v %v %v", logs.Attrs(parent), logs.Attrs(left), logs.Attrs(right))
	}
}

func TestNew_levelsAndFormats(t *testing.T) {
	l, b := newLogger(t, logs.FormatText, "warn")
	l.Info("quiet")
	l.Warn("loud", logs.Err(errors.New("x")), logs.Duration(1500*time.Microsecond))
	if out := b.String(); strings.Contains(out, "quiet") || !strings.Contains(out, "msg=loud") || !strings.Contains(out, "err=x") || !strings.Contains(out, "duration_ms=1.5") {
		t.Errorf("%s", out)
	}
	for _, bad := range []struct{ format, level string }{{"xml", "info"}, {"json", "loud"}, {"json", ""}} {
		if _, err := logs.New(&bytes.Buffer{}, logs.Format(bad.format), bad.level); err == nil {
			t.Errorf("%v is accepted", bad)
		}
	}
	for _, level := range []string{"debug", "INFO", "warn", "error"} {
		if _, err := logs.ParseLevel(level); err != nil {
			t.Errorf("%s: %v", level, err)
		}
	}
}

func TestNew_secretsInContextAttributesStayRedacted(t *testing.T) {
	l, b := newLogger(t, logs.FormatJSON, "debug")
	ctx := logs.WithAttrs(context.Background(), slog.Any("token", seal.NewSecret("planted-s3cr3t")))
	l.WithGroup("g").DebugContext(ctx, "m", slog.Any("s", seal.NewSecret("planted-s3cr3t")))
	if strings.Contains(b.String(), "planted-s3cr3t") || strings.Count(b.String(), "[redacted]") != 2 {
		t.Error("a secret was logged, or nothing was")
	}
}

func TestHandler_wrapsOnce(t *testing.T) {
	var b bytes.Buffer
	h := logs.Handler(logs.Handler(slog.NewJSONHandler(&b, nil)))
	slog.New(h).InfoContext(logs.WithRequestID(t.Context(), "req-12345678"), "m")
	if strings.Count(b.String(), "req-12345678") != 1 {
		t.Error(b.String())
	}
}

// Two constants with one value would make lines that cannot be told apart.
func TestKeys_areUniqueAndSnakeCase(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "keys.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		name, value := spec.Names[0].Name, strings.Trim(spec.Values[0].(*ast.BasicLit).Value, `"`)
		if !regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`).MatchString(value) {
			t.Errorf("%s = %q", name, value)
		}
		if other := seen[value]; other != "" {
			t.Errorf("%s and %s are both %q", name, other, value)
		}
		seen[value] = name
		return true
	})
	for _, key := range strings.Fields("service request_id trace_id caller rpc_method rpc_code duration_ms workspace app deployment repository delivery webhook attempt err err_kind error_id") {
		if seen[key] == "" {
			t.Errorf("no key %q", key)
		}
	}
}

// Requests that were answered are INFO to who reads JSON, and leave a terminal to what a person looks for.
func TestNew_aTerminalShowsRequestsOnlyWhenTheyFailedOrAreAskedFor(t *testing.T) {
	for _, c := range []struct {
		format logs.Format
		level  string
		lines  int
	}{
		{logs.FormatText, "info", 2}, {logs.FormatText, "debug", 3}, {logs.FormatText, "warn", 1},
		{logs.FormatJSON, "info", 3}, {logs.FormatJSON, "debug", 3}, {logs.FormatJSON, "warn", 1},
	} {
		l, b := newLogger(t, c.format, c.level)
		l = l.With(slog.String(logs.KeyService, "gateway"))
		l.Log(t.Context(), logs.LevelRequest, "http served", slog.Int("status", 200))
		l.Error("http served", slog.Int("status", 500))
		l.Info("ready")
		if got := strings.Count(b.String(), "\n"); got != c.lines || strings.Contains(b.String(), "INFO-1") {
			t.Errorf("%s at %s: %d lines, want %d:\n%s", c.format, c.level, got, c.lines, b)
		}
	}
}
