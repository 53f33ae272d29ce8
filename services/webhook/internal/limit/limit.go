// Package limit holds back what strangers can cause: so much per webhook, so much in all.
package limit

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// maxKeys is how many keys are limited one by one at a time. When there are more all begin afresh:
// then the common limit alone holds.
const maxKeys = 4096

// Keyed lets each key do something at some rate, and all together at another. It is safe for
// concurrent use.
type Keyed struct {
	each  rate.Limit
	burst int

	mu     sync.Mutex
	common *rate.Limiter
	by     map[string]*rate.Limiter
}

// NewKeyed makes a limit: rates per second, and how many may come at once.
func NewKeyed(each rate.Limit, burst int, all rate.Limit, allBurst int) *Keyed {
	return &Keyed{each: each, burst: burst, common: rate.NewLimiter(all, allBurst), by: map[string]*rate.Limiter{}}
}

// Allow reports whether the key may do it now, and counts it if so.
func (l *Keyed) Allow(key string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	one := l.by[key]
	if one == nil {
		if len(l.by) >= maxKeys {
			clear(l.by)
		}
		one = rate.NewLimiter(l.each, l.burst)
		l.by[key] = one
	}
	return one.AllowN(now, 1) && l.common.AllowN(now, 1)
}
