// Package roster keeps all webhooks in memory, by watching their bucket: so that a delivery finds
// its webhook without asking anybody, and so that whoever works on webhooks learns what is due.
//
// It may be behind the store by milliseconds, and by more while NATS is away. Before it says "there
// is none" or "the signature is wrong" to Bitbucket, the ingress reads once from the leader.
//
// Depends on pkg/kv and natsstore.
package roster

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"devpilot.io/bitbucket/pkg/kv"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
	"devpilot.io/bitbucket/services/webhook/internal/natsstore"
)

type mirror = kv.Mirror[storev1.WebhookRecord, *storev1.WebhookRecord]

// Roster is safe for concurrent use. The records it hands out are shared: do not modify them.
type Roster struct {
	mirror   atomic.Pointer[mirror]
	onChange []func(*storev1.WebhookRecord)

	mu   sync.RWMutex
	byID map[string]*storev1.WebhookRecord
	keys map[string]string // key of the bucket → id
}

// New makes an empty roster; Run fills it.
func New() *Roster {
	return &Roster{byID: map[string]*storev1.WebhookRecord{}, keys: map[string]string{}}
}

// OnChange has fn called with every webhook that Run sees new or changed, one call at a time. fn
// must not block. Call it before Run.
func (r *Roster) OnChange(fn func(*storev1.WebhookRecord)) { r.onChange = append(r.onChange, fn) }

// Run keeps the roster up to date until ctx is done.
func (r *Roster) Run(ctx context.Context, bucket *natsstore.Webhooks) error {
	m := kv.NewMirror(bucket)
	m.OnChange(r.apply)
	r.mirror.Store(m)
	return m.Run(ctx)
}

func (r *Roster) apply(key string, rec *storev1.WebhookRecord) {
	r.mu.Lock()
	if rec == nil {
		delete(r.byID, r.keys[key])
		delete(r.keys, key)
	} else {
		r.byID[rec.GetId()] = rec
		r.keys[key] = rec.GetId()
	}
	r.mu.Unlock()
	if rec == nil {
		return
	}
	for _, fn := range r.onChange {
		fn(rec)
	}
}

// Ready is nil once all webhooks have been seen. Until then Find's "none" means nothing.
func (r *Roster) Ready(ctx context.Context) error {
	m := r.mirror.Load()
	if m == nil {
		return fmt.Errorf("%w: not watching yet", kv.ErrNotReady)
	}
	return m.Ready(ctx)
}

// Find returns the webhook of an id, or nil.
func (r *Roster) Find(id string) *storev1.WebhookRecord {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.byID[id]
}

// All is a snapshot of all webhooks, in no order.
func (r *Roster) All() []*storev1.WebhookRecord {
	r.mu.RLock()
	defer r.mu.RUnlock()
	all := make([]*storev1.WebhookRecord, 0, len(r.byID))
	for _, rec := range r.byID {
		all = append(all, rec)
	}
	return all
}
