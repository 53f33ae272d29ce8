package servicemain

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel"

	"devpilot.io/bitbucket/pkg/logs"
)

// AdoptLogs makes libraries that write to standard error by themselves write to our logger, so
// that a log of JSON lines is nothing else. It sets process-wide state and is for main programs.
func AdoptLogs(logger *slog.Logger) {
	slog.SetDefault(logger) // also takes package log's output
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { logger.Warn("tracing failed", logs.Err(err)) }))
	redis.SetLogger(redisLogger{logger})
}

// redisLogger takes go-redis's own lines: each tells of a failed call that our code handles.
type redisLogger struct{ logger *slog.Logger }

// Printf implements go-redis's logger.
func (l redisLogger) Printf(ctx context.Context, format string, v ...any) {
	l.logger.DebugContext(ctx, "redis client", logs.Err(fmt.Errorf(format, v...)))
}
