package kv

import (
	"context"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"
)

// inventories are the open ones by connection: whoever closes a connection knows no bucket.
var inventories = struct {
	mu sync.Mutex
	of map[*nats.Conn][]*inventory
}{of: map[*nats.Conn][]*inventory{}}

// flushTimeout bounds Flush: a process that stops does not wait for a NATS that does not answer.
const flushTimeout = 5 * time.Second

func keep(nc *nats.Conn, i *inventory) {
	inventories.mu.Lock()
	defer inventories.mu.Unlock()
	inventories.of[nc] = append(inventories.of[nc], i)
}

// Flush writes what the inventories of a connection's buckets still have in memory. Call it before the
// connection is closed: a loss of what was written in the last seconds would else go unnoticed. It gives
// up after five seconds or when ctx ends, with an error; nothing that was stored depends on it.
func Flush(ctx context.Context, nc *nats.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	inventories.mu.Lock()
	list := inventories.of[nc]
	delete(inventories.of, nc)
	inventories.mu.Unlock()
	if !nc.IsConnected() {
		return nil
	}
	var flushing errgroup.Group
	for _, i := range list {
		flushing.Go(func() error { return i.flush(ctx) })
	}
	return flushing.Wait()
}
