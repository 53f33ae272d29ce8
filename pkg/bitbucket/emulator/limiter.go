package emulator

import (
	"math"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// limiter counts requests per key over a rolling window (BITBUCKET.md#budgets).
type limiter struct {
	mu   sync.Mutex
	seen map[string][]time.Time
}

// allow reports whether one more request fits, and counts it if so; else how long until one fits.
func (l *limiter) allow(key string, limit RateLimit, now time.Time) (bool, time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.seen == nil {
		l.seen = map[string][]time.Time{}
	}
	seen := l.seen[key]
	for len(seen) > 0 && now.Sub(seen[0]) >= limit.Window {
		seen = seen[1:]
	}
	if len(seen) >= limit.Budget {
		l.seen[key] = seen
		return false, limit.Window - now.Sub(seen[0])
	}
	l.seen[key] = append(seen, now)
	return true, 0
}

func (l *limiter) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.seen)
}

// limited answers 429 if the caller's budget for the route's bucket is used up.
func (c *call) limited(bucket string) (response, bool) {
	limit := c.switches.RateLimit
	if bucket == "" || limit.Budget <= 0 || c.account == nil {
		return response{}, false
	}
	setDefault(&limit.Window, time.Hour)
	key := bucket + " consumer " + c.grant.Consumer
	if limit.Per == "user" {
		key = bucket + " user " + c.account.UUID
	}
	fits, wait := c.e.limiter.allow(key, limit, c.e.now())
	if fits {
		return response{}, false
	}
	return tooManyRequests(limit.Text, limit.RetryAfter, wait), true
}

func tooManyRequests(text, retryAfter bool, wait time.Duration) response {
	answer := failure(http.StatusTooManyRequests, msgRateLimit)
	if text {
		answer = plain(http.StatusTooManyRequests, msgRateLimit)
	}
	if retryAfter {
		answer = answer.with("Retry-After", strconv.Itoa(max(1, int(math.Ceil(wait.Seconds())))))
	}
	return answer
}
