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
	otherKind   = "Put DEVPILOT_REDIS_URL right: redis://host:6379/0 is one server, redis://node:6379?cluster=true a cluster, redis://sentinel:26379/0?master_name=… what sentinels name."
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

// redis checks that Redis can be reached, is ours, and of a kind that we speak with.
func (x *exam) redis(ctx context.Context) Check {
	if c, none := x.noRedis(); none {
		return c
	}
	target, err := redisx.Parse(x.flags.RedisURL.Reveal())
	if err != nil {
		return failed("DEVPILOT_REDIS_URL: "+err.Error()+".", redisRemedy)
	}
	servers, err := x.info(ctx)
	switch {
	case errors.Is(err, redisx.ErrSentinelRefuses):
		return failed("The sentinels refuse the user or the password in DEVPILOT_REDIS_URL.", "Put sentinel_username and sentinel_password in DEVPILOT_REDIS_URL right, or leave them out where the sentinels ask for none.")
	case redisx.IsRefusal(err):
		return failed("The Redis server refuses the user or the password in DEVPILOT_REDIS_URL, or does not let the user ask INFO.", redisRemedy)
	case redisx.IsOtherKind(err):
		return failed(fmt.Sprintf("Redis at DEVPILOT_REDIS_URL is not what the address says, a %s: %v.", target.Mode, err), otherKind)
	case err != nil:
		return failed(fmt.Sprintf("Redis at DEVPILOT_REDIS_URL does not answer: %v. Devpilot runs without it, and is slower.", err), redisRemedy)
	}
	if c := usable(target, servers); c.State == Failed {
		return c
	}
	what, trouble := x.standing(ctx, target, servers)
	c := x.redisOwner(ctx, what)
	if c.State == OK && trouble != "" {
		return warning(what+". "+trouble, "Devpilot runs without Redis, and somebody may have to press Connect again: make it whole before another server is lost.")
	}
	return c
}

// usable fails where one of the servers is of a kind that we do not speak with.
func usable(target redisx.Target, servers []map[string]string) Check {
	for _, info := range servers {
		what := describe(info)
		switch {
		case !newEnough(info["redis_version"], minRedis):
			return failed(what+".", "Devpilot needs Redis "+minRedis+" or newer: update it.")
		case info["redis_mode"] == "cluster" && target.Mode != redisx.ModeCluster:
			return failed(what+": its keys are spread over servers, and DEVPILOT_REDIS_URL says nothing of a cluster.", otherKind)
		case info["redis_mode"] == "sentinel":
			return failed(what+": this is a sentinel, and DEVPILOT_REDIS_URL does not say by which name it knows Redis.", otherKind)
		case info["role"] != "master":
			return failed(what+": a replica takes no writes.", "Name the master in DEVPILOT_REDIS_URL, or its sentinels.")
		}
	}
	return Check{State: OK}
}

func (x *exam) redisOwner(ctx context.Context, what string) Check {
	name, err := x.flags.Name()
	if err != nil {
		return skipped("DEVPILOT_INSTALLATION cannot be used.")
	}
	client, err := x.flags.OpenRedis(x.flags.PlaintextFlags)
	if err != nil {
		return failed(err.Error()+".", redisRemedy)
	}
	defer func() { _ = client.Close() }()
	redisx.Prefix(client, string(name))
	id, _ := x.owner() // what is wrong with it, keyset says
	err = installation.LookRedis(ctx, client, id)
	switch {
	case errors.Is(err, installation.ErrRedisKind):
		return failed(what+". It does not take our commands.", otherKind)
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
	servers, err := x.info(ctx)
	if err != nil {
		return skipped("Redis does not answer.")
	}
	info := servers[0]
	for _, server := range servers { // the worst of them
		if server["maxmemory_policy"] != "noeviction" {
			info = server
		}
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
