package gateway_test

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/testkit"
	"devpilot.io/bitbucket/services/gateway"
)

var rateLimit = regexp.MustCompile(`^"program";r=(\d+);t=\d+$`)

// left reads what an answer says is left; -1 where it says nothing.
func (a *answer) left() int {
	m := rateLimit.FindStringSubmatch(a.header.Get("RateLimit"))
	if m == nil {
		return -1
	}
	n, _ := strconv.Atoi(m[1])
	return n
}

// untilRefused sends requests until one is refused, and says how many were answered before.
func untilRefused(t *testing.T, c *client) (answered int, refused *answer) {
	t.Helper()
	for answered < 50 {
		a := c.get("/v1/me")
		if a.status == http.StatusTooManyRequests {
			return answered, a
		}
		a.want(http.StatusOK)
		answered++
	}
	t.Fatal("nothing was refused")
	return 0, nil
}

// A program sends so many requests a minute, through whichever replica, and is told what is left. It takes nothing
// from others.
func TestPrograms_sendSoManyRequestsAMinute(t *testing.T) {
	const most = 5
	bounded := func(c *gateway.Config) { c.ProgramRequestsPerMinute = most }
	g := start(t, bounded)
	_, second := g.replica(bounded)
	key, other := g.key("default", "ADMIN"), g.key("default", "MEMBER")

	first := key.get("/v1/me").want(http.StatusOK)
	if got := first.header.Get("RateLimit-Policy"); got != `"program";q=5;w=60` {
		t.Errorf("policy %s", got)
	}
	if first.left() != most-1 {
		t.Errorf("the first answer says %s", first.header.Get("RateLimit"))
	}
	answered, refused := untilRefused(t, key)
	if answered < most-1 {
		t.Errorf("%d answered, %d promised", answered+1, most)
	}
	p := refused.problem(http.StatusTooManyRequests, "RATE_LIMITED")
	if p.RetryAfterSeconds < 1 || refused.header.Get("Retry-After") != fmt.Sprint(p.RetryAfterSeconds) || refused.left() != 0 {
		t.Errorf("refused with %+v, %v", p, refused.header)
	}
	there := *key
	there.base = second
	if n, _ := untilRefused(t, &there); n > 1 { // one may have come back meanwhile
		t.Errorf("another replica answers %d more", n)
	}
	if a := other.get("/v1/me").want(http.StatusOK); a.left() != most-1 {
		t.Errorf("another key has %s", a.header.Get("RateLimit"))
	}
	for who, c := range map[string]*client{"a session": g.signedIn(), "the admin token": g.withToken(adminToken), "nobody": g.anybody()} {
		for range 2 * most {
			if a := c.get("/v1/info"); a.status != http.StatusOK || a.left() >= 0 {
				t.Fatalf("%s: %d %v", who, a.status, a.header)
			}
		}
	}
	for range 2 * most {
		if a := g.signedIn().get("/v1/me").want(http.StatusOK); a.left() >= 0 {
			t.Fatalf("a session is told %s", a.header.Get("RateLimit"))
		}
	}
}

// While Redis is away nobody is refused, and nobody is told what was not counted.
func TestPrograms_areAnsweredWhileRedisIsAway(t *testing.T) {
	g := start(t, func(c *gateway.Config) { c.ProgramRequestsPerMinute = 3 })
	key := g.key("default", "ADMIN")
	untilRefused(t, key)
	g.redis.Stop()
	for range 10 {
		if a := key.get("/v1/me").want(http.StatusOK); a.left() >= 0 {
			t.Fatalf("counted: %v", a.header)
		}
	}
	g.redis.Start()
	testkit.Eventually(t, time.Minute, func() error {
		if a := key.get("/v1/me"); a.left() < 0 {
			return errors.New("not counted again yet")
		}
		return nil
	})
	untilRefused(t, key)
}

// A body that says to be something else than JSON is not taken for a request. What curl says by itself is no word of
// its sender's, as long as the body is JSON.
func TestBody_mustBeJSON(t *testing.T) {
	g := start(t)
	c := g.withToken(adminToken)
	const body = `{"workspaceId":"typed","validateOnly":true}`
	for _, good := range []string{"application/json", "application/json; charset=utf-8", "Application/JSON;charset=UTF-8", "application/merge-patch+json", "application/x-www-form-urlencoded"} {
		c.post("/v1/workspaces", body, with("Content-Type", good)).want(http.StatusOK)
	}
	c.post("/v1/workspaces", body).want(http.StatusOK) // whoever says nothing means JSON
	for _, bad := range []string{"text/plain", "multipart/form-data; boundary=x", "application/xml", "application/json; charset=utf-16", "json", ";", "application/jsonp"} {
		for _, send := range []func() *answer{
			func() *answer { return c.post("/v1/workspaces", body, with("Content-Type", bad)) },
			func() *answer {
				return c.send(http.MethodPatch, "/v1/workspaces/default/apps/web", `{"branch":"main"}`, with("Content-Type", bad))
			},
			func() *answer { return g.anybody().post("/v1/session", `{"token":"x"}`, with("Content-Type", bad)) },
		} {
			p := send().problem(http.StatusUnsupportedMediaType, "UNSUPPORTED_MEDIA_TYPE")
			if len(p.Fields) != 1 || p.Fields[0].Name != "Content-Type" {
				t.Errorf("%s: fields %+v", bad, p.Fields)
			}
		}
	}
	c.post("/v1/workspaces", "workspaceId=typed", with("Content-Type", "application/x-www-form-urlencoded")).problem(http.StatusUnsupportedMediaType, "UNSUPPORTED_MEDIA_TYPE")
	// What has no body says nothing of it.
	c.do(http.MethodPost, "/v1/session/codes", nil, with("Content-Type", "application/x-www-form-urlencoded")).want(http.StatusOK)
}
