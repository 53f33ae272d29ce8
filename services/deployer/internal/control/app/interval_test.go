package app

import (
	"testing"
	"time"
)

func TestSpan_promisesNothingTooSoon(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		100 * time.Millisecond: "second", time.Second: "second", 29200 * time.Millisecond: "30 seconds", 30 * time.Second: "30 seconds",
		89 * time.Second: "89 seconds", 2 * time.Minute: "2 minutes", 121 * time.Second: "3 minutes", 10 * time.Minute: "10 minutes",
	} {
		if got := span(d); got != want {
			t.Errorf("%s: %q, want %q", d, got, want)
		}
	}
}

func TestPolls_ofTheRepositoryThatIsAskedLeast(t *testing.T) {
	t.Parallel()
	s := &Service{cfg: Config{PollsWithin: func(_, repository string) time.Duration {
		return map[string]time.Duration{"a": 30 * time.Second, "b": 4 * time.Minute}[repository]
	}}}
	for want, of := range map[string][]string{"": nil, "every 30 seconds": {"a"}, "every 4 minutes": {"a", "b"}} {
		if got := s.polls("acme", of...); got != want {
			t.Errorf("%v: %q, want %q", of, got, want)
		}
	}
}
