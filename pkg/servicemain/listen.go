package servicemain

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"
)

// Listen binds a TCP address. The error is one sentence that names the flag to change, e.g.
// "--listen", from which the variable's name follows.
func Listen(ctx context.Context, flag, address string) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err == nil {
		return l, nil
	}
	variable := envPrefix + strings.ToUpper(strings.ReplaceAll(strings.TrimLeft(flag, "-"), "-", "_"))
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("the address %s is in use by another program: stop that one, or choose another address with %s (%s)", address, flag, variable)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("this user may not listen on %s: choose a port above 1023 with %s (%s)", address, flag, variable)
	default:
		return nil, fmt.Errorf("cannot listen on %s, set by %s (%s): %w", address, flag, variable, err)
	}
}

// NewHTTPServer makes an HTTP server with the limits that all of ours share. Answers have no time
// limit, since events and logs are followed for hours; a handler that reads a body sets a read
// deadline of its own (http.ResponseController).
func NewHTTPServer(handler http.Handler, logger *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelWarn),
	}
}

// StopHTTP lets running requests end until ctx is done, then cuts them.
func StopHTTP(ctx context.Context, server *http.Server) error {
	if err := server.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("requests still running were cut: %w", err), server.Close())
	}
	return nil
}
