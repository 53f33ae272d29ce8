package allinone

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats-server/v2/server"

	"devpilot.io/bitbucket/pkg/checkup"
	"devpilot.io/bitbucket/pkg/engine"
	"devpilot.io/bitbucket/pkg/installation"
	"devpilot.io/bitbucket/pkg/servicemain"
	"devpilot.io/bitbucket/pkg/stream"
)

// examined is what the doctor asks a service in this process: what the service itself looks at. What all of them share, the
// process answers for once.
func (h *hosted) examined() *checkup.Subject {
	return &checkup.Subject{Service: h.name, Version: servicemain.Version, Secrets: h.product.shown, Tasks: func(ctx context.Context) []checkup.Task {
		if e, ok := h.service.(servicemain.Examined); ok {
			return e.Checks(ctx)
		}
		return nil
	}}
}

// shown are the texts that no check may show.
func (p *Product) shown() []string { return checkup.SecretsOf(&p.settings) }

// examined is this process as the doctor asks it, the gateway's checks among its own.
func (p *Product) examined() *checkup.Subject {
	return &checkup.Subject{Service: "devpilot", Version: servicemain.Version, Secrets: p.shown, Tasks: func(ctx context.Context) []checkup.Task {
		owner := func() (string, error) { return installation.Look(ctx, p.js, p.sealers()) }
		tasks := p.natsTasks(ctx)
		if p.redis != nil {
			tasks = append(tasks, checkup.Task{Name: "redis", Run: func(context.Context) checkup.Check { return EmbeddedRedis() }})
		} else {
			r := p.settings.ExaminedRedis(p.settings.PlaintextFlags, p.installation, owner)
			tasks = append(tasks, checkup.Task{Name: "redis", Run: r.Reached}, checkup.Task{Name: "redis-eviction", Run: r.Eviction})
		}
		tasks = append(tasks,
			checkup.Task{Name: "keyset", Run: func(context.Context) checkup.Check {
				path := cmp.Or(p.settings.EncryptionKeysetFile, KeysetFile(p.dir.path))
				return checkup.Keyset(path, owner)
			}},
			checkup.Task{Name: "identity-keys", Run: func(context.Context) checkup.Check {
				return checkup.Keys(cmp.Or(p.settings.IdentityKeyFile, IdentityFile(p.dir.path)), p.keys, Services(), Services())
			}})
		return append(tasks, p.gateway.Checks(ctx)...)
	}}
}

func (p *Product) natsTasks(ctx context.Context) (tasks []checkup.Task) {
	if p.nats == nil {
		client := checkup.NewClient()
		context.AfterFunc(ctx, client.CloseIdleConnections)
		n := p.settings.ExaminedNATS(ctx, "devpilot", p.installation, NeededAtNATS("devpilot", p.installation), client)
		for _, t := range checkup.NATSTasks() {
			tasks = append(tasks, checkup.Task{Name: t.Name, Run: func(ctx context.Context) checkup.Check { return t.Run(n, ctx) }})
		}
		return tasks
	}
	for _, t := range checkup.NATSTasks() {
		tasks = append(tasks, checkup.Task{Name: t.Name, Run: func(context.Context) checkup.Check {
			if t.Name == "nats" {
				return checkup.Well("Embedded, nats-server %s, with its store in %s.", server.VERSION, p.dir.nats())
			}
			return p.settings.EmbeddedNATS(t.Name)
		}})
	}
	return tasks
}

// NeededAtNATS is what a user of NATS needs to do, by its name; nothing for one that is none.
func NeededAtNATS(user string, name stream.Installation) stream.Permissions {
	for _, u := range NATSUsers(name) {
		if u.Name == user {
			return u.Permissions
		}
	}
	return stream.Permissions{}
}

// EmbeddedRedis is what is known of a Redis in the program.
func EmbeddedRedis() checkup.Check {
	return checkup.Well("Embedded, in the program's memory: it holds only what may be lost.")
}

// EmbeddedNATS is what is known of a NATS in the program, by the name of a check of NATS.
func (s *Settings) EmbeddedNATS(check string) checkup.Check {
	switch check {
	case "nats-sync":
		return checkup.Well("Embedded: every write is on the disk before it is acknowledged.")
	case "nats-storage":
		return s.embeddedStorage()
	case "nats-replicas":
		return checkup.Well("Embedded: one server, one copy of everything.")
	}
	return checkup.Well("Embedded: the program may do everything.")
}

// embeddedStorage checks that the volume can hold the store.
func (s *Settings) embeddedStorage() checkup.Check {
	dir := StoreDir(s.DataDir)
	need, smaller := s.EmbeddedNeed(), ", or set a smaller DEVPILOT_STREAMS_MIB"
	if s.StreamsMiB == 0 {
		smaller = "" // it is the least already
	}
	most, err := engine.MaxStore(dir, need)
	var small *engine.VolumeError
	switch {
	case errors.As(err, &small):
		return checkup.Fail(fmt.Sprintf("The volume of %s has %d MiB free, and a new store needs %d MiB (DEVPILOT_STREAMS_MIB is %d).", dir, small.Free>>20, small.Need>>20, s.StreamsMiB),
			"Make room, or name a directory on a larger volume with --data-dir (DEVPILOT_DATA_DIR)"+smaller+".")
	case err != nil:
		return checkup.Fail(fmt.Sprintf("The volume of %s cannot be looked at: %v.", dir, err), "Let this user read the data directory.")
	case most < need:
		return checkup.Warn(fmt.Sprintf("The store may grow to %d MiB on its volume, and its streams and records may ask %d MiB (DEVPILOT_STREAMS_MIB is %d).", most>>20, need>>20, s.StreamsMiB), "Make room on the volume before the streams are full.")
	}
	if size := stream.Fitting(most); s.StreamsMiB == 0 {
		const found = "On disk; the volume lets the store grow to %d MiB, and its streams take %d MiB of that (DEVPILOT_STREAMS_MIB is not set)."
		if size < stream.DefaultBytes {
			return checkup.Warn(fmt.Sprintf(found, most>>20, size>>20), "Make room on the volume before the next start: with less than 4096 MiB for streams logs of deployments may be kept for less long.")
		}
		return checkup.Well(found, most>>20, size>>20)
	}
	return checkup.Well("On disk; the volume lets the store grow to %d MiB, and %d MiB are asked (DEVPILOT_STREAMS_MIB is %d).", most>>20, need>>20, s.StreamsMiB)
}
