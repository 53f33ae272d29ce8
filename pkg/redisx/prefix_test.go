package redisx_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"devpilot.io/bitbucket/pkg/redisx"
	"devpilot.io/bitbucket/pkg/testkit"
)

// Whatever a client does, its keys begin with the installation's name; what nobody knows the keys of does
// not leave the process.
func TestPrefix_everyKey(t *testing.T) {
	server := testkit.RealRedis(t)
	client, err := redisx.Connect(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	redisx.Prefix(client, "acme")
	plain := server.Client()
	ctx := t.Context()
	if err := plain.Set(ctx, "k", "of another", time.Minute).Err(); err != nil {
		t.Fatal(err)
	}
	if v, err := client.Get(ctx, "k").Result(); !errors.Is(err, redis.Nil) {
		t.Fatalf("another's key: %q, %v", v, err)
	}
	if err := client.Set(ctx, "k", "own", time.Minute).Err(); err != nil {
		t.Fatal(err)
	}
	script := redis.NewScript(`redis.call("SET", KEYS[1], ARGV[1]) return redis.call("GET", KEYS[2])`)
	if v, err := script.Run(ctx, client, []string{"s", "k"}, "v").Text(); err != nil || v != "own" {
		t.Fatalf("a script: %q, %v", v, err)
	}
	pipe := client.TxPipeline()
	pipe.HIncrBy(ctx, "h", "f", 1)
	pipe.Expire(ctx, "h", time.Minute)
	if _, err := pipe.Exec(ctx); err != nil {
		t.Fatal(err)
	}
	keys, err := plain.Keys(ctx, "*").Result()
	slices.Sort(keys)
	if err != nil || !slices.Equal(keys, []string{"acme:h", "acme:k", "acme:s", "k"}) {
		t.Fatalf("keys %v, %v", keys, err)
	}
	if err := client.Rename(ctx, "k", "l").Err(); err == nil || !strings.Contains(err.Error(), "rename") {
		t.Errorf("a command whose keys are not known: %v", err)
	}
	odd := client.Pipeline()
	first := odd.Get(ctx, "k")
	odd.Rename(ctx, "k", "l")
	if _, err := odd.Exec(ctx); err == nil || first.Err() == nil {
		t.Errorf("one such command in a pipeline: %v, %v", err, first.Err())
	}
	if n, err := client.Del(ctx, "h", "k", "s").Result(); err != nil || n != 3 {
		t.Errorf("%d deleted, %v", n, err)
	}
	if v, err := plain.Get(ctx, "k").Result(); err != nil || v != "of another" {
		t.Errorf("another's key in the end: %q, %v", v, err)
	}
}
