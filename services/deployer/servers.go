package deployer

import (
	"context"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/services/deployer/internal/record"
	"devpilot.io/bitbucket/services/deployer/internal/record/fleet"
	"devpilot.io/bitbucket/services/deployer/internal/record/relocation"
	"devpilot.io/bitbucket/services/deployer/internal/record/store"
)

// ServerStatus is how a server stands.
type ServerStatus = relocation.Server

// Move says which apps are moved from a server that died to another one.
type Move = relocation.Move

// MovedApp is what became of one app.
type MovedApp = relocation.App

// Errors of Servers.Move.
var (
	ErrServerAlive   = relocation.ErrAlive
	ErrServerUnknown = relocation.ErrUnknown
)

// Servers is what an operator sees of the servers, and does about one that died. It works on the stores, beside the
// deployer's processes, and is for people's tools.
type Servers struct{ mover *relocation.Mover }

// OpenServers opens the stores.
func OpenServers(ctx context.Context, js jetstream.JetStream, logger *slog.Logger) (*Servers, error) {
	st, err := store.Open(ctx, js, logger)
	if err != nil {
		return nil, err
	}
	r := record.New(record.Config{Store: st, JS: js, Logger: logger, Now: time.Now})
	return &Servers{&relocation.Mover{Store: st, Dispatcher: r.Dispatcher, Now: time.Now, Alive: fleet.Alive}}, nil
}

// List describes all servers, by name. It reads all apps.
func (s *Servers) List(ctx context.Context) ([]ServerStatus, error) { return s.mover.Servers(ctx) }

// Move moves the apps of a server that died, and tells of each as it is done, with how many there are. It may be
// repeated, and goes on where one that was cut short ended: what is done is not done again. ErrServerAlive where
// workers of the server are heard, ErrServerUnknown where there is no such server.
func (s *Servers) Move(ctx context.Context, m Move, tell func(which, all int, a MovedApp)) error {
	return s.mover.Move(ctx, m, tell)
}
