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
type Limiter struct{ counter[netip.Prefix] }

// NewLimiter makes a limiter.
func NewLimiter(now func() time.Time) *Limiter { return &Limiter{counter[netip.Prefix]{now: now}} }

// Wrong counts a wrong attempt from the address; when there were too many, ok is false and wait says
// until when.
func (l *Limiter) Wrong(address string) (wait time.Duration, ok bool) {
	return l.count(network(address))
}

// Blocked says whether there were too many wrong attempts from the address, and until when.
func (l *Limiter) Blocked(address string) (wait time.Duration, blocked bool) {
	return l.blocked(network(address))
}

// Guesses counts what each person guessed wrong in this process, in the same way.
type Guesses struct{ counter[string] }

// NewGuesses makes a counter.
func NewGuesses(now func() time.Time) *Guesses { return &Guesses{counter[string]{now: now}} }

// Wrong counts a wrong guess of the person.
func (g *Guesses) Wrong(subject string) { g.count(subject) }

// Blocked says whether the person guessed wrong too often, and until when.
func (g *Guesses) Blocked(subject string) (wait time.Duration, blocked bool) {
	return g.blocked(subject)
}

// counter counts by key in windows of a minute.
type counter[K comparable] struct {
	now func() time.Time

	mu     sync.Mutex
	start  time.Time
	counts map[K]int
}

func (c *counter[K]) count(key K) (wait time.Duration, ok bool) {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts == nil || now.Sub(c.start) >= window {
		c.start, c.counts = now, map[K]int{}
	}
	if _, known := c.counts[key]; !known && len(c.counts) >= maxAddresses {
		var others K
		key = others
	}
	if c.counts[key] >= attempts {
		return window - now.Sub(c.start), false
	}
	c.counts[key]++
	return 0, true
}

func (c *counter[K]) blocked(key K) (wait time.Duration, blocked bool) {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Sub(c.start) >= window {
		return 0, false
	}
	return window - now.Sub(c.start), c.counts[key] >= attempts
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
