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
