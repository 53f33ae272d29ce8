// Package fleet knows the servers and their workers: who serves which data directory, and who gave
// a sign of life lately.
//
// Depends on pkg/kv.
package fleet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/logs"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

const (
	// Alive is how old a worker's last sign of life may be.
	Alive = time.Minute
	// beat is how often a worker gives one; forget is when a silent one leaves the list.
	beat   = 10 * time.Second
	forget = time.Hour // after which a silent worker is no longer shown
	// DefaultServer is the first server's name.
	DefaultServer = "default"
)

// Registry is the list of servers and workers. It reads from memory.
type Registry struct {
	servers *kv.Bucket[storev1.Server, *storev1.Server]
	workers *kv.Bucket[storev1.Workers, *storev1.Workers]
	known   *kv.Mirror[storev1.Server, *storev1.Server]
	alive   *kv.Mirror[storev1.Workers, *storev1.Workers]
	log     *slog.Logger
	now     func() time.Time
	newest  atomic.Int64 // the newest sign of life of any worker, in nanoseconds
}

// New prepares a registry; Run fills it.
func New(servers *kv.Bucket[storev1.Server, *storev1.Server], workers *kv.Bucket[storev1.Workers, *storev1.Workers], log *slog.Logger, now func() time.Time) *Registry {
	r := &Registry{servers: servers, workers: workers, known: kv.NewMirror(servers), alive: kv.NewMirror(workers), log: log, now: now}
	r.alive.OnChange(r.noteSigns)
	return r
}

// noteSigns is called for one change at a time.
func (r *Registry) noteSigns(_ string, workers *storev1.Workers) {
	for _, w := range workers.GetWorkers() {
		r.newest.Store(max(r.newest.Load(), w.GetSeenTime().AsTime().UnixNano()))
	}
}

// Run keeps the list up to date until ctx is done.
func (r *Registry) Run(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { done <- r.known.Run(ctx) }()
	return errors.Join(r.alive.Run(ctx), <-done)
}

// Ready is nil once the list is known.
func (r *Registry) Ready(ctx context.Context) error {
	return errors.Join(r.known.Ready(ctx), r.alive.Ready(ctx))
}

// Join ties a data directory to a server, or checks the tie: a directory with another id than the
// server's record holds other releases, and is refused.
func (r *Registry) Join(ctx context.Context, server, directory string) error {
	rec, _, err := r.servers.Update(ctx, server, func(cur *storev1.Server) (*storev1.Server, error) {
		if cur != nil {
			return nil, kv.ErrSkip
		}
		return &storev1.Server{Id: server, DataDirectory: directory, CreateTime: timestamppb.New(r.now())}, nil
	})
	if err != nil {
		return fmt.Errorf("fleet: join server %s: %w", server, err)
	}
	if rec.GetDataDirectory() != directory {
		return &MismatchError{Server: server, Has: rec.GetDataDirectory(), Got: directory}
	}
	return nil
}

// Restored tells whether the stores were restored from a backup and no worker of the server has looked since what its data
// directory holds.
func (r *Registry) Restored(ctx context.Context, server string) (bool, error) {
	rec, _, err := r.servers.Get(ctx, server)
	if errors.Is(err, kv.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("fleet: read server %s: %w", server, err)
	}
	return rec.GetRestored(), nil
}

// Adopt ties a data directory to a server that was restored, whichever it had before: what of its releases is there was
// found out.
func (r *Registry) Adopt(ctx context.Context, server, directory string) error {
	_, _, err := r.servers.Update(ctx, server, func(cur *storev1.Server) (*storev1.Server, error) {
		if !cur.GetRestored() {
			return nil, kv.ErrSkip // another worker was faster; Join compares
		}
		cur.DataDirectory, cur.Restored = directory, false
		return cur, nil
	})
	if err != nil {
		return fmt.Errorf("fleet: adopt the data directory of server %s: %w", server, err)
	}
	return nil
}

// MismatchError says that a worker was started on a data directory that is not its server's.
type MismatchError struct{ Server, Has, Got string }

// Error implements error.
func (e *MismatchError) Error() string {
	return fmt.Sprintf("fleet: the data directory's id is %s, but server %q keeps its releases in the one with id %s: mount that one, or give this worker another --server", e.Got, e.Server, e.Has)
}

// Worker describes a worker of ours.
type Worker struct {
	Server, ID, Host, Version string
	HookRunner                string // how it runs deployment hooks, for people; empty: not at all
	LiveAddress               string // where workers of other servers reach the releases that it serves; empty: it serves none
	LiveEncrypted             bool   // whether it takes encrypted connections there
	Slots                     int
	Busy                      func() int32
	Disk                      func() (free, reserve uint64, err error) // of where it puts releases; nil: it does not look
}

// Beat gives signs of life until ctx is done, then takes the worker off the list.
func (r *Registry) Beat(ctx context.Context, w Worker) error {
	t := time.NewTicker(beat)
	defer t.Stop()
	for {
		if err := r.sign(ctx, w); err != nil && ctx.Err() == nil {
			r.log.WarnContext(ctx, "no sign of life given", logs.Err(err))
		}
		select {
		case <-ctx.Done():
			leave, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			_, _, err := r.workers.Update(leave, w.Server, func(cur *storev1.Workers) (*storev1.Workers, error) {
				if _, ok := cur.GetWorkers()[w.ID]; !ok {
					return nil, kv.ErrSkip
				}
				delete(cur.Workers, w.ID)
				return cur, nil
			})
			if err != nil {
				r.log.WarnContext(ctx, "worker stays on the list for a while", logs.Err(err))
			}
			return nil
		case <-t.C:
		}
	}
}

func (r *Registry) sign(ctx context.Context, w Worker) error {
	now := r.now()
	sign := &storev1.Worker{Host: w.Host, Slots: int32(w.Slots), Busy: w.Busy(), Version: w.Version, SeenTime: timestamppb.New(now), HookRunner: w.HookRunner, LiveAddress: w.LiveAddress, LiveEncrypted: w.LiveEncrypted} // slots are few
	r.room(ctx, w, sign)
	_, _, err := r.workers.Update(ctx, w.Server, func(cur *storev1.Workers) (*storev1.Workers, error) {
		if cur == nil {
			cur = &storev1.Workers{}
		}
		if cur.Workers == nil {
			cur.Workers = map[string]*storev1.Worker{}
		}
		maps.DeleteFunc(cur.Workers, func(_ string, x *storev1.Worker) bool { return now.Sub(x.GetSeenTime().AsTime()) > forget })
		cur.Workers[w.ID] = proto.CloneOf(sign)
		return cur, nil
	})
	return err
}

// room says how much is left on the worker's disk, as far as it looks.
func (r *Registry) room(ctx context.Context, w Worker, sign *storev1.Worker) {
	if w.Disk == nil {
		return
	}
	free, reserve, err := w.Disk()
	if err != nil {
		r.log.WarnContext(ctx, "disk not looked at", logs.Err(err))
		return
	}
	sign.DiskFreeMib, sign.DiskReserveMib = proto.Int32(mib(free)), mib(reserve)
}

// reserveOf is how much is to stay free, of a worker that looks.
func reserveOf(w *storev1.Worker) *int32 {
	if w.DiskFreeMib == nil {
		return nil
	}
	return &w.DiskReserveMib
}

func mib(bytes uint64) int32 { return int32(min(bytes>>20, math.MaxInt32)) } //nolint:gosec // bounded

// Known tells whether a server exists: one that a worker ever served, or the default one.
func (r *Registry) Known(ctx context.Context, server string) (bool, error) {
	if server == DefaultServer {
		return true, nil
	}
	if _, _, ok := r.known.Get(server); ok {
		return true, nil
	}
	_, _, err := r.servers.Get(ctx, server)
	if errors.Is(err, kv.ErrNotFound) || errors.Is(err, kv.ErrBadKey) {
		return false, nil
	}
	return err == nil, err
}

// Offline tells that no worker of the server gave a sign of life lately, and since when; not known
// before the list is.
func (r *Registry) Offline(server string) (since time.Time, offline bool) {
	if r.alive.Ready(context.Background()) != nil {
		return time.Time{}, false
	}
	rec, _, _ := r.alive.Get(server)
	for _, w := range rec.GetWorkers() {
		if seen := w.GetSeenTime().AsTime(); seen.After(since) {
			since = seen
		}
	}
	return since, r.now().Sub(since) > Alive
}

// LiveAddresses are where workers of a server serve its releases, as hosting.Config has them, those first that gave a sign of life
// lately. Signs are compared with the newest of any worker and not with the clock: while the store is away
// nobody gives one, and everybody may live.
func (r *Registry) LiveAddresses(server string) []string {
	rec, _, _ := r.alive.Get(server)
	newest := time.Unix(0, r.newest.Load())
	var alive, silent []string
	for _, id := range slices.Sorted(maps.Keys(rec.GetWorkers())) {
		w := rec.GetWorkers()[id]
		switch age := newest.Sub(w.GetSeenTime().AsTime()); {
		case w.GetLiveAddress() == "" || age > forget:
		case age > Alive:
			silent = append(silent, liveAddress(w))
		default:
			alive = append(alive, liveAddress(w))
		}
	}
	return append(alive, silent...)
}

func liveAddress(w *storev1.Worker) string {
	if w.GetLiveEncrypted() {
		return "https://" + w.GetLiveAddress()
	}
	return "http://" + w.GetLiveAddress()
}

// HookRunner says how a server runs deployment hooks; empty when one of its live workers cannot.
func (r *Registry) HookRunner(server string) string {
	rec, _, _ := r.alive.Get(server)
	runner := ""
	for _, w := range rec.GetWorkers() {
		if r.now().Sub(w.GetSeenTime().AsTime()) > Alive {
			continue
		}
		if runner = w.GetHookRunner(); runner == "" {
			return ""
		}
	}
	return runner
}

// List describes all servers, by name.
func (r *Registry) List() []*deployerv1.Server {
	known := r.known.All()
	var out []*deployerv1.Server
	for _, name := range slices.Sorted(maps.Keys(known)) {
		s := &deployerv1.Server{Id: name}
		rec, _, _ := r.alive.Get(name)
		for _, id := range slices.Sorted(maps.Keys(rec.GetWorkers())) {
			w := rec.GetWorkers()[id]
			seen := w.GetSeenTime()
			if s.GetLastSeenTime() == nil || seen.AsTime().After(s.GetLastSeenTime().AsTime()) {
				s.LastSeenTime = seen
			}
			if r.now().Sub(seen.AsTime()) <= Alive {
				s.Workers = append(s.Workers, &deployerv1.Worker{Id: id, Host: w.GetHost(), Slots: w.GetSlots(), Busy: w.GetBusy(), LastSeenTime: seen, Version: w.GetVersion(), HookRunner: w.GetHookRunner(), DiskFreeMib: w.DiskFreeMib, DiskReserveMib: reserveOf(w)})
			}
		}
		out = append(out, s)
	}
	return out
}
