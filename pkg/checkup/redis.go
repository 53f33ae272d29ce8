package checkup

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"

	"devpilot.io/bitbucket/pkg/installation"
	"devpilot.io/bitbucket/pkg/redisx"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/stream"
)

const (
	minRedis    = "6.2" // the oldest Redis that is taken
	redisRemedy = "Start Redis, and put DEVPILOT_REDIS_URL right: redis://user:password@host:6379/0."
	otherKind   = "Put DEVPILOT_REDIS_URL right: redis://host:6379/0 is one server, redis://node:6379?cluster=true a cluster, redis://sentinel:26379/0?master_name=… what sentinels name."
)

// Redis is one that others run, as a program reaches it. Its methods may be called concurrently.
type Redis struct {
	URL seal.Secret
	// Open makes a client as the program does; it is closed after use.
	Open     func() (redis.UniversalClient, error)
	Security redisx.Security
	// Installation is the name that its keys begin with.
	Installation stream.Installation
	// Owner is the id of the installation in NATS; empty where it is not known.
	Owner func() string
}

// Reached checks that Redis can be reached, is ours, and of a kind that we speak with.
func (r *Redis) Reached(ctx context.Context) Check {
	target, err := redisx.Parse(r.URL.Reveal())
	if err != nil {
		return Fail("DEVPILOT_REDIS_URL: "+err.Error()+".", redisRemedy)
	}
	servers, err := r.info(ctx)
	switch {
	case errors.Is(err, redisx.ErrSentinelRefuses):
		return Fail("The sentinels refuse the user or the password in DEVPILOT_REDIS_URL.", "Put sentinel_username and sentinel_password in DEVPILOT_REDIS_URL right, or leave them out where the sentinels ask for none.")
	case redisx.IsRefusal(err):
		return Fail("The Redis server refuses the user or the password in DEVPILOT_REDIS_URL, or does not let the user ask INFO.", redisRemedy)
	case Untrusted(err) != "":
		return Fail("Redis at DEVPILOT_REDIS_URL is not trusted: "+Untrusted(err)+".", "Renew its certificate, or put its authority into DEVPILOT_REDIS_CA_FILE, and a name that it is for into DEVPILOT_REDIS_URL.")
	case redisx.IsOtherKind(err):
		return Fail(fmt.Sprintf("Redis at DEVPILOT_REDIS_URL is not what the address says, a %s: %v.", target.Mode, err), otherKind)
	case err != nil:
		return Fail(fmt.Sprintf("Redis at DEVPILOT_REDIS_URL does not answer: %v. Devpilot runs without it, and is slower.", err), redisRemedy)
	}
	if c := usable(target, servers); c.State == Failed {
		return c
	}
	what, trouble := r.standing(ctx, target, servers)
	c := r.owner(ctx, what)
	if c.State == OK && trouble != "" {
		return Warn(what+". "+trouble, "Devpilot runs without Redis, and somebody may have to press Connect again: make it whole before another server is lost.")
	}
	return c
}

// usable fails where one of the servers is of a kind that we do not speak with.
func usable(target redisx.Target, servers []map[string]string) Check {
	for _, info := range servers {
		what := describe(info)
		switch {
		case !NewEnough(info["redis_version"], minRedis):
			return Fail(what+".", "Devpilot needs Redis "+minRedis+" or newer: update it.")
		case info["redis_mode"] == "cluster" && target.Mode != redisx.ModeCluster:
			return Fail(what+": its keys are spread over servers, and DEVPILOT_REDIS_URL says nothing of a cluster.", otherKind)
		case info["redis_mode"] == "sentinel":
			return Fail(what+": this is a sentinel, and DEVPILOT_REDIS_URL does not say by which name it knows Redis.", otherKind)
		case info["role"] != "master":
			return Fail(what+": a replica takes no writes.", "Name the master in DEVPILOT_REDIS_URL, or its sentinels.")
		}
	}
	return Check{State: OK}
}

func (r *Redis) owner(ctx context.Context, what string) Check {
	client, err := r.Open()
	if err != nil {
		return Fail(err.Error()+".", redisRemedy)
	}
	defer func() { _ = client.Close() }()
	redisx.Prefix(client, string(r.Installation))
	err = installation.LookRedis(ctx, client, r.Owner())
	switch {
	case errors.Is(err, installation.ErrRedisKind):
		return Fail(what+". It does not take our commands.", otherKind)
	case errors.Is(err, installation.ErrRedisOfOthers):
		return Fail(what+". It is in use by another installation.", "Give this installation a Redis or a database number of its own, or a name (DEVPILOT_INSTALLATION).")
	case errors.Is(err, installation.ErrRedisRefuses):
		return Fail(what+". It refuses us.", redisRemedy)
	case err != nil:
		return Fail(fmt.Sprintf("%s, but: %v.", what, err), redisRemedy)
	}
	return Well("%s.", what)
}

// suffering are our keys in Redis, and what somebody notices when they are gone too early (DESIGN.md#state).
const suffering = "handshakes (somebody has to press Connect again), the budget of Bitbucket's limits and the counts of programs' requests (429 from Bitbucket, limits not kept) and whose Redis it is; cached lists are made again"

// Eviction checks what Redis does when its memory is full.
func (r *Redis) Eviction(ctx context.Context) Check {
	servers, err := r.info(ctx)
	if err != nil {
		return Skip("Redis does not answer.")
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
		return Skip("Redis does not tell its eviction policy.")
	case policy == "noeviction":
		return Well("noeviction; %s.", full)
	case strings.HasPrefix(policy, "allkeys-"):
		return Warn(fmt.Sprintf("%s; %s. When it is full any key goes, and with them %s.", policy, full, suffering), remedy)
	}
	// All our keys end by themselves.
	return Warn(fmt.Sprintf("%s; %s. When it is full keys that end by themselves go, which all of ours do: %s.", policy, full, suffering), remedy)
}
