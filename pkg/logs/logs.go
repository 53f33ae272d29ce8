package logs

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"
)

// Format is how lines look.
type Format string

// The formats.
const (
	FormatJSON Format = "json" // services
	FormatText Format = "text" // a terminal
)

// LevelRequest is the level of the one line of a request that was answered. It is INFO to who reads JSON.
// On a terminal hundreds of them would push what a person looks for, such as the link to sign in with, out
// of sight: there they come with debug.
const LevelRequest = slog.LevelInfo - 1

// New makes a logger that writes to w. format is "json" or "text"; level is debug, info, warn or
// error. Each line is one Write.
func New(w io.Writer, format Format, level string) (*slog.Logger, error) {
	l, err := ParseLevel(level)
	if err != nil {
		return nil, err
	}
	opts := &slog.HandlerOptions{Level: l}
	switch format {
	case FormatJSON:
		opts.ReplaceAttr = utc
		if l == slog.LevelInfo {
			opts.Level = LevelRequest
		}
		return slog.New(Handler(slog.NewJSONHandler(w, opts))), nil
	case FormatText:
		opts.ReplaceAttr = clockOnly
		return slog.New(Handler(slog.NewTextHandler(w, opts))), nil
	default:
		return nil, fmt.Errorf("logs: format %q is not json or text", format)
	}
}

// ParseLevel reads debug, info, warn or error.
func ParseLevel(s string) (slog.Level, error) {
	switch strings.ToLower(s) {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	}
	return 0, fmt.Errorf("logs: level %q is not debug, info, warn or error", s)
}

func utc(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey {
		a.Value = slog.TimeValue(a.Value.Time().UTC())
	}
	return asInfo(groups, a)
}

// asInfo names the level of requests.
func asInfo(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.LevelKey && a.Value.Any() == LevelRequest {
		return slog.String(slog.LevelKey, slog.LevelInfo.String())
	}
	return a
}

func clockOnly(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey {
		return slog.String(slog.TimeKey, a.Value.Time().Format("15:04:05.000"))
	}
	return asInfo(groups, a)
}

// Discard is a logger that keeps nothing.
func Discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

type attrsKey struct{}

// WithAttrs returns a context whose log lines carry these attributes too. A key that is there
// already takes the new value.
func WithAttrs(ctx context.Context, attrs ...slog.Attr) context.Context {
	have, _ := ctx.Value(attrsKey{}).([]slog.Attr)
	merged := make([]slog.Attr, 0, len(have)+len(attrs))
	for _, h := range have {
		if !hasKey(attrs, h.Key) {
			merged = append(merged, h)
		}
	}
	return context.WithValue(ctx, attrsKey{}, append(merged, attrs...))
}

// Attrs returns what WithAttrs put into the context; do not change it.
func Attrs(ctx context.Context) []slog.Attr {
	attrs, _ := ctx.Value(attrsKey{}).([]slog.Attr)
	return attrs
}

func hasKey(attrs []slog.Attr, key string) bool {
	for _, a := range attrs {
		if a.Key == key {
			return true
		}
	}
	return false
}

// Handler wraps h so that each record also carries the context's attributes and its trace id.
func Handler(h slog.Handler) slog.Handler {
	if _, ok := h.(contextHandler); ok {
		return h
	}
	return contextHandler{h}
}

type contextHandler struct{ slog.Handler }

// Handle adds the context's attributes that the record does not have itself.
func (h contextHandler) Handle(ctx context.Context, r slog.Record) error {
	add := Attrs(ctx)
	if sc := trace.SpanContextFromContext(ctx); sc.HasTraceID() {
		add = append(add[:len(add):len(add)], slog.String(KeyTraceID, sc.TraceID().String()))
	}
	if len(add) == 0 {
		return h.Handler.Handle(ctx, r)
	}
	own := map[string]bool{}
	r.Attrs(func(a slog.Attr) bool { own[a.Key] = true; return true })
	r = r.Clone()
	for _, a := range add {
		if !own[a.Key] {
			r.AddAttrs(a)
		}
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs keeps the wrapping.
func (h contextHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return contextHandler{h.Handler.WithAttrs(attrs)}
}

// WithGroup keeps the wrapping.
func (h contextHandler) WithGroup(name string) slog.Handler {
	return contextHandler{h.Handler.WithGroup(name)}
}

// Since is Duration from a start.
func Since(start time.Time) slog.Attr { return Duration(time.Since(start)) }
