package allinone

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/nats-io/nats.go"

	"devpilot.io/bitbucket/pkg/engine"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/stream"
)

// lossTimeout bounds accepting a loss.
const lossTimeout = time.Minute

// AcceptLoss has a bucket that lost records taken as it is from now on, and says how many they
// were. The stores are those at natsURL, or the embedded ones of the data directory, which no
// process may be using.
func AcceptLoss(ctx context.Context, w io.Writer, natsURL seal.Secret, name stream.Installation, dataDir, bucket string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, lossTimeout)
	defer cancel()
	target, options := natsURL.Reveal(), []nats.Option(nil)
	if natsURL.IsZero() {
		dir, err := openDirectory(dataDir)
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
	nc, js, err := stream.Connect(target, "devpilot-accept-loss", append(options, name.ConnectOptions("devpilot-accept-loss")...)...)
	if err != nil {
		return fmt.Errorf("connect to NATS: %w", err)
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
