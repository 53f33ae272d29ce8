package notify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/seal"
	gatewaystorev1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/store/v1"
	gatewayv1 "devpilot.io/bitbucket/proto/gen/devpilot/gateway/v1"
)

// Names of the buckets.
const (
	targetsBucket = "gateway_notification_targets"
	streaksBucket = "gateway_notification_streaks"
	queuesBucket  = "gateway_notification_queues"
)

// Buckets are all buckets of the package.
func Buckets() []string { return []string{targetsBucket, streaksBucket, queuesBucket} }

// readyEvery is how often it is looked whether the targets are read, at the start.
const readyEvery = 20 * time.Millisecond

// Store keeps targets, what was told, and what is to be sent. Open it before use; then it is safe for
// concurrent use. What it returns to the API is an *apierr.Error.
type Store struct {
	js     jetstream.JetStream
	keyset *seal.Keyset
	logger *slog.Logger
	now    func() time.Time

	targets *kv.Bucket[gatewaystorev1.NotificationTargets, *gatewaystorev1.NotificationTargets]
	streaks *kv.Bucket[gatewaystorev1.NotificationStreak, *gatewaystorev1.NotificationStreak]
	queues  *kv.Bucket[gatewaystorev1.NotificationQueue, *gatewaystorev1.NotificationQueue]

	counted *prometheus.CounterVec // see metrics.go

	known   *kv.Mirror[gatewaystorev1.NotificationTargets, *gatewaystorev1.NotificationTargets]
	changed chan struct{} // a target came or went
}

// StoreConfig is what NewStore needs.
type StoreConfig struct {
	JS         jetstream.JetStream
	Keyset     *seal.Keyset // seals URLs and secrets
	Logger     *slog.Logger
	Registerer prometheus.Registerer // nil: no metrics
	Now        func() time.Time
}

// NewStore makes a store that is not open yet.
func NewStore(c StoreConfig) (*Store, error) {
	counted, err := newCounter(c.Registerer)
	if err != nil {
		return nil, fmt.Errorf("notify: register metrics: %w", err)
	}
	return &Store{js: c.JS, keyset: c.Keyset, logger: c.Logger, now: c.Now, counted: counted, changed: make(chan struct{}, 1)}, nil
}

// Open creates the buckets or brings their settings up to date. It can be repeated.
func (s *Store) Open(ctx context.Context) (err error) {
	cfg := targetsConfig(s.logger)
	if s.targets, err = kv.Open[gatewaystorev1.NotificationTargets](ctx, s.js, cfg); err != nil {
		return err
	}
	cfg.Name, cfg.Inventory = streaksBucket, ""
	if s.streaks, err = kv.Open[gatewaystorev1.NotificationStreak](ctx, s.js, cfg); err != nil {
		return err
	}
	cfg.Name = queuesBucket
	if s.queues, err = kv.Open[gatewaystorev1.NotificationQueue](ctx, s.js, cfg); err != nil {
		return err
	}
	s.known = kv.NewMirror(s.targets)
	s.known.OnChange(func(string, *gatewaystorev1.NotificationTargets) {
		select {
		case s.changed <- struct{}{}:
		default: // told already
		}
	})
	return nil
}

// Run keeps what is known of the targets up to date, and calls work while anybody wants to hear of
// anything, until ctx is done.
func (s *Store) Run(ctx context.Context, work func(context.Context) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.known.Run(ctx) })
	group.Go(func() error {
		for s.known.Ready(ctx) != nil { // what is not known yet must not be taken for not wanted
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(readyEvery):
			}
		}
		for s.await(ctx, true) {
			wanted, cancel := context.WithCancel(ctx)
			ended := make(chan error, 1)
			go func() { ended <- work(wanted) }()
			var watch sync.WaitGroup
			watch.Go(func() {
				if s.await(wanted, false) {
					cancel()
				}
			})
			err := <-ended
			cancel()
			watch.Wait()
			if err != nil && ctx.Err() == nil {
				return err
			}
		}
		return nil
	})
	return group.Wait()
}

// await returns true once it is so whether anybody wants to hear of anything, false when ctx is done.
func (s *Store) await(ctx context.Context, wanted bool) bool {
	for {
		if s.wanted() == wanted {
			return ctx.Err() == nil
		}
		select {
		case <-ctx.Done():
			return false
		case <-s.changed:
		}
	}
}

func (s *Store) wanted() bool {
	for _, list := range s.known.All() {
		if len(active(list)) > 0 {
			return true
		}
	}
	return false
}

// workspaces lists those in which somebody wants to hear of one of the events.
func (s *Store) workspaces(events ...gatewayv1.NotificationTarget_Event) []string {
	var list []string
	for workspace, targets := range s.known.All() {
		if wants(targets, "", events...) {
			list = append(list, workspace)
		}
	}
	return list
}

// wanting is whether a target of the workspace wants to hear of one of the events about the app, of
// what happened at that time. An empty app is any.
func (s *Store) wanting(workspace, app string, events ...gatewayv1.NotificationTarget_Event) bool {
	list, _, _ := s.known.Get(workspace)
	return wants(list, app, events...)
}

// since is when the first of the workspace's targets was made.
func (s *Store) since(workspace string) time.Time {
	list, _, _ := s.known.Get(workspace)
	if len(list.GetTargets()) == 0 {
		return time.Time{}
	}
	return list.GetTargets()[0].GetPublic().GetCreateTime().AsTime()
}

func active(list *gatewaystorev1.NotificationTargets) []*gatewaystorev1.NotificationTarget {
	var out []*gatewaystorev1.NotificationTarget
	for _, t := range list.GetTargets() {
		if t.GetPublic().GetActive() {
			out = append(out, t)
		}
	}
	return out
}

func wants(list *gatewaystorev1.NotificationTargets, app string, events ...gatewayv1.NotificationTarget_Event) bool {
	for _, t := range active(list) {
		for _, e := range events {
			if wantsOne(t.GetPublic(), app, e) {
				return true
			}
		}
	}
	return false
}

func wantsOne(t *gatewayv1.NotificationTarget, app string, event gatewayv1.NotificationTarget_Event) bool {
	return slices.Contains(t.GetEvents(), event) && (app == "" || len(t.GetApps()) == 0 || slices.Contains(t.GetApps(), app))
}

// read is the workspace's record as it is now; empty when there is none.
func (s *Store) read(ctx context.Context, workspace string) (*gatewaystorev1.NotificationTargets, error) {
	list, _, err := s.targets.Get(ctx, workspace)
	if errors.Is(err, kv.ErrNotFound) {
		return &gatewaystorev1.NotificationTargets{}, nil
	}
	return list, err
}

// Forget drops all that there is of a workspace: it is being deleted, and nobody wants to hear of what that breaks. It
// walks buckets by the workspace's prefix: nobody waits for it.
func (s *Store) Forget(ctx context.Context, workspace string) error {
	err := s.targets.Delete(ctx, workspace, 0)
	if err != nil && !errors.Is(err, kv.ErrNotFound) {
		return kv.ToAPI(err)
	}
	below := kv.EncodeKey(workspace) + ".>"
	for key, err := range s.queues.Keys(ctx, below) {
		if err == nil {
			err = s.queues.Delete(ctx, key, 0)
		}
		if err != nil && !errors.Is(err, kv.ErrNotFound) {
			return kv.ToAPI(err)
		}
	}
	for key, err := range s.streaks.Keys(ctx, below) {
		if err == nil {
			err = s.streaks.Delete(ctx, key, 0)
		}
		if err != nil && !errors.Is(err, kv.ErrNotFound) {
			return kv.ToAPI(err)
		}
	}
	return nil
}

func queueKey(workspace, target string) string { return kv.EncodeKey(workspace, target) }

func streakKey(workspace string, thing ...string) string {
	return kv.EncodeKey(append([]string{workspace}, thing...)...)
}

func ofQueue(key string) (workspace, target string, ok bool) {
	parts, err := kv.DecodeKey(key)
	if err != nil || len(parts) != 2 {
		return "", "", false
	}
	return parts[0], parts[1], true
}

// clip shortens a text to at most n characters on one line.
func clip(text string, n int) string {
	text = strings.Join(strings.Fields(text), " ")
	if r := []rune(text); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return text
}
