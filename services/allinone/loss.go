package allinone

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"devpilot.io/bitbucket/pkg/engine"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/servicemain"
	"devpilot.io/bitbucket/pkg/stream"
)

// lossTimeout bounds accepting a loss.
const lossTimeout = time.Minute

// LossSettings say which bucket of which stores is taken as it is: those of the NATS that is named, or the embedded
// ones of the data directory. To embed in a kong struct.
type LossSettings struct {
	servicemain.DataFlags         `embed:""`
	servicemain.InstallationFlags `embed:""`
	servicemain.StoreFlags        `embed:""`
	servicemain.PlaintextFlags    `embed:""`

	Bucket string `arg:"" help:"The bucket, as the error says it."`
}

// AcceptLoss has a bucket that lost records taken as it is from now on, and says how many they
// were. No process may be using embedded stores.
func AcceptLoss(ctx context.Context, w io.Writer, settings LossSettings) (err error) {
	ctx, cancel := context.WithTimeout(ctx, lossTimeout)
	defer cancel()
	name, err := settings.Name()
	if err := errors.Join(err, settings.CheckEmbedded(), settings.CheckStores(settings.StoreFlags)); err != nil {
		return err
	}
	options, err := settings.NATSOptions()
	if err != nil {
		return err
	}
	target, bucket := settings.NATSURL.Reveal(), settings.Bucket
	if settings.NATSURL.IsZero() {
		dir, err := openDirectory(settings.DataDir)
		if err != nil {
			return err
		}
		server, err := engine.StartNATS(ctx, engine.NATSConfig{StoreDir: dir.nats()})
		if errors.Is(err, engine.ErrStoreInUse) {
			return fmt.Errorf("a Devpilot process uses the data directory %s: stop it first", dir.path)
		}
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, server.Close()) }()
		target, options = server.ClientURL(), append(options, server.ConnectOption())
	}
	nc, js, err := stream.Connect(target, "devpilot-accept-loss", append(options, name.ConnectOptions("devpilot-accept-loss", Operator)...)...)
	if err != nil {
		return servicemain.NATSTrouble(err)
	}
	defer nc.Close()
	lost, err := kv.AcceptLoss(ctx, kv.NewSession(js, stream.Settings{Installation: name}), bucket)
	if errors.Is(err, kv.ErrNotFound) {
		return fmt.Errorf("there is no bucket %q whose records are counted: use the name that Devpilot's error says", bucket)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "Bucket %s is taken as it is from the next start on. Records gone for good: %d.\n", bucket, lost)
	return err
}
