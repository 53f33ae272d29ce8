// Package when writes times and durations into a sentence, in the one form that all sentences of Devpilot use.
//
// The server does not know where its reader is, and a sentence may be kept and read on another day:
// so the time is in UTC and says so, and has its date. The console finds this form in what it shows
// and puts the reader's own time in its place (services/gateway/console/src/lib/said.ts).
//
// It depends on nothing.
package when

import (
	"fmt"
	"time"
)

// UTC is a time for a sentence: "2026-11-22 13:02 UTC".
func UTC(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// Took is a duration for a sentence, cut and never rounded up: "under 0.1 s", "0.4 s", "12 s", "3 min 5 s",
// "1 h 2 min". The console writes its own in the same words (services/gateway/console/src/lib/time.ts). One
// that is negative, by clocks that disagree, is none.
func Took(d time.Duration) string {
	d = max(d, 0)
	whole := func(unit, of time.Duration) int { return int(d % of / unit) }
	switch {
	case d > 0 && d < 100*time.Millisecond:
		return "under 0.1 s" // it took something
	case d < 10*time.Second:
		tenths := int(d / (100 * time.Millisecond))
		return fmt.Sprintf("%d.%d s", tenths/10, tenths%10)
	case d < time.Minute:
		return fmt.Sprintf("%d s", whole(time.Second, time.Minute))
	case d < time.Hour:
		return both(int(d/time.Minute), "min", whole(time.Second, time.Minute), "s")
	}
	return both(int(d/time.Hour), "h", whole(time.Minute, time.Hour), "min")
}

func both(n int, unit string, rest int, below string) string {
	if rest == 0 {
		return fmt.Sprintf("%d %s", n, unit)
	}
	return fmt.Sprintf("%d %s %d %s", n, unit, rest, below)
}
