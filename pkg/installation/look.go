package installation

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/redis/go-redis/v9"

	"devpilot.io/bitbucket/pkg/redisx"
	"devpilot.io/bitbucket/pkg/seal"
	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/installation/store/v1"
)

// Look finds out, as Open does, whether the stores behind js are those of the keyset's installation, and
// changes nothing. The id is empty where no process has made them anybody's yet; the error is ErrKeyset where
// they are another's.
func Look(ctx context.Context, js jetstream.JetStream, keyset *seal.Keyset) (id string, err error) {
	rec, err := stored(ctx, js)
	if err != nil || rec == nil {
		return "", err
	}
	return rec.GetId(), opens(rec, keyset)
}

// opens is ErrKeyset unless the keyset opens the canary.
func opens(rec *storev1.Installation, keyset *seal.Keyset) error {
	if text, err := keyset.Open(rec.GetSealedCanary(), associated(rec.GetId())); err != nil || string(text) != rec.GetId() {
		return ErrKeyset
	}
	return nil
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
