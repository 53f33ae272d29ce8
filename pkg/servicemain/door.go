package servicemain

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/health"

	"devpilot.io/bitbucket/pkg/ops"
	"devpilot.io/bitbucket/pkg/rpc"
)

const (
	// healthInterval is how often a door looks whether its process is ready.
	healthInterval = time.Second
	// healthPatience is how long a process that was ready may be not ready before its callers go
	// elsewhere. Mostly all replicas are not ready together, when a store is away: then there is no
	// elsewhere, the service's own answers say more, and it can answer again as soon as the store does.
	healthPatience = 30 * time.Second
)

// Door keeps a service's calls out until all is ready for the first time, and tells callers by the
// health service whether to call here: not before, not while it has been not ready for long, and not once it
// shuts down.
type Door struct {
	Health *health.Server

	open atomic.Bool
	mu   sync.Mutex
	late *time.Timer // closes the health; nil while ready
}

// NewDoor makes a door that is closed.
func NewDoor() *Door {
	d := &Door{Health: health.NewServer()}
	rpc.SetServing(d.Health, false)
	return d
}

// Open tells whether all was ready once.
func (d *Door) Open() bool { return d.open.Load() }

// Keep follows the readiness until ctx is done. changed, which may be nil, is told of every change.
func (d *Door) Keep(ctx context.Context, readiness *ops.Readiness, changed func(err error)) {
	readiness.Watch(ctx, healthInterval, func(err error) {
		d.turn(err)
		if changed != nil {
			changed(err)
		}
	})
}

func (d *Door) turn(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.late != nil {
		d.late.Stop()
		d.late = nil
	}
	switch {
	case err == nil:
		d.open.Store(true)
		rpc.SetServing(d.Health, true)
	case errors.Is(err, ops.ErrDraining) || !d.open.Load():
		rpc.SetServing(d.Health, false)
	default:
		var timer *time.Timer
		timer = time.AfterFunc(healthPatience, func() {
			d.mu.Lock()
			defer d.mu.Unlock()
			if d.late == timer { // else it is ready again, or shuts down
				rpc.SetServing(d.Health, false)
			}
		})
		d.late = timer
	}
}
