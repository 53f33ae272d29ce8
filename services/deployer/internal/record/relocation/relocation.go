// Package relocation moves the apps of a server that died to another one, on an operator's word. It works on the
// stores alone, beside processes that run. Each app's lane decides in one write (lane.Depart); what follows from
// that is carried out by the deployer's processes, also where this one dies. All of it may be repeated.
//
// Depends on the stores, internal/record/lane and internal/record/fleet.
package relocation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/services/deployer/internal/record/lane"
	"devpilot.io/bitbucket/services/deployer/internal/record/store"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

// Errors of a move. Their words are for the operator.
var (
	// ErrAlive says that workers of the server are heard.
	ErrAlive = errors.New("its workers are heard")
	// ErrUnknown says that there is no such server.
	ErrUnknown = errors.New("there is no such server")
)

// Move says what is moved.
type Move struct {
	From, To    string
	Workspace   string // of this one alone; all where it is empty
	DryRun      bool   // says what would be done
	EvenIfAlive bool   // also where workers of From are heard
}

// App is what became of one app.
type App struct {
	Workspace string `json:"workspace"`
	App       string `json:"app"`
	To        string `json:"to"` // the server that it is on now
	// Again is the deployment that makes what was live anew; 0 where nothing was.
	Again int32 `json:"again,omitempty"`
	// TakenBack is the deployment that ran and begins anew, Waiting the one that waited; 0 for none.
	TakenBack int32 `json:"takenBack,omitempty"`
	Waiting   int32 `json:"waiting,omitempty"`
	// Undecided is how many pushes the other server's workers decide about.
	Undecided int `json:"undecided,omitempty"`
	// Left is set in a dry run, where nothing was done.
	Left bool `json:"left,omitempty"`
}

// Mover is what moves are made with.
type Mover struct {
	Store      *store.Store
	Dispatcher *lane.Dispatcher
	Now        func() time.Time
	// Alive is how old a sign of life may be.
	Alive time.Duration
}

// Move moves all apps and tells of each as it is done, with how many there are. An error leaves those that were not
// told of for the next time.
func (m *Mover) Move(ctx context.Context, mv Move, tell func(which, all int, a App)) error {
	if err := m.check(ctx, mv); err != nil {
		return err
	}
	keys, err := m.concerned(ctx, mv)
	if err != nil {
		return err
	}
	for i, k := range keys {
		a, err := m.app(ctx, k, mv)
		if err != nil {
			return fmt.Errorf("app %s of workspace %s: %w", k.App, k.Workspace, err)
		}
		tell(i+1, len(keys), a)
	}
	return nil
}

// check refuses a move to nowhere, and one away from a server that lives.
func (m *Mover) check(ctx context.Context, mv Move) error {
	if mv.From == mv.To {
		return fmt.Errorf("the apps are on server %s: name another one to move them to", mv.To)
	}
	servers, err := m.servers(ctx)
	if err != nil {
		return err
	}
	from, to := find(servers, mv.From), find(servers, mv.To)
	switch now := m.Now(); {
	case from == nil:
		return fmt.Errorf("server %s: %w", mv.From, ErrUnknown)
	case to == nil:
		return fmt.Errorf("server %s: %w; start a worker with --server %s (DEVPILOT_SERVER) first", mv.To, ErrUnknown, mv.To)
	case to.Workers == 0:
		return fmt.Errorf("no worker of server %s is heard, so that nothing would be deployed there: start one first", mv.To)
	case from.Workers > 0 && !mv.EvenIfAlive:
		return fmt.Errorf("server %s: %w, the last time %s ago. Where they have just died, wait until nothing was heard of them for %s; where they are to be left while they live, say --even-if-alive",
			mv.From, ErrAlive, max(now.Sub(*from.LastHeard), 0).Round(time.Second), m.Alive)
	}
	return nil
}

func find(servers []Server, name string) *Server {
	i := slices.IndexFunc(servers, func(s Server) bool { return s.Name == name })
	if i < 0 {
		return nil
	}
	return &servers[i]
}

// concerned are the apps of the server, and those of others that still have something there.
func (m *Mover) concerned(ctx context.Context, mv Move) ([]lane.Key, error) {
	filter := ">"
	if mv.Workspace != "" {
		filter = mv.Workspace + ".>"
	}
	var keys []string
	err := m.Store.Apps.Each(ctx, filter, func(key string, a *storev1.App, _ uint64) error {
		if a.GetServer() == mv.From {
			keys = append(keys, key)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the apps: %w", err)
	}
	err = m.Store.Lanes.Each(ctx, filter, func(key string, l *storev1.Lane, _ uint64) error {
		if lane.Concerns(l, mv.From) {
			keys = append(keys, key)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the lanes: %w", err)
	}
	slices.Sort(keys)
	var out []lane.Key
	for _, key := range slices.Compact(keys) {
		workspace, app, _ := strings.Cut(key, ".")
		out = append(out, lane.Key{Workspace: workspace, App: app})
	}
	return out, nil
}

// app moves one app. The lane comes first: from then on nothing is asked for on the old server, whatever whoever
// asks has read.
func (m *Mover) app(ctx context.Context, k lane.Key, mv Move) (App, error) {
	out := App{Workspace: k.Workspace, App: k.App, To: mv.To}
	a, _, err := m.Store.Apps.Get(ctx, k.String())
	if errors.Is(err, kv.ErrNotFound) {
		return out, nil // deleted meanwhile
	}
	if err != nil {
		return out, err
	}
	if a.GetServer() != mv.From {
		out.To = a.GetServer() // it was given another one, and has something left on this
	}
	d := lane.Departure{From: mv.From, To: out.To, Branch: a.GetBranch(), Now: m.Now()}
	if mv.DryRun {
		return m.preview(ctx, k, d, out)
	}
	if err := m.depart(ctx, k, d, a.GetGeneration(), &out); err != nil {
		return out, err
	}
	_, _, err = m.Store.Apps.Update(ctx, k.String(), func(a *storev1.App) (*storev1.App, error) {
		if a == nil || a.GetServer() != mv.From {
			return nil, kv.ErrSkip
		}
		a.Server, a.UpdateTime = mv.To, timestamppb.New(m.Now())
		return a, nil
	})
	return out, err
}

const (
	backlogTries = 60          // looks at a lane whose outbox is full: it empties as the records are written
	backlogPause = time.Second // between two such looks
)

func (m *Mover) depart(ctx context.Context, k lane.Key, d lane.Departure, generation int64, out *App) error {
	for try := 0; ; try++ {
		var done lane.Departed
		l, err := m.Dispatcher.Change(ctx, k, func(l *storev1.Lane) (err error) {
			if l.GetGeneration() != generation {
				return lane.ErrSkip // made anew meanwhile
			}
			done, err = lane.Depart(l, d)
			return err
		})
		if errors.Is(err, lane.ErrBacklog) && try < backlogTries {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(backlogPause):
			}
			continue
		}
		if err != nil {
			return err
		}
		out.note(done)
		return m.wake(ctx, k, l)
	}
}

// wake has the other server's workers begin. The records are written by the deployer's processes, which tell of
// them too.
func (m *Mover) wake(ctx context.Context, k lane.Key, l *storev1.Lane) error {
	if server := lane.Decider(l); server != "" {
		if err := m.Dispatcher.Waker.WakeDecider(ctx, server, k); err != nil {
			return err
		}
	}
	for _, server := range lane.WakeTargets(l) {
		if err := m.Dispatcher.Waker.Wake(ctx, server, k); err != nil {
			return err
		}
	}
	return nil
}

// preview says what a move would do.
func (m *Mover) preview(ctx context.Context, k lane.Key, d lane.Departure, out App) (App, error) {
	out.Left = true
	l, _, err := m.Dispatcher.Get(ctx, k)
	if err != nil {
		return out, err
	}
	done, err := lane.Depart(l, d)
	if errors.Is(err, lane.ErrSkip) || errors.Is(err, lane.ErrBacklog) {
		err = nil
	}
	out.note(done)
	return out, err
}

func (a *App) note(d lane.Departed) {
	a.Again, a.TakenBack, a.Waiting, a.Undecided = d.Again, d.TakenBack, d.Waiting, d.Undecided
}
