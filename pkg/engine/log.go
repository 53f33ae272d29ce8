package engine

import (
	"fmt"
	"log/slog"
)

// serverLog hands nats-server's log lines to slog. The server's notices are its start-up chatter,
// debug for us.
type serverLog struct{ l *slog.Logger }

// line is the attribute that holds what the server says.
func line(format string, v []any) slog.Attr {
	return slog.String("line", fmt.Sprintf(format, v...))
}

func (s *serverLog) Noticef(format string, v ...any) { s.l.Debug("nats server notes", line(format, v)) }
func (s *serverLog) Warnf(format string, v ...any)   { s.l.Warn("nats server warns", line(format, v)) }
func (s *serverLog) Errorf(format string, v ...any)  { s.l.Error("nats server fails", line(format, v)) }
func (s *serverLog) Fatalf(format string, v ...any)  { s.l.Error("nats server fails", line(format, v)) }
func (s *serverLog) Debugf(format string, v ...any)  { s.l.Debug("nats server notes", line(format, v)) }
func (s *serverLog) Tracef(format string, v ...any)  { s.l.Debug("nats server notes", line(format, v)) }
