package redisx_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"devpilot.io/bitbucket/pkg/bitbucket"
	"devpilot.io/bitbucket/pkg/redisx"
	"devpilot.io/bitbucket/pkg/testkit"
)

// soon is how long Redis is away at most once another server has the place of one that is gone.
const soon = 5 * time.Second

// everything does all that services do with Redis, on many keys, as an installation with a name.
func everything(t *testing.T, c redis.UniversalClient) {
	t.Helper()
	redisx.Prefix(c, "acme")
	k := cache(t, c)
	ctx := t.Context()
	var keys []string
	for i := range 20 {
		key := redisx.Key("repo", "listing", fmt.Sprint("w", i))
		keys = append(keys, key)
		if err := k.SetJSON(ctx, key, i, time.Minute); err != nil {
			t.Fatal(err)
		}
		var got int
		if err := k.TakeJSON(ctx, key, &got); err != nil || got != i {
			t.Fatalf("%s: %d, %v", key, got, err)
		}
		if err := k.SetJSON(ctx, key, i, time.Minute); err != nil {
			t.Fatal(err)
		}
		lock, err := redisx.TryLock(ctx, c, redisx.Key("repo", "lock", fmt.Sprint("w", i)), time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(lock.Extend(ctx, time.Minute), lock.Release(ctx)); err != nil {
			t.Fatal(err)
		}
	}
	if err := k.Delete(ctx, keys...); err != nil {
		t.Fatalf("keys of several nodes: %v", err)
	}
	if _, err := k.Get(ctx, keys[0]); !errors.Is(err, redisx.ErrMiss) {
		t.Fatalf("deleted: %v", err)
	}
	budget := redisx.NewBudget(redisx.BudgetConfig{Client: c, Consumer: "consumer-key", Service: "repo"})
	for _, call := range []bitbucket.Call{branches, hookCalls, user} {
		if wait := budget.Take(ctx, call, bitbucket.Interactive, "acme-inc"); wait > 0 {
			t.Fatalf("%v waits %v", call, wait)
		}
		budget.Made(ctx, call, bitbucket.Interactive, "acme-inc")
	}
	budget.Exhausted(ctx, branches, time.Minute)
	if wait := budget.Take(ctx, branches, bitbucket.Interactive, "acme-inc"); wait <= 0 {
		t.Error("what Bitbucket holds back goes")
	}
	usage, err := budget.Usage(ctx, "acme-inc")
	if err != nil || usage[0].Used != 2 || usage[1].Used != 1 {
		t.Errorf("the use of calls: %+v, %v", usage, err)
	}
}

// counts tells that what was counted before is still counted.
func counts(ctx context.Context, b *redisx.Budget, want int) error {
	usage, err := b.Usage(ctx, "acme-inc")
	if err == nil && usage[0].Used < want {
		err = fmt.Errorf("%d calls are counted of %d", usage[0].Used, want)
	}
	return err
}

func secure(t *testing.T, url, authorities string) redis.UniversalClient {
	t.Helper()
	c, err := redisx.ConnectSecure(url, redisx.Security{Authorities: authorities})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestSentinel_followsTheMaster(t *testing.T) {
	for name, setup := range map[string]testkit.RedisSetup{
		"plain":                {},
		"passwords, encrypted": {Password: "s3cr3t", SentinelPassword: "s3cr3t2", TLSHost: "localhost"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := testkit.RealSentinelRedis(t, setup)
			c := secure(t, s.URL(), s.Authorities())
			testkit.Eventually(t, wait, func() error { return c.Ping(t.Context()).Err() })
			everything(t, c)
			budget := redisx.NewBudget(redisx.BudgetConfig{Client: c, Consumer: "consumer-key", Service: "repo"})
			s.AwaitReplicas()
			s.KillMaster()
			start := time.Now()
			testkit.Eventually(t, soon, func() error {
				return c.Set(t.Context(), redisx.Key("repo", "listing", "after"), "x", time.Minute).Err()
			})
			t.Logf("writes go %v after the sentinels named another master", time.Since(start))
			testkit.Eventually(t, soon, func() error { return counts(t.Context(), budget, 2) })
		})
	}
}

// A machine that is gone takes its sentinel along, and neither says so: connections stay open, and nothing answers.
func TestSentinel_aSentinelThatNeverAnswersIsLeft(t *testing.T) {
	t.Parallel()
	s := testkit.RealSentinelRedis(t, testkit.RedisSetup{})
	c := secure(t, s.URL(), "")
	testkit.Eventually(t, wait, func() error { return c.Ping(t.Context()).Err() })
	asked := s.Asked()
	asked.Stop()
	t.Cleanup(asked.Continue)
	s.KillMaster()
	testkit.Eventually(t, soon, func() error {
		return c.Set(t.Context(), redisx.Key("repo", "listing", "after"), "x", time.Minute).Err()
	})
}

func TestSentinel_saysWhatIsWrong(t *testing.T) {
	t.Parallel()
	s := testkit.RealSentinelRedis(t, testkit.RedisSetup{Password: "s3cr3t", SentinelPassword: "s3cr3t2"})
	right := s.URL()
	for name, c := range map[string]struct {
		url   string
		holds func(error) bool
	}{
		"another name": {strings.Replace(right, "master_name="+testkit.SentinelMaster, "master_name=other", 1), func(err error) bool {
			return errors.Is(err, redisx.ErrUnavailable) && strings.Contains(err.Error(), `no Redis called "other"`)
		}},
		"another password of sentinels":   {strings.Replace(right, "sentinel_password=s3cr3t2", "sentinel_password=s3cr3t3", 1), func(err error) bool { return errors.Is(err, redisx.ErrSentinelRefuses) && redisx.IsRefusal(err) }},
		"no password of sentinels":        {strings.Replace(right, "&sentinel_password=s3cr3t2", "", 1), func(err error) bool { return errors.Is(err, redisx.ErrSentinelRefuses) }},
		"another password of the servers": {strings.Replace(right, ":s3cr3t@", ":s3cr3t4@", 1), func(err error) bool { return redisx.IsRefusal(err) && !errors.Is(err, redisx.ErrSentinelRefuses) }},
		"no sentinel there":               {"redis://" + nobody(t) + "?master_name=other", func(err error) bool { return errors.Is(err, redisx.ErrUnavailable) }},
	} {
		client := secure(t, c.url, "")
		var err error
		testkit.Eventually(t, wait, func() error { // on a busy machine one try may take too long
			if err = client.Get(t.Context(), "k").Err(); err == nil || c.holds(err) {
				return nil
			}
			return err
		})
		if err == nil || errors.Is(err, redis.Nil) || strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// nobody is an address that nobody listens on.
func nobody(t *testing.T) string {
	t.Helper()
	return fmt.Sprint("127.0.0.1:", testkit.FreePort(t))
}

// What the URL says of this machine alone must not lead elsewhere in clear, unless that is meant.
func TestSentinel_leadsNowhereInClear(t *testing.T) {
	t.Parallel()
	s := testkit.RealSentinelRedis(t, testkit.RedisSetup{})
	for _, sentinel := range s.Sentinels {
		if err := sentinel.Client().Do(t.Context(), "SENTINEL", "MONITOR", "far", "192.0.2.1", "6379", "2").Err(); err != nil {
			t.Fatal(err)
		}
	}
	url := strings.Replace(s.URL(), "master_name="+testkit.SentinelMaster, "master_name=far", 1)
	c := secure(t, url, "")
	const refusal = "Redis is at 192.0.2.1:6379, beyond this machine"
	testkit.Eventually(t, wait, func() error {
		if err := c.Ping(t.Context()).Err(); err == nil || !strings.Contains(err.Error(), refusal) {
			return fmt.Errorf("in clear: %w", err)
		}
		return nil
	})
	meant, err := redisx.ConnectSecure(url, redisx.Security{Plaintext: true})
	if err != nil {
		t.Fatal(err)
	}
	defer meant.Close()
	for range 5 {
		if err := meant.Ping(t.Context()).Err(); err == nil || strings.Contains(err.Error(), refusal) {
			t.Errorf("meant: %v", err)
		}
	}
}

func TestCluster_everyKeyOnItsNode(t *testing.T) {
	for name, setup := range map[string]testkit.RedisSetup{
		"plain":               {},
		"password, encrypted": {Password: "s3cr3t", TLSHost: "localhost"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := testkit.RealClusterRedis(t, setup, 0)
			c := secure(t, s.URL(), s.Authorities())
			testkit.Eventually(t, wait, func() error { return c.Ping(t.Context()).Err() })
			everything(t, c)
			if setup.Password == "" {
				return
			}
			wrong := secure(t, strings.Replace(s.URL(), "s3cr3t", "s3cr3t2", 1), s.Authorities())
			var err error
			testkit.Eventually(t, wait, func() error {
				if err = wrong.Get(t.Context(), "k").Err(); redisx.IsRefusal(err) {
					return nil
				}
				return fmt.Errorf("a wrong password: %w", err)
			})
			if strings.Contains(err.Error(), "s3cr3t") {
				t.Error(err)
			}
		})
	}
}

// A node that is gone takes its keys with it for a moment, and no others; its replica brings them back.
func TestCluster_aNodeThatIsGone(t *testing.T) {
	t.Parallel()
	s := testkit.RealClusterRedis(t, testkit.RedisSetup{}, 1)
	c := secure(t, s.URL(), "")
	testkit.Eventually(t, wait, func() error { return c.Ping(t.Context()).Err() })
	everything(t, c)
	budget := redisx.NewBudget(redisx.BudgetConfig{Client: c, Consumer: "consumer-key", Service: "repo"})
	s.AwaitReplicas()
	s.Nodes[0].Kill()
	s.AwaitWhole()
	start := time.Now()
	testkit.Eventually(t, soon, func() error {
		for i := range 50 {
			if err := c.Set(t.Context(), redisx.Key("repo", "listing", fmt.Sprint(i)), "x", time.Minute).Err(); err != nil {
				return err
			}
		}
		return counts(t.Context(), budget, 2)
	})
	t.Logf("all keys are there %v after the replica took over", time.Since(start))
}

// One node that takes connections and never answers is asked no more, and costs the others nothing.
func TestCluster_aFrozenNodeIsLeftAlone(t *testing.T) {
	t.Parallel()
	s := testkit.RealClusterRedis(t, testkit.RedisSetup{}, 0)
	for _, node := range s.Nodes { // the others serve their keys all the same
		if err := node.Client().ConfigSet(t.Context(), "cluster-require-full-coverage", "no").Err(); err != nil {
			t.Fatal(err)
		}
	}
	c := secure(t, s.URL(), "")
	keys := map[bool]string{}
	slots := func(key string) int64 { return s.Nodes[0].Client().ClusterKeySlot(t.Context(), key).Val() }
	for i := 0; len(keys) < 2; i++ {
		key := redisx.Key("repo", "listing", fmt.Sprint(i))
		keys[slots(key) < 16384/3] = key
	}
	for _, key := range keys {
		testkit.Eventually(t, wait, func() error { return c.Set(t.Context(), key, "x", time.Minute).Err() })
	}
	s.Nodes[0].Stop()
	t.Cleanup(s.Nodes[0].Continue)
	testkit.Eventually(t, wait, func() error {
		if err := c.Get(t.Context(), keys[true]).Err(); !errors.Is(err, redisx.ErrUnavailable) || !strings.Contains(err.Error(), "not asked") {
			return fmt.Errorf("asked: %w", err)
		}
		return nil
	})
	testkit.Eventually(t, wait, func() error { return c.Get(t.Context(), keys[false]).Err() })
	for range 20 {
		if err := c.Get(t.Context(), keys[false]).Err(); err != nil {
			t.Fatalf("a key of another node: %v", err)
		}
	}
}

// A URL of the wrong kind says so, and reads nothing as "not there".
func TestConnect_anotherKindOfRedis(t *testing.T) {
	t.Parallel()
	single := testkit.RealRedis(t)
	c := secure(t, single.URL()+"?cluster=true", "")
	if err := c.Get(t.Context(), "k").Err(); err == nil || errors.Is(err, redis.Nil) || !strings.Contains(err.Error(), "cluster support disabled") {
		t.Errorf("one server as a cluster: %v", err)
	}
	var dead net.Error
	gone := secure(t, "redis://"+nobody(t)+"?cluster=true", "")
	for range 3 {
		if err := gone.Get(t.Context(), "k").Err(); !errors.Is(err, redisx.ErrUnavailable) || errors.As(err, &dead) && dead.Timeout() {
			t.Errorf("no node there: %v", err)
		}
	}
	if err := gone.Get(t.Context(), "k").Err(); err == nil || !strings.Contains(err.Error(), "not asked") {
		t.Errorf("no node there, asked again: %v", err)
	}
}

// What deploy/README.md has an operator allow is enough, on one server and on a cluster.
func TestConnect_asAUserWhoMayNoMoreThanIsNeeded(t *testing.T) {
	t.Parallel()
	single, spread := testkit.RealRedis(t), testkit.RealClusterRedis(t, testkit.RedisSetup{}, 0)
	for _, node := range append([]*testkit.RealRedisServer{single}, spread.Nodes...) {
		if err := node.Client().Do(t.Context(), "ACL", "SETUSER", "me", "on", ">s3cr3t", "~acme:devpilot:*", "~acme:rate:*",
			"+@read", "+@write", "+@scripting", "+@connection", "+cluster|slots", "+cluster|info", "+info", "+time", "-@dangerous", "+info").Err(); err != nil {
			t.Fatal(err)
		}
	}
	for _, url := range []string{single.URL(), spread.URL()} {
		c := secure(t, strings.Replace(url, "redis://", "redis://me:s3cr3t@", 1), "")
		testkit.Eventually(t, wait, func() error { return c.Ping(t.Context()).Err() })
		everything(t, c)
	}
}
