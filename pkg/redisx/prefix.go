package redisx

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Prefix has every key that a client of Connect uses begin with the name of its installation and a colon, so
// that several may share a Redis; without a name nothing is changed. Scripts get the keys that they are told of, so that they must name no other. A command
// whose keys are not known here is refused: none may go out without the prefix.
func Prefix(client redis.UniversalClient, installation string) {
	if installation != "" {
		client.AddHook(prefixed(installation + ":"))
	}
}

type prefixed string

// keyless are commands without keys: those of a connection and of a transaction.
var keyless = map[string]bool{
	"ping": true, "hello": true, "auth": true, "client": true, "select": true, "readonly": true, "cluster": true, "command": true,
	"multi": true, "exec": true, "discard": true, "script": true, "time": true, "info": true, "config": true,
}

// oneKey are commands whose first argument is their key, and that have no other.
var oneKey = map[string]bool{
	"get": true, "set": true, "setnx": true, "getdel": true, "getex": true, "incr": true, "incrby": true, "expire": true, "pexpire": true, "ttl": true, "pttl": true,
	"hget": true, "hset": true, "hgetall": true, "hincrby": true, "zadd": true, "zrange": true, "zrangebyscore": true, "zremrangebyscore": true, "zremrangebyrank": true,
}

// allKeys are commands whose arguments are all keys.
var allKeys = map[string]bool{"del": true, "unlink": true, "exists": true, "mget": true}

// scripts are commands that say how many keys they have: the command, the script, the number, the keys.
var scripts = map[string]bool{"eval": true, "evalsha": true, "eval_ro": true, "evalsha_ro": true}

var errKeys = errors.New("redisx: keys that are not known")

// apply puts the prefix before the keys of a command.
func (p prefixed) apply(cmd redis.Cmder) error {
	args, name := cmd.Args(), strings.ToLower(cmd.Name())
	from, to := 1, 1
	switch {
	case keyless[name]:
	case oneKey[name]:
		to = 2
	case allKeys[name]:
		to = len(args)
	case scripts[name] && len(args) > 2:
		n, ok := args[2].(int)
		if !ok {
			return fmt.Errorf("%w: of %s", errKeys, name)
		}
		from, to = 3, 3+n
	default:
		return fmt.Errorf("%w: of %s", errKeys, name)
	}
	if to > len(args) {
		return fmt.Errorf("%w: %s has too few", errKeys, name)
	}
	for i := from; i < to; i++ {
		key, ok := args[i].(string)
		if !ok {
			return fmt.Errorf("%w: %s has one that is no text", errKeys, name)
		}
		args[i] = string(p) + key
	}
	return nil
}

// DialHook leaves dialling alone.
func (prefixed) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook prefixes one command.
func (p prefixed) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if err := p.apply(cmd); err != nil {
			cmd.SetErr(err)
			return err
		}
		return next(ctx, cmd)
	}
}

// ProcessPipelineHook prefixes one pipeline.
func (p prefixed) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		for _, cmd := range cmds {
			if err := p.apply(cmd); err != nil {
				for _, c := range cmds {
					c.SetErr(err)
				}
				return err
			}
		}
		return next(ctx, cmds)
	}
}
