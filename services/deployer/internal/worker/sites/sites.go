// Package sites knows what is served of the releases on this server's disk. It reads the record that
// stands beside them (release.Site), and no store: visitors are answered while NATS and the control
// plane are away, also by a worker that starts meanwhile.
//
// Releases of other servers are found in the watched copies, which ask nobody either, and forwarded to the
// addresses that workers announced (hosting.ElsewhereError).
//
// The record is written at the switch of a release, and when the app or its lane changes: both are
// watched. Several workers of one data directory see each other's records, because every request looks
// at the file's stamp. A request also waits, a moment at most, for what its own process has just saved.
//
// Depends on internal/engine/release, internal/record and pkg/kv.
package sites

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/services/deployer/internal/engine/hosting"
	"devpilot.io/bitbucket/services/deployer/internal/engine/release"
	"devpilot.io/bitbucket/services/deployer/internal/record/store"
)

const (
	// remembered is how many apps' records are kept in memory.
	remembered = 10_000
	// catchUp is how long a request waits for the record of what its own process saved.
	catchUp = time.Second
	// retryPause is how long a record that could not be written waits for the next try.
	retryPause = time.Second
)

// errUnknown says that the records of this server are not all here yet.
var errUnknown = errors.New("sites: what is served is not known yet")

// Servers knows where workers serve the releases of their server.
type Servers interface {
	LiveAddresses(server string) []string
}

// Registry is safe for concurrent use.
type Registry struct {
	releases *release.Store
	server   string
	logger   *slog.Logger
	cache    *lru.Cache[string, cached]
	catchUp  time.Duration

	mu      sync.Mutex
	copies  *store.Copies
	servers Servers
	pending map[string]struct{} // keys that changed, and are not written yet
	writing map[string]struct{} // keys that are written at the moment, as they were when that began
	changed chan struct{}       // closed and made anew when pending or writing changes
	all     bool                // every app was read once
}

type cached struct {
	stamp release.SiteStamp
	site  *release.Site
}

// New makes a registry over a server's data directory.
func New(releases *release.Store, server string, logger *slog.Logger) *Registry {
	cache, err := lru.New[string, cached](remembered)
	if err != nil {
		panic(err) // the size is positive
	}
	return &Registry{releases: releases, server: server, logger: logger, cache: cache, catchUp: catchUp, pending: map[string]struct{}{}, writing: map[string]struct{}{}, changed: make(chan struct{})}
}

// Site implements hosting.Sites. What this disk holds and its record says is served from here. Where that
// is not the release that was asked for, the lane tells which server has it: of two that have a live
// release of an app, the one that switched last.
func (r *Registry) Site(ctx context.Context, workspace, app string, number int32) (hosting.Site, error) {
	key := workspace + "." + app
	r.awaitSaved(ctx, key)
	site, err := r.here(workspace, app, number)
	if !errors.Is(err, hosting.ErrNotFound) && !errors.Is(err, hosting.ErrNotServed) && !errors.Is(err, hosting.ErrGone) {
		return site, err
	}
	r.mu.Lock()
	copies := r.copies
	r.mu.Unlock()
	if copies == nil {
		return site, errUnknown
	}
	place, ok := copies.ServedOn(key, number)
	switch {
	case !ok:
		return site, errUnknown
	case place.Moving:
		return site, hosting.ErrMoving
	case place.Server != "" && place.Server != r.server:
		return site, &hosting.ElsewhereError{Server: place.Server}
	}
	return site, err
}

// Addresses are where workers of another server serve its releases.
func (r *Registry) Addresses(server string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.servers == nil {
		return nil
	}
	return r.servers.LiveAddresses(server)
}

// here finds a release on this server's disk.
func (r *Registry) here(workspace, app string, number int32) (hosting.Site, error) {
	site, err := r.read(workspace, app)
	if err != nil {
		return hosting.Site{}, err
	}
	if site == nil {
		if !r.complete() {
			return hosting.Site{}, errUnknown
		}
		return hosting.Site{}, hosting.ErrNotFound
	}
	current, err := r.releases.Current(workspace, app)
	if err != nil {
		return hosting.Site{}, err
	}
	live := byDirectory(site, current)
	kept, err := find(site, live, number)
	if errors.Is(err, hosting.ErrGone) && (live == nil || live.Serve == "") {
		return hosting.Site{}, hosting.ErrNotServed // who asks must not learn that there is such an app
	}
	if err != nil {
		return hosting.Site{}, err
	}
	if kept.Serve == "" {
		return hosting.Site{}, hosting.ErrNotServed
	}
	root, err := r.releases.Open(workspace, app, kept.Directory)
	if errors.Is(err, release.ErrNotKept) {
		return hosting.Site{}, hosting.ErrGone
	}
	if err != nil {
		return hosting.Site{}, err
	}
	return hosting.Site{
		Release: root, Directory: kept.Serve, Fallback: kept.Fallback, Number: kept.Number, Live: number == 0,
		Version: fmt.Sprintf("%d.%s.%s", site.Generation, kept.Directory, kept.Hash),
		Shared: hosting.Shared{
			Links: release.SharedLinks(kept.Shared),
			Open:  func() (*os.Root, error) { return r.releases.OpenShared(workspace, app) },
		},
	}, nil
}

// find finds a kept release, 0 being the live one.
func find(site *release.Site, live *release.SiteRelease, number int32) (*release.SiteRelease, error) {
	if number == 0 {
		switch {
		case site.Elsewhere != "":
			return nil, hosting.ErrGone
		case live == nil:
			return nil, hosting.ErrNotFound
		}
		return live, nil
	}
	for i := range site.Releases {
		if site.Releases[i].Number == number {
			return &site.Releases[i], nil
		}
	}
	if number > site.Last {
		return nil, hosting.ErrNotFound
	}
	return nil, hosting.ErrGone
}

func byDirectory(site *release.Site, directory string) *release.SiteRelease {
	for i := len(site.Releases) - 1; i >= 0; i-- {
		if site.Releases[i].Directory == directory {
			return &site.Releases[i]
		}
	}
	return nil
}

// read returns an app's record, from memory while the file is the same.
func (r *Registry) read(workspace, app string) (*release.Site, error) {
	key := workspace + "." + app
	stamp, err := r.releases.SiteStamp(workspace, app)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if c, ok := r.cache.Get(key); ok && c.stamp.Same(stamp) {
		return c.site, nil
	}
	site, err := r.releases.Site(workspace, app)
	if err == nil {
		r.cache.Add(key, cached{stamp, site}) // of this version or a newer one, which then is read again
	}
	return site, err
}

func (r *Registry) complete() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.all
}

// awaitSaved waits until what this process saved of an app stands in its record.
func (r *Registry) awaitSaved(ctx context.Context, key string) {
	r.mu.Lock()
	copies := r.copies
	r.mu.Unlock()
	if copies == nil {
		return
	}
	copies.Apps.CaughtUp(ctx)
	copies.Lanes.CaughtUp(ctx)
	t := time.NewTimer(r.catchUp)
	defer t.Stop()
	for {
		r.mu.Lock()
		_, waits := r.pending[key]
		_, written := r.writing[key]
		changed := r.changed
		r.mu.Unlock()
		if !waits && !written {
			return
		}
		select {
		case <-changed:
		case <-t.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// touch notes that an app or its lane changed.
func (r *Registry) touch(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pending[key] = struct{}{}
	r.wake()
}

func (r *Registry) wake() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// Run writes the records of this server's apps as they change, until ctx is done. From then on releases of
// other servers are found too.
func (r *Registry) Run(ctx context.Context, copies *store.Copies, servers Servers) error {
	r.mu.Lock()
	r.copies, r.servers = copies, servers
	r.mu.Unlock()
	defer copies.OnAppChange(r.touch)()
	// Apps that were deleted while nobody watched have a record and no change to tell of it.
	if err := r.releases.Sites(func(workspace, app string) { r.touch(workspace + "." + app) }); err != nil {
		return err
	}
	r.touchAll(ctx, copies)
	for ctx.Err() == nil {
		keys, changed, ready := r.waiting(ctx, copies)
		for _, key := range keys {
			if !r.write(ctx, copies, key) {
				ready = false
			}
		}
		r.mu.Lock()
		r.all = r.all || ready
		left := len(r.pending)
		r.mu.Unlock()
		again := (<-chan time.Time)(nil)
		if left > 0 || !ready {
			again = time.After(retryPause)
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-again:
		}
	}
	return nil
}

// touchAll has every app of the copies saved: they may have been filled before anybody listened.
func (r *Registry) touchAll(ctx context.Context, copies *store.Copies) {
	view, err := copies.Lanes.AtLeast(ctx, 0)
	if err != nil || !view.FromCopy() {
		return // the pass that is to come tells of them
	}
	keys, err := view.Keys(ctx, "", "", 0)
	if err != nil {
		return
	}
	for _, key := range keys {
		r.touch(key)
	}
}

// waiting returns the keys to write, and whether the copies hold all apps.
func (r *Registry) waiting(ctx context.Context, copies *store.Copies) (keys []string, changed <-chan struct{}, ready bool) {
	ready = copies.Apps.Ready(ctx) == nil && copies.Lanes.Ready(ctx) == nil
	r.mu.Lock()
	defer r.mu.Unlock()
	changed = r.changed
	if !ready {
		return nil, changed, false // half a picture would take sites away
	}
	for key := range r.pending {
		keys = append(keys, key)
	}
	return keys, changed, true
}

// write brings one app's record up to date. It is tried again when that fails.
func (r *Registry) write(ctx context.Context, copies *store.Copies, key string) bool {
	workspace, app, _ := strings.Cut(key, ".")
	r.mu.Lock()
	delete(r.pending, key) // what changes from here on is saved again
	r.writing[key] = struct{}{}
	r.mu.Unlock()
	err := r.derive(ctx, copies, key, workspace, app)
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.writing, key)
	if err == nil {
		r.wake() // else the one that is to come after a pause does
	}
	if err != nil && ctx.Err() == nil {
		r.logger.WarnContext(ctx, "what is served was not brought up to date", slog.String(logs.KeyWorkspace, workspace), slog.String(logs.KeyApp, app), logs.Err(err))
		r.pending[key] = struct{}{}
	}
	return err == nil
}

func (r *Registry) derive(ctx context.Context, copies *store.Copies, key, workspace, app string) error {
	apps, err := copies.Apps.AtLeast(ctx, 0)
	if err != nil {
		return err
	}
	lanes, err := copies.Lanes.AtLeast(ctx, 0)
	if err != nil {
		return err
	}
	a, appRev, err := apps.Get(ctx, key)
	if errors.Is(err, kv.ErrNotFound) {
		return r.releases.RemoveSite(ctx, workspace, app, 0)
	}
	if err != nil {
		return err
	}
	l, laneRev, err := lanes.Get(ctx, key)
	if errors.Is(err, kv.ErrNotFound) {
		return nil // nothing was deployed yet
	}
	if err != nil {
		return err
	}
	if l.GetGeneration() != a.GetGeneration() || l.GetRetired() {
		return r.releases.RemoveSite(ctx, workspace, app, min(l.GetGeneration(), a.GetGeneration()))
	}
	if l.GetDeparture().GetServer() == r.server {
		if err := r.releases.Fence(ctx, workspace, app, l.GetEpoch()); err != nil {
			return err
		}
	}
	site := Describe(a, l, r.server)
	site.App, site.Lane = appRev, laneRev
	return r.releases.SetSite(ctx, workspace, app, site, release.Runs{Newest: l.GetEpoch(), Running: l.GetRunning().GetEpoch()})
}
