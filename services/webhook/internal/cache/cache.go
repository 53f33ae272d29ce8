// Package cache keeps all webhooks in memory, decoded, so that a delivery finds its webhook without asking
// anybody, and so that whoever works on webhooks learns what is due.
//
// It may be behind the store by milliseconds, and by more while NATS is away. Before it says "there
// is none" or "the signature is wrong" to Bitbucket, the ingress reads once from the leader.
//
// It hears of changes from the store's copy of the bucket (natsstore.Store.OnWebhook), which keeps records as
// they are stored: the ingress asks by the id alone, for every delivery, and takes the record as it is
// decoded.
//
// Depends on natsstore and pkg/bitbucket.
package cache

import (
	"context"
	"sync"

	"devpilot.io/bitbucket/pkg/bitbucket"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/webhook/store/v1"
	"devpilot.io/bitbucket/services/webhook/internal/natsstore"
)

// Webhooks is safe for concurrent use. The records it hands out are shared: do not modify them.
type Webhooks struct {
	store    *natsstore.Store
	onChange []func(*storev1.WebhookRecord)

	mu   sync.RWMutex
	byID map[string]*storev1.WebhookRecord
	keys map[string]string // key of the bucket → id
	// hooks are the webhooks by their hook's UUID at Bitbucket, without those that have none.
	hooks map[string]*storev1.WebhookRecord
}

// New makes an empty cache, which the store's RunCopies fills. The store is not open yet.
func New(store *natsstore.Store) *Webhooks {
	c := &Webhooks{store: store, byID: map[string]*storev1.WebhookRecord{}, keys: map[string]string{}, hooks: map[string]*storev1.WebhookRecord{}}
	store.OnWebhook(c.apply)
	return c
}

// OnChange has fn called with every webhook that is seen new or changed, one call at a time. fn
// must not block. Call it before the store is opened.
func (c *Webhooks) OnChange(fn func(*storev1.WebhookRecord)) { c.onChange = append(c.onChange, fn) }

func (c *Webhooks) apply(key string, rec *storev1.WebhookRecord) {
	c.mu.Lock()
	if was := c.byID[c.keys[key]]; was != nil && c.hooks[hookOf(was)] == was {
		delete(c.hooks, hookOf(was))
	}
	if uuid := hookOf(rec); uuid != "" {
		c.hooks[uuid] = rec
	}
	if rec == nil {
		delete(c.byID, c.keys[key])
		delete(c.keys, key)
	} else {
		c.byID[rec.GetId()] = rec
		c.keys[key] = rec.GetId()
	}
	c.mu.Unlock()
	if rec == nil {
		return
	}
	for _, fn := range c.onChange {
		fn(rec)
	}
}

// Ready is nil once all webhooks have been seen. Until then Find's "none" means nothing.
func (c *Webhooks) Ready(context.Context) error { return c.store.WebhooksKnown() }

// Find returns the webhook of an id, or nil.
func (c *Webhooks) Find(id string) *storev1.WebhookRecord {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.byID[id]
}

func hookOf(rec *storev1.WebhookRecord) string {
	return bitbucket.NormalizeUUID(rec.GetBitbucketUuid())
}

// FindHook returns the webhook whose hook at Bitbucket has a UUID, normalised, or nil.
func (c *Webhooks) FindHook(uuid string) *storev1.WebhookRecord {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.hooks[uuid]
}

// Len is how many webhooks there are.
func (c *Webhooks) Len() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.byID)
}

// All is a snapshot of all webhooks, in no order.
func (c *Webhooks) All() []*storev1.WebhookRecord {
	c.mu.RLock()
	defer c.mu.RUnlock()
	all := make([]*storev1.WebhookRecord, 0, len(c.byID))
	for _, rec := range c.byID {
		all = append(all, rec)
	}
	return all
}
