package deployer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/stream"
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

// Errors of Servers.
var (
	// ErrNoStores says that no deployer has made its stores in this NATS.
	ErrNoStores = errors.New("NATS has no records of a deployer")

	// ErrServerAlive says that workers of the server are heard.
	ErrServerAlive = relocation.ErrAlive
	// ErrServerUnknown says that there is no such server.
	ErrServerUnknown = relocation.ErrUnknown
)

// Servers is what an operator sees of the servers, and does about one that died. It works on the stores, beside the
// deployer's processes, and is for people's tools.
type Servers struct{ mover *relocation.Mover }

// OpenServers opens the stores; ErrNoStores where there are none.
func OpenServers(ctx context.Context, js jetstream.JetStream, logger *slog.Logger) (*Servers, error) {
	_, err := js.Stream(ctx, stream.InstallationOf(js).Stream(kv.StreamName(store.LanesBucket)))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, ErrNoStores
	}
	if err != nil {
		return nil, fmt.Errorf("look for the deployer's records: %w", err)
	}
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
