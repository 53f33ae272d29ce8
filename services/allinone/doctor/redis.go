package doctor

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"devpilot.io/bitbucket/pkg/installation"
	"devpilot.io/bitbucket/pkg/redisx"
)

const (
	minRedis    = "6.2" // the oldest Redis that is taken
	redisRemedy = "Start Redis, and put DEVPILOT_REDIS_URL right: redis://user:password@host:6379/0."
)

// noRedis says why there is no Redis to look at; ok where there is one.
func (x *exam) noRedis() (c Check, none bool) {
	switch {
	case !x.flags.RedisURL.IsZero():
		return Check{}, false
	case x.flags.Service == whole:
		return ok("Embedded, in the program's memory: it holds only what may be lost."), true
	}
	return skipped("DEVPILOT_REDIS_URL is not set."), true
}

// info are the lines of Redis's INFO.
func (x *exam) info(ctx context.Context) (map[string]string, error) {
	client, err := x.flags.OpenRedis()
	if err != nil {
		return nil, err
	}
	defer func() { _ = client.Close() }()
	text, err := client.Info(ctx).Result()
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, found := strings.Cut(strings.TrimSpace(line), ":"); found {
			all[name] = value
		}
	}
	return all, nil
}

// redis checks that Redis can be reached, is ours, and of a kind that we speak with.
func (x *exam) redis(ctx context.Context) Check {
	if c, none := x.noRedis(); none {
		return c
	}
	info, err := x.info(ctx)
	switch {
	case redisx.IsRefusal(err):
		return failed("The Redis server refuses the user or the password in DEVPILOT_REDIS_URL, or does not let the user ask INFO.", redisRemedy)
	case err != nil:
		return failed(fmt.Sprintf("Redis at DEVPILOT_REDIS_URL does not answer: %v. Devpilot runs without it, and is slower.", err), redisRemedy)
	}
	what := fmt.Sprintf("Redis %s, %s, %s", info["redis_version"], info["redis_mode"], info["role"])
	switch {
	case !newEnough(info["redis_version"], minRedis):
		return failed(what+".", "Devpilot needs Redis "+minRedis+" or newer: update it.")
	case info["redis_mode"] == "cluster":
		return failed(what+": its keys are spread over servers, and Devpilot asks one.", "Use a Redis that is no cluster: what Devpilot keeps in it is small.")
	case info["redis_mode"] == "sentinel":
		return failed(what+": this is a sentinel, which keeps nothing.", "Name the Redis server itself in DEVPILOT_REDIS_URL.")
	case info["role"] != "master":
		return failed(what+": a replica takes no writes.", "Name the master in DEVPILOT_REDIS_URL.")
	}
	return x.redisOwner(ctx, what)
}

func (x *exam) redisOwner(ctx context.Context, what string) Check {
	name, err := x.flags.Name()
	if err != nil {
		return skipped("DEVPILOT_INSTALLATION cannot be used.")
	}
	client, err := x.flags.OpenRedis()
	if err != nil {
		return failed(err.Error()+".", redisRemedy)
	}
	defer func() { _ = client.Close() }()
	redisx.Prefix(client, string(name))
	id, _ := x.owner() // what is wrong with it, keyset says
	err = installation.LookRedis(ctx, client, id)
	switch {
	case errors.Is(err, installation.ErrRedisOfOthers):
		return failed(what+". It is in use by another installation.", "Give this installation a Redis or a database number of its own, or a name (DEVPILOT_INSTALLATION).")
	case errors.Is(err, installation.ErrRedisRefuses):
		return failed(what+". It refuses us.", redisRemedy)
	case err != nil:
		return failed(fmt.Sprintf("%s, but: %v.", what, err), redisRemedy)
	}
	return ok("%s.", what)
}

// suffering are our keys in Redis, and what somebody notices when they are gone too early (DESIGN.md#state).
const suffering = "handshakes (somebody has to press Connect again), the budget of Bitbucket's limits and the counts of programs' requests (429 from Bitbucket, limits not kept) and whose Redis it is; cached lists are made again"

// eviction checks what Redis does when its memory is full.
func (x *exam) eviction(ctx context.Context) Check {
	if c, none := x.noRedis(); none {
		return c
	}
	info, err := x.info(ctx)
	if err != nil {
		return skipped("Redis does not answer.")
	}
	policy, full := info["maxmemory_policy"], "its memory has no bound now (maxmemory 0)"
	if most := info["maxmemory_human"]; info["maxmemory"] != "0" && most != "" {
		full = "its memory is bounded to " + most
	}
	const remedy = "Set maxmemory-policy noeviction for Devpilot's Redis: what it keeps is small and ends by itself."
	switch {
	case policy == "":
		return skipped("Redis does not tell its eviction policy.")
	case policy == "noeviction":
		return ok("noeviction; %s.", full)
	case strings.HasPrefix(policy, "allkeys-"):
		return warning(fmt.Sprintf("%s; %s. When it is full any key goes, and with them %s.", policy, full, suffering), remedy)
	}
	// All our keys end by themselves.
	return warning(fmt.Sprintf("%s; %s. When it is full keys that end by themselves go, which all of ours do: %s.", policy, full, suffering), remedy)
}
