// Package installation keeps processes from working with stores that are not theirs. The stores in NATS
// hold a record with the installation's id and, for each service, a canary that its keyset sealed; Redis holds the id. A
// process whose keyset does not open its canary, or whose Redis is another installation's, does not start.
//
//	Open: NATS (no restore is under way; record made or read) → keysets open their canaries → Redis has the id, or none
//	Run:  Redis again, every minute; Ready says what was found
//
// Depends on pkg/kv, pkg/redisx, pkg/seal, pkg/stream and the stored record.
package installation

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/redis/go-redis/v9"

	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/redisx"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/stream"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/installation/store/v1"
)

// Bucket holds the record.
const Bucket = "installation-records"

const recordKey = "installation"

const (
	// claimLife is how long Redis is kept from other installations after the last process of one was there.
	claimLife = 10 * time.Minute
	// claimEvery is how often a process says that it is there.
	claimEvery = time.Minute
)

// What keeps a process from starting. Each is a sentence that says what to do.
var (
	ErrKeyset = errors.New("the encryption keyset (DEVPILOT_ENCRYPTION_KEYSET_FILE) does not open what is stored in NATS (DEVPILOT_NATS_URL): " +
		"give this process the keyset that its service began with, or, for another installation on the same NATS, a name of its own (DEVPILOT_INSTALLATION)")
	ErrRedisOfOthers = errors.New("the Redis of DEVPILOT_REDIS_URL is in use by another installation: " +
		"give this one a Redis or a database number of its own, or a name (DEVPILOT_INSTALLATION); what the other left there is gone ten minutes after its last process")
	ErrRedisUntrusted  = errors.New("the certificate of the Redis server is not trusted: DEVPILOT_REDIS_CA_FILE must have its authority, and DEVPILOT_REDIS_URL a name that it is for")
	ErrRedisRefuses    = errors.New("the Redis server refuses the user or the password in DEVPILOT_REDIS_URL: put them right, as in redis://user:password@host:6379/0")
	ErrSentinelsRefuse = errors.New("the sentinels of DEVPILOT_REDIS_URL refuse the user or the password: put sentinel_username and sentinel_password in it right, or leave them out where the sentinels ask for none")
	ErrRedisKind       = errors.New("the Redis of DEVPILOT_REDIS_URL is run in another way than the address says: " +
		"one server is redis://host:6379/0, a cluster redis://node:6379?cluster=true, and what sentinels name redis://sentinel:26379/0?master_name=…")
)

// Config is what an installation is known by.
type Config struct {
	JS      jetstream.JetStream
	Redis   redis.UniversalClient
	Keysets seal.Keysets // of the services that this process is
	Logger  *slog.Logger
}

// Installation is one that was found to be ours.
type Installation struct {
	cfg     Config
	id      string
	refused atomic.Pointer[error]
}

// Access is what every process of an installation does in NATS to find out whether it is its own.
func Access() stream.Access {
	return stream.Access{Buckets: []string{Bucket}, Looks: []string{RestoreStream}}
}

// Open finds out whether the stores are those of this installation, and makes them so where they are
// nobody's. It waits for NATS; a Redis that is away is asked later, by Run.
func Open(ctx context.Context, cfg Config) (*Installation, error) {
	i := &Installation{cfg: cfg}
	err := stream.UntilOpen(ctx, cfg.Logger, func(ctx context.Context) (err error) {
		// An answer that went down with its server never comes, however long it may take.
		ctx, cancel := context.WithTimeout(ctx, tryTimeout)
		defer cancel()
		i.id, err = open(ctx, cfg)
		return err
	})
	if err != nil {
		return nil, err
	}
	return i, i.claim(ctx)
}

// ID is the same for all processes of an installation.
func (i *Installation) ID() string { return i.id }

// tryTimeout bounds one try to read the record; the next one follows it.
const tryTimeout = 10 * time.Second

// permanent is an error that waiting does not mend.
type permanent struct{ error }

func (permanent) Is(target error) bool { return target == stream.ErrPermanent }
func (p permanent) Unwrap() error      { return p.error }

func open(ctx context.Context, cfg Config) (id string, err error) {
	if _, restoring, err := Restoring(ctx, cfg.JS); err != nil {
		return "", err
	} else if restoring {
		return "", permanent{ErrRestoring}
	}
	b, err := kv.Open[storev1.Installation](ctx, cfg.JS, kv.Config{Name: Bucket, Logger: cfg.Logger})
	if err != nil {
		return "", err
	}
	rec, err := sealAnew(ctx, b, cfg.Keysets)
	if errors.Is(err, ErrKeyset) {
		err = permanent{err}
	}
	return rec.GetId(), err
}

// claim has Redis know the installation, and says whether it knows another one or refuses us.
func (i *Installation) claim(ctx context.Context) error {
	key := redisx.Key("installation", "id")
	set, err := i.cfg.Redis.SetNX(ctx, key, i.id, claimLife).Result()
	owner := i.id
	if err == nil && !set {
		if owner, err = i.cfg.Redis.Get(ctx, key).Result(); errors.Is(err, redis.Nil) {
			return nil // it ended this moment; the next time takes it
		}
	}
	if lasting := said(err); lasting != nil {
		return lasting
	}
	switch {
	case err != nil:
		return nil //nolint:nilerr // it is away: what it holds may be lost
	case owner != i.id:
		return ErrRedisOfOthers
	case !set:
		_ = i.cfg.Redis.Expire(ctx, key, claimLife).Err() // the next time does as well
	}
	return nil
}

// said is the sentence about what Redis or its sentinels answered that waiting does not mend; nil for other errors.
func said(err error) error {
	switch {
	case errors.Is(err, redisx.ErrSentinelRefuses):
		return ErrSentinelsRefuse
	case redisx.IsRefusal(err):
		return ErrRedisRefuses
	case redisx.IsUntrusted(err):
		return ErrRedisUntrusted
	case redisx.IsOtherKind(err):
		return ErrRedisKind
	}
	return nil
}

// Run keeps the claim on Redis until ctx is done.
func (i *Installation) Run(ctx context.Context) error {
	t := time.NewTicker(claimEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			i.Check(ctx)
		}
	}
}

// Check looks at Redis once more, for Ready to tell.
func (i *Installation) Check(ctx context.Context) {
	err := i.claim(ctx)
	if err == nil {
		i.refused.Store(nil)
		return
	}
	if i.refused.Swap(&err) == nil {
		i.cfg.Logger.ErrorContext(ctx, "not ready any more", logs.Err(err))
	}
}

// Ready says what is wrong, or nil.
func (i *Installation) Ready(context.Context) error {
	if err := i.refused.Load(); err != nil {
		return *err
	}
	return nil
}
