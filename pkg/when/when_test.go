package when

import (
	"testing"
	"time"
)

func TestUTC(t *testing.T) {
	berlin := time.FixedZone("CET", 3600)
	for want, at := range map[string]time.Time{
		"2026-11-22 13:02 UTC": time.Date(2026, 11, 22, 13, 2, 59, 0, time.UTC),
		"2025-12-31 23:30 UTC": time.Date(2026, 1, 1, 0, 30, 0, 0, berlin),
	} {
		if got := UTC(at); got != want {
			t.Errorf("%v: %q, want %q", at, got, want)
		}
	}
}

// The console's test of its own words has the same rows.
func TestTook(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-500: "0.0 s", 0: "0.0 s", 84: "under 0.1 s", 100: "0.1 s", 449: "0.4 s", 9_999: "9.9 s", 10_000: "10 s", 59_999: "59 s",
		60_000: "1 min", 185_000: "3 min 5 s", 3_600_000: "1 h", 3_720_000: "1 h 2 min",
	} {
		if got := Took(d * time.Millisecond); got != want {
			t.Errorf("%d ms: %q, want %q", d, got, want)
		}
	}
}
