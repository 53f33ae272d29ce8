package session

import (
	"fmt"
	"testing"
	"time"
)

func TestLimiter(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	l := NewLimiter(func() time.Time { return now })
	use := func(address string, n int) (last bool) {
		for range n {
			_, last = l.Wrong(address)
		}
		return last
	}
	if !use("198.51.100.1", attempts) || use("198.51.100.1", 1) {
		t.Error("the limit of one address")
	}
	if use("::ffff:198.51.100.1", 1) {
		t.Error("the same address in another spelling")
	}
	if !use("2001:db8:0:1::1", attempts) || use("2001:db8:0:1:ffff::2", 1) || !use("2001:db8:0:2::1", 1) {
		t.Error("one network of IPv6 counts as one")
	}
	if wait, ok := l.Wrong("198.51.100.1"); ok || wait != window {
		t.Errorf("wait %v", wait)
	}
	now = now.Add(window)
	if !use("198.51.100.1", 1) {
		t.Error("a new window")
	}
	for i := range maxAddresses + 100 {
		l.Wrong(fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255))
	}
	if len(l.counts) > maxAddresses+1 {
		t.Errorf("%d addresses remembered", len(l.counts))
	}
}
