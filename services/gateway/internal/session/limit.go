package session

import (
	"net/netip"
	"sync"
	"time"
)

// Limits of wrong sign-in attempts. The secrets have 256 bits; this only keeps the noise down. Many
// people may share an address: what one of them does wrong keeps nobody out who does it right.
const (
	attempts     = 10 // per address and window
	window       = time.Minute
	maxAddresses = 50_000 // counted one by one; those beyond share one count
)

// Limiter counts wrong sign-in attempts per address in this process, in windows of a minute. Its memory
// is bounded. It is safe for concurrent use.
type Limiter struct {
	now func() time.Time

	mu     sync.Mutex
	start  time.Time
	counts map[netip.Prefix]int
}

// NewLimiter makes a limiter.
func NewLimiter(now func() time.Time) *Limiter { return &Limiter{now: now} }

// Wrong counts a wrong attempt from the address; when there were too many, ok is false and wait says
// until when.
func (l *Limiter) Wrong(address string) (wait time.Duration, ok bool) {
	key := network(address)
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.counts == nil || now.Sub(l.start) >= window {
		l.start, l.counts = now, map[netip.Prefix]int{}
	}
	if _, known := l.counts[key]; !known && len(l.counts) >= maxAddresses {
		key = netip.Prefix{}
	}
	if l.counts[key] >= attempts {
		return window - now.Sub(l.start), false
	}
	l.counts[key]++
	return 0, true
}

// Blocked says whether there were too many wrong attempts from the address, and until when.
func (l *Limiter) Blocked(address string) (wait time.Duration, blocked bool) {
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.start) >= window {
		return 0, false
	}
	return window - now.Sub(l.start), l.counts[network(address)] >= attempts
}

// network is what counts as one address: one IPv4 address, one IPv6 /64, which is what one
// customer gets.
func network(address string) netip.Prefix {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return netip.Prefix{}
	}
	a = a.Unmap()
	bits := 64
	if a.Is4() {
		bits = 32
	}
	p, err := a.WithZone("").Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}
