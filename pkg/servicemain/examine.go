package servicemain

import (
	"context"
	"net/http"
	"slices"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/redis/go-redis/v9"

	"devpilot.io/bitbucket/pkg/checkup"
	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/installation"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/stream"
)

// Services are all that have keys.
func Services() []string { return []string{"auth", "repo", "webhook", "deployer", "gateway"} }

// Examined is a Service that the doctor asks about more than its stores and keys. What its tasks keep open ends with ctx.
type Examined interface {
	Checks(ctx context.Context) []checkup.Task
}

// Accessing is a Service whose process does less in NATS than its Spec says, by its settings.
type Accessing interface {
	Access() stream.Access
}

// doctorConnection is the doctor's name at NATS.
const doctorConnection = "devpilot-doctor"

// ExaminedNATS is the NATS of the settings as the doctor asks it: reached until ctx is done, as a program's user, which
// does what needs says.
func (f StoreFlags) ExaminedNATS(ctx context.Context, program string, name stream.Installation, needs stream.Permissions, client *http.Client) *checkup.NATS {
	return checkup.NewNATS(ctx, checkup.NATSConfig{
		Program: program, Needs: needs, Client: client,
		Connect: func() (*nats.Conn, *kv.Session, error) {
			options, err := f.NATSOptions()
			if err != nil {
				return nil, nil, err
			}
			nc, js, err := stream.Connect(f.NATSURL.Reveal(), doctorConnection, append(options, name.ConnectOptions(doctorConnection, program)...)...)
			if err != nil {
				return nil, nil, NATSTrouble(err)
			}
			return nc, kv.NewSession(js, stream.Settings{Installation: name, Replicas: f.Replicas, Bytes: f.StreamsMiB << 20}), nil
		},
	})
}

// ExaminedRedis is the Redis of the settings as the doctor asks it. owner is the id of the installation in NATS.
func (f StoreFlags) ExaminedRedis(plain PlaintextFlags, name stream.Installation, owner func() (string, error)) *checkup.Redis {
	return &checkup.Redis{
		URL: f.RedisURL, Security: f.RedisSecurity(plain), Installation: name,
		Open: func() (redis.UniversalClient, error) { return f.OpenRedis(plain) },
		Owner: func() string {
			id, _ := owner() // what is wrong with it, the check of the keyset says
			return id
		},
	}
}

// examined is this process as the doctor asks it: by the same settings, read anew as far as they are files.
func (m *program) examined() *checkup.Subject {
	return &checkup.Subject{
		Service: m.name, Version: m.env.Version,
		Secrets: func() []string { return append(checkup.SecretsOf(&m.base), checkup.SecretsOf(m.own)...) },
		Tasks: func(ctx context.Context) []checkup.Task {
			tasks := m.tasks(ctx)
			if e, ok := m.service.(Examined); ok {
				tasks = append(tasks, e.Checks(ctx)...)
			}
			return tasks
		},
	}
}

// tasks are the checks of stores and keys: those that each process makes for itself, and those that this one makes for all.
func (m *program) tasks(ctx context.Context) []checkup.Task {
	keysets := sync.OnceValues(func() (seal.Keysets, error) {
		return seal.LoadKeysets(m.base.EncryptionKeysetFile, m.name)
	})
	tasks, owner := m.natsTasks(ctx, keysets)
	r := m.base.ExaminedRedis(m.base.PlaintextFlags, m.installation, owner)
	tasks = append(tasks, checkup.Task{Name: "redis", Run: r.Reached})
	if slices.Contains(m.examines, "redis-eviction") {
		tasks = append(tasks, checkup.Task{Name: "redis-eviction", Run: r.Eviction})
	}
	return append(tasks,
		checkup.Task{Name: "keyset", Run: func(context.Context) checkup.Check {
			path := m.base.EncryptionKeysetFile
			if _, err := keysets(); err != nil {
				return checkup.BadKeyset(path, err)
			}
			if m.withoutNATS {
				return checkup.Well("The keyset %s can be read; %s stores nothing with it.", path, m.name)
			}
			return checkup.Keyset(path, owner)
		}},
		checkup.Task{Name: "identity-keys", Run: func(context.Context) checkup.Check {
			keys, err := identity.LoadKeysFile(m.base.IdentityKeyFile)
			if err != nil {
				return checkup.BadKeys(m.base.IdentityKeyFile, err)
			}
			return checkup.Keys(m.base.IdentityKeyFile, keys, []string{m.name}, Services())
		}})
}

// natsTasks are the checks of NATS, and what tells whose the stores there are.
func (m *program) natsTasks(ctx context.Context, keysets func() (seal.Keysets, error)) (tasks []checkup.Task, owner func() (string, error)) {
	if m.withoutNATS {
		return nil, func() (string, error) { return "", nil }
	}
	access := m.access
	if a, ok := m.service.(Accessing); ok {
		access = a.Access()
	}
	client := checkup.NewClient()
	context.AfterFunc(ctx, client.CloseIdleConnections)
	n := m.base.ExaminedNATS(ctx, m.name, m.installation, access.Permissions(m.installation, m.name), client)
	for _, t := range checkup.NATSTasks() {
		if t.Name == "nats" || t.Name == "nats-permissions" || slices.Contains(m.examines, t.Name) {
			tasks = append(tasks, checkup.Task{Name: t.Name, Run: func(ctx context.Context) checkup.Check { return t.Run(n, ctx) }})
		}
	}
	return tasks, sync.OnceValues(func() (string, error) {
		keys, err := keysets()
		if err != nil {
			return "", err
		}
		js, err := n.JetStream()
		if err != nil {
			return "", err
		}
		return installation.Look(ctx, js, keys)
	})
}
