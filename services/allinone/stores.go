package allinone

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/nats-io/nats.go"

	"devpilot.io/bitbucket/pkg/engine"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/logs"
	"devpilot.io/bitbucket/pkg/redisx"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/servicemain"
	"devpilot.io/bitbucket/pkg/stream"
)

// The stores of the one program: those that its settings name, or embedded ones.

func (p *Product) startNATS(ctx context.Context) (err error) {
	connect, err := p.settings.NATSOptions()
	if err != nil {
		return err
	}
	url, sizes := p.settings.NATSURL.Reveal(), stream.Settings{Bytes: p.settings.StreamsMiB << 20}
	if p.settings.NATSURL.IsZero() {
		p.nats, err = engine.StartNATS(ctx, engine.NATSConfig{StoreDir: p.dir.nats(), Need: p.settings.EmbeddedNeed(), GuestWrites: guestWrites(p.installation), Logger: p.loggerOf("nats")})
		if errors.Is(err, engine.ErrStoreInUse) {
			return fmt.Errorf("another Devpilot process uses the data directory %s: stop that one, or choose another directory with --data-dir (DEVPILOT_DATA_DIR)", p.dir.path)
		}
		var small *engine.VolumeError
		if errors.As(err, &small) {
			return fmt.Errorf("the volume of the data directory %s has %d MiB free and Devpilot needs %d MiB: make room, name a directory on a larger volume with --data-dir (DEVPILOT_DATA_DIR), or where it is set let the streams take less with --streams-mib (DEVPILOT_STREAMS_MIB)", p.dir.path, small.Free>>20, small.Need>>20)
		}
		if err != nil {
			return err
		}
		if p.stopTap, err = p.listenStores(ctx); err != nil {
			return fmt.Errorf("the socket for backups in the data directory %s: %w", p.dir.path, err)
		}
		url, connect = p.nats.ClientURL(), []nats.Option{p.nats.ConnectOption()}
		if sizes.Fitted = sizes.Bytes == 0; sizes.Fitted {
			sizes.Bytes = p.fitting(ctx)
		}
	}
	nc, js, err := stream.Connect(url, "devpilot", append(connect, p.installation.ConnectOptions("devpilot", "devpilot")...)...)
	if err != nil {
		return servicemain.NATSTrouble(err)
	}
	replication, err := stream.NewReplication(p.registry)
	if err != nil {
		nc.Close()
		return err
	}
	sizes.Installation, sizes.Replicas, sizes.Replication = p.installation, p.settings.Replicas, replication
	session := kv.NewSession
	if p.nats != nil && p.nats.Private() {
		session = kv.NewSoleSession
	}
	p.nc, p.js = nc, session(js, sizes)
	p.health.NATS(p.natsReady)
	return nil
}

// fitting is how much the streams take of the embedded store, in bytes, where nobody said it.
func (p *Product) fitting(ctx context.Context) int64 {
	size := stream.Fitting(p.nats.MaxStore())
	if size < stream.DefaultBytes {
		p.logger.WarnContext(ctx, "the volume of the data directory has little room: all streams together get less of it than usual, so that logs of deployments may be kept for less long",
			slog.Int64(logs.KeyBytes, size), slog.Int64(logs.KeyWished, stream.DefaultBytes))
	}
	return size
}

func (p *Product) natsReady(ctx context.Context) error {
	if p.nats != nil {
		return p.nats.Ready(ctx)
	}
	if !p.nc.IsConnected() {
		return errors.New("not connected")
	}
	return p.js.Ready(ctx)
}

// watchNATS follows whether the streams take writes; the embedded server's canary knows that of itself.
func (p *Product) watchNATS(ctx context.Context) error {
	if p.nats == nil {
		p.js.Run(ctx)
	}
	<-ctx.Done()
	return nil
}

func (p *Product) stopNATS(ctx context.Context) error {
	err := p.js.Flush(ctx)
	p.nc.Close()
	if p.nats == nil {
		return err
	}
	p.stopTap()
	return errors.Join(err, p.nats.Close())
}

func (p *Product) startRedis(context.Context) (err error) {
	stores := p.settings.StoreFlags
	if p.settings.RedisURL.IsZero() {
		if p.redis, err = engine.StartRedis(); err != nil {
			return err
		}
		stores = servicemain.StoreFlags{RedisURL: seal.NewSecret(p.redis.URL())}
	}
	if p.redisc, err = stores.OpenRedis(p.settings.PlaintextFlags); err != nil {
		return err
	}
	redisx.Prefix(p.redisc, string(p.installation))
	return nil
}

func (p *Product) stopRedis(context.Context) error {
	err := p.redisc.Close()
	if p.redis != nil {
		p.redis.Close()
	}
	return err
}
