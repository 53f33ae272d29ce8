package doctor

import (
	"strings"
	"testing"

	"devpilot.io/bitbucket/pkg/checkup"
	"devpilot.io/bitbucket/pkg/testkit"
)

func TestRun_redisThatIsNotWell(t *testing.T) {
	w := newWorld(t)
	w.begin(w.keys)
	spread, guarded := testkit.RealClusterRedis(t, testkit.RedisSetup{}, 0), testkit.RealSentinelRedis(t, testkit.RedisSetup{})
	w.fails([]failing{
		{"Redis gone", "auth", "redis", map[string]string{"DEVPILOT_REDIS_URL": "redis://127.0.0.1:1"}, checkup.Failed, "does not answer", "Start Redis"},
		{"Redis refuses", "auth", "redis", map[string]string{"DEVPILOT_REDIS_URL": withPassword(t, w.env["DEVPILOT_REDIS_URL"])}, checkup.Failed, "refuses the user or the password", "put DEVPILOT_REDIS_URL right"},
		{"Redis of others", "auth", "redis", map[string]string{"DEVPILOT_REDIS_URL": foreignRedis(t)}, checkup.Failed, "in use by another installation", "of its own"},
		{"Redis that is a cluster", "auth", "redis", map[string]string{"DEVPILOT_REDIS_URL": "redis://" + strings.TrimPrefix(strings.Split(spread.URL(), "?")[0], "redis://")}, checkup.Failed, "spread over servers", "?cluster=true"},
		{"Redis that is none", "auth", "redis", map[string]string{"DEVPILOT_REDIS_URL": w.env["DEVPILOT_REDIS_URL"] + "?cluster=true"}, checkup.Failed, "not what the address says, a cluster", "redis://host:6379/0 is one server"},
		{"Redis that is a sentinel", "auth", "redis", map[string]string{"DEVPILOT_REDIS_URL": strings.Split(guarded.URL(), "?")[0]}, checkup.Failed, "this is a sentinel", "?master_name="},
		{"sentinels that do not know it", "auth", "redis", map[string]string{"DEVPILOT_REDIS_URL": strings.Replace(guarded.URL(), "master_name=", "master_name=x", 1)}, checkup.Failed, `know no Redis called "xdevpilot"`, "Start Redis"},
		{"a sentinel gone", "auth", "redis", map[string]string{"DEVPILOT_REDIS_URL": guarded.URL() + "&addr=127.0.0.1:1"}, checkup.Warning, "do not say where it is: 127.0.0.1:1 (", "make it whole"},
		{"an address that is none", "auth", "redis", map[string]string{"DEVPILOT_REDIS_URL": guarded.URL() + "&cluster=true"}, checkup.Failed, "leave one out", "redis://user:password@host"},
		{"Redis that evicts", "auth", "redis-eviction", map[string]string{"DEVPILOT_REDIS_URL": evicting(t, "allkeys-lru")}, checkup.Warning, "allkeys-lru; its memory is bounded to 64.00M", "noeviction"},
		{"Redis that evicts what ends", "auth", "redis-eviction", map[string]string{"DEVPILOT_REDIS_URL": evicting(t, "volatile-ttl")}, checkup.Warning, "which all of ours do", "noeviction"},
	})
}

func withPassword(t *testing.T, url string) string {
	t.Helper()
	return strings.Replace(url, "redis://", "redis://nobody:wrong@", 1)
}

func foreignRedis(t *testing.T) string {
	t.Helper()
	r := testkit.RealRedis(t)
	if err := r.Client().Set(t.Context(), "devpilot:installation:v1:id:{}", "another", 0).Err(); err != nil {
		t.Fatal(err)
	}
	return r.URL()
}

func evicting(t *testing.T, policy string) string {
	t.Helper()
	r := testkit.RealRedis(t)
	for name, value := range map[string]string{"maxmemory": "64mb", "maxmemory-policy": policy} {
		if err := r.Client().ConfigSet(t.Context(), name, value).Err(); err != nil {
			t.Fatal(err)
		}
	}
	return r.URL()
}
