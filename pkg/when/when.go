// Package when writes a time into a sentence, in the one form that all sentences of Devpilot use.
//
// The server does not know where its reader is, and a sentence may be kept and read on another day:
// so the time is in UTC and says so, and has its date. The console finds this form in what it shows
// and puts the reader's own time in its place (services/gateway/console/src/lib/said.ts).
//
// It depends on nothing.
package when

import "time"

// UTC is a time for a sentence: "2026-11-22 13:02 UTC".
func UTC(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }
