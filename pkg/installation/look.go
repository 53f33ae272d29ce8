package installation

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/redis/go-redis/v9"

	"devpilot.io/bitbucket/pkg/redisx"
	"devpilot.io/bitbucket/pkg/seal"
)

// Look finds out, as Open does, whether the stores behind js are those of the keysets' installation, and
// changes nothing. The id is empty where no process has made them anybody's yet; the error is ErrKeyset where
// they are another's.
func Look(ctx context.Context, js jetstream.JetStream, keysets seal.Keysets) (id string, err error) {
	rec, err := stored(ctx, js)
	if err != nil || rec == nil {
		return "", err
	}
	return rec.GetId(), opens(rec, keysets)
}

// LookRedis is ErrRedisOfOthers where Redis is in use by an installation with another id, and what Open says
// where Redis or its sentinels refuse us or are of another kind. It claims nothing.
func LookRedis(ctx context.Context, client redis.UniversalClient, id string) error {
	owner, err := client.Get(ctx, redisx.Key("installation", "id")).Result()
	if lasting := said(err); lasting != nil {
		return lasting
	}
	switch {
	case errors.Is(err, redis.Nil):
		return nil
	case err != nil:
		return fmt.Errorf("installation: see whose Redis it is: %w", err)
	case id != "" && owner != id:
		return ErrRedisOfOthers
	}
	return nil
}
