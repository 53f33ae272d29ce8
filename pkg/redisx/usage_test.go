package redisx_test

import (
	"testing"
	"time"

	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/redisx"
	"devpilot.io/bitbucket/pkg/testkit"
)

var (
	branches  = bitbucket.Call{Resource: bitbucket.ResourceRepositories, Route: bitbucket.RouteBranches, Object: "acme/web"}
	hookCalls = bitbucket.Call{Resource: bitbucket.ResourceHooks, Route: bitbucket.RouteHooks, Object: "acme/web"}
	user      = bitbucket.Call{Resource: bitbucket.ResourceOther, Route: bitbucket.RouteUser}
)

// TestUsage_tellsWhoUsedWhat over all services and replicas: a workspace its own in detail, others' in one
// number, and no name of anybody in Redis.
func TestUsage_tellsWhoUsedWhat(t *testing.T) {
	r := testkit.Redis(t)
	c := client(t, r.URL())
	budget := func(service string) *redisx.Budget {
		return redisx.NewBudget(redisx.BudgetConfig{Client: c, Consumer: "consumer-key", Service: service})
	}
	repo, hook := budget("repo"), budget("webhook")
	call := func(b *redisx.Budget, c bitbucket.Call, p bitbucket.Priority, workspace string, n int) {
		t.Helper()
		for range n {
			if wait := b.Take(t.Context(), c, p, workspace); wait > 0 {
				t.Fatalf("%v waits %v", c, wait)
			}
			b.Made(t.Context(), c, p, workspace)
		}
	}
	call(repo, branches, bitbucket.Interactive, "acme-inc", 3)
	call(repo, branches, bitbucket.Background, "acme-inc", 2)
	call(repo, branches, bitbucket.Interactive, "other-co", 4)
	call(repo, user, bitbucket.Background, "", 1)
	call(hook, hookCalls, bitbucket.Background, "acme-inc", 5)
	got, err := hook.Usage(t.Context(), "acme-inc")
	if err != nil || len(got) != 2 {
		t.Fatalf("%v, %v", got, err)
	}
	api, webhooks := got[0], got[1]
	if api.Pool != redisx.PoolAPI || api.Limit != 1000 || api.Used != 10 || api.UsedElsewhere != 5 || api.Left < 489 || api.Left > 491 || api.BackgroundWait != 0 {
		t.Errorf("%+v", api)
	}
	want := []redisx.Use{{Service: "repo", Call: "branches", Interactive: true, Calls: 3}, {Service: "repo", Call: "branches", Calls: 2}}
	if len(api.Uses) != 2 || api.Uses[0] != want[0] || api.Uses[1] != want[1] {
		t.Errorf("%+v", api.Uses)
	}
	if webhooks.Used != 5 || len(webhooks.Uses) != 1 || webhooks.UsedElsewhere != 0 {
		t.Errorf("%+v", webhooks)
	}
	keys, err := c.Keys(t.Context(), "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		if ttl := c.TTL(t.Context(), key).Val(); ttl <= 0 || ttl > 2*time.Hour {
			t.Errorf("%s lives %v", key, ttl)
		}
	}
}

// TestBudget_theBackgroundGivesWay: while there is little left, who waits for an answer gets it and the
// background does not, whichever kind of call of the pool it is; and people are told until when.
func TestBudget_theBackgroundGivesWay(t *testing.T) {
	r := testkit.Redis(t)
	b := redisx.NewBudget(redisx.BudgetConfig{Client: client(t, r.URL()), Consumer: "consumer-key", Limit: 40})
	spent := 0
	for b.Take(t.Context(), branches, bitbucket.Background, "") == 0 {
		spent++
	}
	if spent != 14 {
		t.Errorf("the background has %d of 20", spent)
	}
	if b.Take(t.Context(), user, bitbucket.Background, "") == 0 {
		t.Error("the account's calls are counted apart from the repositories'")
	}
	if b.Take(t.Context(), hookCalls, bitbucket.Background, "") > 0 {
		t.Error("webhooks are not counted apart")
	}
	u, err := b.Usage(t.Context(), "acme-inc")
	if err != nil || u[0].LeftBackground != 0 || u[0].Left != 6 || u[0].BackgroundWait <= 0 || u[0].BackgroundWait > 3*time.Minute {
		t.Errorf("%+v, %v", u, err)
	}
	for n := range 6 {
		if wait := b.Take(t.Context(), branches, bitbucket.Interactive, ""); wait > 0 {
			t.Fatalf("interactive call %d waits %v", n, wait)
		}
	}
	if b.Take(t.Context(), branches, bitbucket.Interactive, "") == 0 {
		t.Error("more than there is")
	}
}

// TestBudget_aWorkspaceThatAsksAllTheTimeLeavesSomeToOthers: whoever used its share waits first, people and background alike,
// and is told so; alone it has nearly all.
func TestBudget_aWorkspaceThatAsksAllTheTimeLeavesSomeToOthers(t *testing.T) {
	r := testkit.Redis(t)
	b := redisx.NewBudget(redisx.BudgetConfig{Client: client(t, r.URL()), Consumer: "consumer-key", Limit: 200})
	all := func(p bitbucket.Priority, workspace string) (n int) {
		for n < 1000 && b.Take(t.Context(), branches, p, workspace) == 0 {
			n++
		}
		return n
	}
	for _, step := range []struct {
		who  string
		p    bitbucket.Priority
		want int // of 100
	}{
		{"busy", bitbucket.Background, 55},
		{"acme-inc", bitbucket.Background, 15},
		{"busy", bitbucket.Interactive, 15},
		{"acme-inc", bitbucket.Interactive, 5}, // what its share has left
	} {
		if n := all(step.p, step.who); n != step.want {
			t.Errorf("%s, %s: %d calls, not %d", step.who, step.p, n, step.want)
		}
	}
	told := map[string]redisx.Usage{}
	for _, who := range []string{"busy", "acme-inc", "quiet"} {
		all, err := b.Usage(t.Context(), who)
		if err != nil {
			t.Fatal(err)
		}
		told[who] = all[0]
	}
	if told["busy"].Left != 0 || told["acme-inc"].Left != 0 || told["quiet"].Left != 10 || told["quiet"].LeftBackground != 0 ||
		told["busy"].BackgroundWait <= told["quiet"].BackgroundWait || told["quiet"].BackgroundWait <= 0 {
		t.Errorf("they are told %+v", told)
	}
	if n := all(bitbucket.Interactive, "quiet"); n != 10 {
		t.Errorf("who asked nothing yet has %d of the last 10", n)
	}
}

// TestUsage_whileRedisIsAway: calls go on within the local share, in which the background gives way too;
// nobody claims to know what others use.
func TestUsage_whileRedisIsAway(t *testing.T) {
	r := testkit.Redis(t)
	b := redisx.NewBudget(redisx.BudgetConfig{Client: client(t, r.URL()), Consumer: "consumer-key", Limit: 200, LocalShare: 0.1})
	r.Stop()
	spent := 0
	for b.Take(t.Context(), branches, bitbucket.Background, "") == 0 {
		b.Made(t.Context(), branches, bitbucket.Background, "acme-inc")
		spent++
	}
	if spent != 7 || b.Take(t.Context(), branches, bitbucket.Interactive, "") > 0 {
		t.Errorf("the background has %d of the local 10, or people get none", spent)
	}
	if u, err := b.Usage(t.Context(), "acme-inc"); err == nil {
		t.Errorf("known all the same: %+v", u)
	}
}
