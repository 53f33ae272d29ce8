package app

import (
	"fmt"
	"math"
	"time"
)

// polls says for people how often a repository's branches are compared with Bitbucket: "every 30 seconds".
// Empty where that is not known.
func (s *Service) polls(workspace string, repositories ...string) string {
	if s.cfg.PollsWithin == nil || len(repositories) == 0 {
		return ""
	}
	var longest time.Duration
	for _, id := range repositories {
		longest = max(longest, s.cfg.PollsWithin(workspace, id))
	}
	return "every " + span(longest)
}

// span is a duration in words, rounded up so that it promises nothing too soon.
func span(d time.Duration) string {
	count, unit := math.Ceil(d.Seconds()), "second"
	if d >= 90*time.Second {
		count, unit = math.Ceil(d.Minutes()), "minute"
	}
	if count <= 1 {
		return unit
	}
	return fmt.Sprintf("%.0f %ss", count, unit)
}

// unasked says that Bitbucket was not asked about a branch yet, and when it will be.
func unasked(polls string) string {
	const said = "Devpilot has not asked Bitbucket about the branch yet"
	if polls == "" {
		return said + "."
	}
	return fmt.Sprintf("%s; it asks at least %s.", said, polls)
}
