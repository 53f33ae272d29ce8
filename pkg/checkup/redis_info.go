package checkup

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"

	"devpilot.io/bitbucket/pkg/redisx"
)

// info are the lines of INFO of Redis, of each master where there are several; never empty without an error.
func (r *Redis) info(ctx context.Context) ([]map[string]string, error) {
	client, err := r.Open()
	if err != nil {
		return nil, err
	}
	defer func() { _ = client.Close() }()
	spread, isCluster := client.(*redis.ClusterClient)
	if !isCluster {
		one, err := infoOf(ctx, client)
		return []map[string]string{one}, err
	}
	var mu sync.Mutex
	var all []map[string]string
	err = spread.ForEachMaster(ctx, func(ctx context.Context, master *redis.Client) error {
		one, err := infoOf(ctx, master)
		mu.Lock()
		defer mu.Unlock()
		all = append(all, one)
		return err
	})
	if err == nil && len(all) == 0 {
		err = redis.Nil
	}
	return all, err
}

func infoOf(ctx context.Context, client redis.Cmdable) (map[string]string, error) {
	text, err := client.Info(ctx).Result()
	return fields(text), err
}

// fields are the lines of what Redis tells of itself.
func fields(text string) map[string]string {
	all := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, found := strings.Cut(strings.TrimSpace(line), ":"); found {
			all[name] = value
		}
	}
	return all
}

func describe(info map[string]string) string {
	return fmt.Sprintf("Redis %s, %s, %s", info["redis_version"], info["redis_mode"], info["role"])
}

// standing says how Redis is run, and what of it is not whole.
func (r *Redis) standing(ctx context.Context, target redisx.Target, servers []map[string]string) (what, trouble string) {
	replicas := 0
	for _, info := range servers {
		n, _ := strconv.Atoi(info["connected_slaves"]) // none where it is not told
		replicas += n
	}
	switch target.Mode {
	case redisx.ModeSentinel:
		return r.sentinels(ctx, target, servers[0], replicas)
	case redisx.ModeCluster:
		what = fmt.Sprintf("Redis %s, a cluster of %d masters and %d replicas", servers[0]["redis_version"], len(servers), replicas)
		client, err := r.Open()
		if err != nil {
			return what, err.Error() + "."
		}
		defer func() { _ = client.Close() }()
		text, err := client.ClusterInfo(ctx).Result()
		switch state := fields(text)["cluster_state"]; {
		case err != nil:
			return what, fmt.Sprintf("It does not tell its state: %v.", err)
		case state != "ok":
			return what, "Its state is " + state + ": not all keys are served."
		}
		nodes, err := client.ClusterNodes(ctx).Result()
		if err != nil {
			return what, fmt.Sprintf("It does not tell its nodes: %v.", err)
		}
		if away := awayNodes(nodes); len(away) > 0 {
			return what, "Nodes of it that do not answer: " + strings.Join(away, ", ") + "."
		}
	case redisx.ModeServer:
		what = describe(servers[0])
	}
	return what, ""
}

func (r *Redis) sentinels(ctx context.Context, target redisx.Target, master map[string]string, replicas int) (what, trouble string) {
	known, err := redisx.Sentinels(ctx, r.URL.Reveal(), r.Security)
	what = fmt.Sprintf("Redis %s, which %d sentinels of DEVPILOT_REDIS_URL know as %s, with %d replicas", master["redis_version"], len(target.Addresses), target.Master, replicas)
	if err != nil {
		return what, err.Error() + "."
	}
	var missing, away []string
	for address, says := range known {
		if says.Err != nil {
			missing = append(missing, fmt.Sprintf("%s (%v)", address, says.Err))
		}
		away = append(away, says.Away...)
	}
	slices.Sort(missing)
	slices.Sort(away)
	switch {
	case len(missing) > 0:
		return what, "Sentinels that do not say where it is: " + strings.Join(missing, ", ") + "."
	case len(away) > 0:
		return what, "Replicas that the sentinels know and do not reach: " + strings.Join(slices.Compact(away), ", ") + "."
	case replicas == 0:
		return what, "No replica can take its place."
	}
	return what, ""
}

// awayNodes are the addresses of the nodes of a cluster that its others do not reach, of what CLUSTER NODES says: an id, an
// address and flags in each line.
func awayNodes(text string) (away []string) {
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) < 3 || !strings.Contains(words[2], "fail") {
			continue
		}
		address, _, _ := strings.Cut(words[1], "@")
		away = append(away, address)
	}
	slices.Sort(away)
	return away
}
