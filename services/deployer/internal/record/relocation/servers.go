package relocation

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

// Server is how a server stands.
type Server struct {
	Name string `json:"name"`
	// Workers is how many of its workers are heard.
	Workers int `json:"workers"`
	// LastHeard is when the last one was; absent where none was within an hour.
	LastHeard *time.Time `json:"lastHeard,omitempty"`
	// Apps is how many apps are deployed on it, Live how many live releases it has.
	Apps int `json:"apps"`
	Live int `json:"live"`
	// Unfinished is how many deployments wait for it or run on it.
	Unfinished int `json:"unfinished"`
	// DiskFreeMiB is the room on its fullest disk, as its workers saw it; absent where they do not look.
	DiskFreeMiB *int32 `json:"diskFreeMib,omitempty"`
}

// Servers lists all servers, by name.
func (m *Mover) Servers(ctx context.Context) ([]Server, error) {
	servers, err := m.servers(ctx)
	if err != nil {
		return nil, err
	}
	at := map[string]*Server{}
	for i := range servers {
		at[servers[i].Name] = &servers[i]
	}
	of := func(name string) *Server {
		if at[name] == nil {
			at[name] = &Server{Name: name} // no worker has ever served it
		}
		return at[name]
	}
	err = m.Store.Apps.Each(ctx, ">", func(_ string, a *storev1.App, _ uint64) error {
		of(a.GetServer()).Apps++
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the apps: %w", err)
	}
	err = m.Store.Lanes.Each(ctx, ">", func(_ string, l *storev1.Lane, _ uint64) error {
		if live := l.GetLive(); live != nil && !live.GetLost() && !l.GetRetired() {
			of(live.GetServer()).Live++
		}
		for _, job := range []*storev1.Job{l.GetRunning().GetJob(), l.GetAhead(), l.GetWaiting()} {
			if job != nil {
				of(job.GetServer()).Unfinished++
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the lanes: %w", err)
	}
	out := make([]Server, 0, len(at))
	for _, name := range slices.Sorted(maps.Keys(at)) {
		out = append(out, *at[name])
	}
	return out, nil
}

// servers are those that a worker ever served, by their signs of life.
func (m *Mover) servers(ctx context.Context) ([]Server, error) {
	var out []Server
	err := m.Store.Servers.Each(ctx, ">", func(name string, _ *storev1.Server, _ uint64) error {
		out = append(out, Server{Name: name})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the servers: %w", err)
	}
	err = m.Store.Workers.Each(ctx, ">", func(name string, w *storev1.Workers, _ uint64) error {
		if s := find(out, name); s != nil {
			s.hear(w, m.Now(), m.Alive)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the workers: %w", err)
	}
	return out, nil
}

func (s *Server) hear(workers *storev1.Workers, now time.Time, alive time.Duration) {
	for _, w := range workers.GetWorkers() {
		seen := w.GetSeenTime().AsTime()
		if s.LastHeard == nil || seen.After(*s.LastHeard) {
			s.LastHeard = &seen
		}
		if now.Sub(seen) > alive {
			continue
		}
		s.Workers++
		if w.DiskFreeMib != nil && (s.DiskFreeMiB == nil || *w.DiskFreeMib < *s.DiskFreeMiB) {
			s.DiskFreeMiB = w.DiskFreeMib
		}
	}
}
