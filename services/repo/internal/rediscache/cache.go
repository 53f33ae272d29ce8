// Package rediscache keeps in Redis what replicas of repo share: snapshots, answers of a few
// seconds, and the locks that keep two replicas from fetching the same list. All of it may be lost:
// every failure of Redis reads as "not there".
package rediscache

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"devpilot.io/bitbucket/pkg/redisx"
	"devpilot.io/bitbucket/services/repo/internal/catalog"
)

// Cache is the Redis side of a catalog. It is safe for concurrent use.
type Cache struct {
	cache  *redisx.Cache
	client redis.UniversalClient
}

var (
	_ catalog.Store   = (*Cache)(nil)
	_ catalog.Answers = (*Cache)(nil)
)

// New makes a cache on a client.
func New(cache *redisx.Cache, client redis.UniversalClient) *Cache {
	return &Cache{cache: cache, client: client}
}

// Newer returns the stored snapshot of the connection if it was fetched after have.
func (c *Cache) Newer(ctx context.Context, workspace, connection string, have time.Time) (*catalog.Snapshot, bool) {
	mark, err := c.cache.Get(ctx, markKey(workspace))
	if err != nil {
		return nil, false
	}
	nanos, of, _ := strings.Cut(string(mark), " ")
	n, err := strconv.ParseInt(nanos, 10, 64)
	if err != nil || of != connection || !time.Unix(0, n).After(have) {
		return nil, false
	}
	var s catalog.Snapshot
	if err := c.cache.GetJSON(ctx, snapshotKey(workspace), &s); err != nil || s.Connection != connection || !s.FetchTime.After(have) {
		return nil, false
	}
	return &s, true
}

// Save stores a snapshot, the mark last: who sees it finds the snapshot.
func (c *Cache) Save(ctx context.Context, workspace string, s *catalog.Snapshot) error {
	if err := c.cache.SetJSON(ctx, snapshotKey(workspace), s, snapshotLife); err != nil {
		return fmt.Errorf("save snapshot: %w", err)
	}
	mark := fmt.Sprintf("%d %s", s.FetchTime.UnixNano(), s.Connection)
	if err := c.cache.Set(ctx, markKey(workspace), []byte(mark), snapshotLife); err != nil {
		return fmt.Errorf("save mark of snapshot: %w", err)
	}
	return nil
}

// Drop forgets the snapshot of a workspace.
func (c *Cache) Drop(ctx context.Context, workspace string) error {
	if err := c.cache.Delete(ctx, markKey(workspace), snapshotKey(workspace)); err != nil {
		return fmt.Errorf("drop snapshot: %w", err)
	}
	return nil
}

// AllowRefresh lets one refresh of a connection through per interval and tells the others how long
// to wait. Without Redis it returns an error.
func (c *Cache) AllowRefresh(ctx context.Context, workspace, connection string, interval time.Duration) (time.Duration, error) {
	key := refreshKey(workspace, connection)
	ok, err := c.client.SetNX(ctx, key, "1", interval).Result()
	if err != nil {
		return 0, fmt.Errorf("allow refresh: %w", err)
	}
	if ok {
		return 0, nil
	}
	left, err := c.client.PTTL(ctx, key).Result()
	if err != nil {
		return 0, fmt.Errorf("allow refresh: %w", err)
	}
	return min(max(left, time.Second), interval), nil
}

// Once runs work in one replica at a time; the others wait and take what cached finds afterwards.
// Without Redis every replica works for itself.
func (c *Cache) Once(ctx context.Context, workspace string, cached func(context.Context) (*catalog.Snapshot, bool), work func(context.Context) (*catalog.Snapshot, error)) (*catalog.Snapshot, error) {
	return redisx.Flight[*catalog.Snapshot]{Key: fetchKey(workspace), TTL: fetchLockLife, Cached: cached, Work: work}.Do(ctx, c.client)
}

// Get reads an answer to an equal question.
func (c *Cache) Get(ctx context.Context, question string, into any) bool {
	return c.cache.GetJSON(ctx, answerKey(question), into) == nil
}

// Put keeps an answer for life. That it could not be kept matters to nobody.
func (c *Cache) Put(ctx context.Context, question string, answer any, life time.Duration) {
	if err := c.cache.SetJSON(ctx, answerKey(question), answer, life); errors.Is(err, context.Canceled) {
		return
	}
}
