package engine

import (
	"bytes"
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

func redisClient(t *testing.T, r *Redis) *redis.Client {
	t.Helper()
	opts, err := redis.ParseURL(r.URL())
	if err != nil {
		t.Fatal(err)
	}
	c := redis.NewClient(opts)
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func TestRedis_keysExpireInRealTime(t *testing.T) {
	r, err := StartRedis()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	c := redisClient(t, r)
	if err := c.Set(t.Context(), "k", "v", 250*time.Millisecond).Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, 5*time.Second, func() error {
		if c.Exists(t.Context(), "k").Val() != 0 {
			return errors.New("not expired")
		}
		return nil
	})
	if err := c.Set(t.Context(), "k", "v", time.Hour).Err(); err != nil {
		t.Fatal(err)
	}
	r.FastForward(2 * time.Hour)
	if c.Exists(t.Context(), "k").Val() != 0 {
		t.Fatal("FastForward did not expire the key")
	}
}

func TestRedis_wantsItsPassword(t *testing.T) {
	r, err := StartRedis()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	opts, err := redis.ParseURL(r.URL())
	if err != nil {
		t.Fatal(err)
	}
	opts.Password = ""
	c := redis.NewClient(opts)
	t.Cleanup(func() { _ = c.Close() })
	if err := c.Ping(t.Context()).Err(); err == nil {
		t.Fatal("answers without a password")
	}
}

func TestRedis_stopAndStart(t *testing.T) {
	r, err := StartRedis()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	c := redisClient(t, r)
	r.Stop()
	if r.Ready(t.Context()) == nil || c.Ping(t.Context()).Err() == nil {
		t.Fatal("a stopped Redis answers")
	}
	if err := r.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, 5*time.Second, func() error { return c.Ping(t.Context()).Err() })
	if err := r.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.Close()
	r.Close()
}

// A clock that ticks would wake the whole process ten times a second.
func TestRedis_nothingRunsWhileNobodyAsks(t *testing.T) {
	r, err := StartRedis()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	if bytes.Contains(stacks, []byte("engine.(*Redis)")) {
		t.Errorf("something of the embedded Redis runs:\n%s", stacks)
	}
}

// The clock is set before commands; those of a script run while the server is locked.
func TestRedis_scriptsSeeKeysExpire(t *testing.T) {
	r, err := StartRedis()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	c := redisClient(t, r)
	if err := c.Set(t.Context(), "k", "v", 2*redisTick).Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, 5*time.Second, func() error {
		there, err := c.Eval(t.Context(), `redis.call("SET", "other", "v"); return redis.call("EXISTS", "k")`, nil).Int()
		if err == nil && there != 0 {
			return errors.New("not expired")
		}
		return err
	})
}
