// Package logs makes the loggers and names the attributes of everything we log.
//
// Messages are short, constant and in lower case; data are snake_case attributes whose keys come
// from keys.go and from nowhere else. Attributes that belong to a request (request id, caller,
// workspace, trace) are put into the context once with [WithAttrs] and appear in every line logged
// with that context, through the handler that [New] and [Handler] make.
//
// Depends on log/slog and OpenTelemetry's trace API.
package logs
