package testkit

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"devpilot.io/bitbucket/pkg/engine"
)

// RedisServer is an embedded Redis; see engine.Redis for stopping it and moving its clock.
type RedisServer struct {
	*engine.Redis
	t testing.TB
}

// Redis starts an embedded Redis for one test.
func Redis(t testing.TB) *RedisServer {
	t.Helper()
	r, err := engine.StartRedis()
	if err != nil {
		t.Fatalf("start Redis: %v", err)
	}
	t.Cleanup(r.Close)
	return &RedisServer{Redis: r, t: t}
}

// Start serves again after Stop.
func (r *RedisServer) Start() {
	r.t.Helper()
	if err := r.Redis.Start(); err != nil {
		r.t.Fatalf("start Redis: %v", err)
	}
}

// Client opens a client of its own, closed with the test.
func (r *RedisServer) Client() redis.UniversalClient {
	r.t.Helper()
	return redisClient(r.t, r.URL())
}

func redisClient(t testing.TB, url string) redis.UniversalClient {
	t.Helper()
	opts, err := redis.ParseURL(url)
	if err != nil {
		t.Fatalf("redis URL: %v", err)
	}
	c := redis.NewClient(opts)
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("close the Redis client: %v", err)
		}
	})
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := c.Ping(ctx).Err(); err != nil {
		t.Fatalf("reach Redis: %v", err)
	}
	return c
}
