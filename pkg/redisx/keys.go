package redisx

import (
	"crypto/sha256"
	"encoding/hex"
	"net/url"
	"strconv"
	"strings"
)

// Key is devpilot:<service>:v1:<entity>:{<id>}. The braces make a cluster keep all keys of one id
// together. Parts of the id are escaped, so that different parts give different keys, and joined
// with '/'.
//
// A service builds its keys in one file of its own, beside the type and TTL of each. Those of this
// package are below.
func Key(service, entity string, id ...string) string {
	escaped := make([]string, len(id))
	for i, part := range id {
		escaped[i] = url.PathEscape(part)
	}
	return "devpilot:" + service + ":v1:" + entity + ":{" + strings.Join(escaped, "/") + "}"
}

// budgetKey: string (redis_rate's arrival time, under its own prefix "rate:"), lives as long as the
// budget is in debt, two hours at most. The OAuth consumer is hashed: it names a customer.
func budgetKey(consumer, pool string) string {
	sum := sha256.Sum256([]byte(consumer))
	return Key("bitbucket", "budget", hex.EncodeToString(sum[:8]), pool)
}

// shareKey: string as budgetKey's, of what one workspace used of it; lives as long as that is in debt, an hour at most.
// The workspace is hashed: it names a customer.
func shareKey(consumer, pool, workspace string) string {
	sum := sha256.Sum256([]byte(consumer))
	return Key("bitbucket", "share", hex.EncodeToString(sum[:8]), pool, ownerID(workspace))
}

// holdKey: sorted set of the calls that Bitbucket's own 429 holds back, by when they may be made
// again; there as long as the longest of them, a day at most.
func holdKey(consumer, resource string) string {
	sum := sha256.Sum256([]byte(consumer))
	return Key("bitbucket", "hold", hex.EncodeToString(sum[:8]), resource)
}

// useKey: hash of who made calls in a while, "<service> <call> <priority> <workspace, hashed>" to how many;
// there an hour longer than the while. slot numbers the whiles.
func useKey(consumer, pool string, slot int64) string {
	sum := sha256.Sum256([]byte(consumer))
	return Key("bitbucket", "use", hex.EncodeToString(sum[:8]), pool, strconv.FormatInt(slot, 10))
}
