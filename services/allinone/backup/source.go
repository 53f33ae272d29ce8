package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"

	"github.com/nats-io/nats.go"

	"devpilot.io/bitbucket/pkg/engine"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/servicemain"
	"devpilot.io/bitbucket/pkg/stream"
	"devpilot.io/bitbucket/services/allinone"
)

// Stores say which installation is meant: that of the NATS that is named, or the embedded one of the data directory. To embed in a kong
// struct.
type Stores struct {
	servicemain.DataFlags         `embed:""`
	servicemain.InstallationFlags `embed:""`
	servicemain.StoreFlags        `embed:""`
	servicemain.PlaintextFlags    `embed:""`
}

// source is a connection to the stores of an installation.
type source struct {
	session *kv.Session
	conn    *nats.Conn
	server  *engine.NATS // of our own, over the files of a data directory; nil where another one is reached
}

func (s *source) close() error {
	s.conn.Close()
	if s.server == nil {
		return nil
	}
	return s.server.Close()
}

// Reach connects with the stores of an installation as people's tools do, to read streams and write records: through the program that runs on them where
// they are embedded. What it returns is to be called in the end.
func (f Stores) Reach(ctx context.Context, program string) (*kv.Session, func() error, error) {
	s, err := f.open(ctx, program, true)
	if err != nil {
		return nil, nil, err
	}
	return s.session, s.close, nil
}

// open reaches the stores. Embedded ones are reached through the program that runs on them where they are only to be read, else through a server of
// our own, which no program may be using.
func (f Stores) open(ctx context.Context, program string, readOnly bool) (*source, error) {
	name, err := f.Name()
	if err := errors.Join(err, f.CheckEmbedded(), f.CheckStores(f.StoreFlags)); err != nil {
		return nil, err
	}
	options, err := f.NATSOptions()
	if err != nil {
		return nil, err
	}
	settings := stream.Settings{Installation: name, Replicas: f.Replicas, Bytes: f.StreamsMiB << 20}
	target, out := f.NATSURL.Reveal(), &source{}
	if f.NATSURL.IsZero() {
		target, options, err = f.embedded(ctx, out, &settings, readOnly)
		if err != nil {
			return nil, err
		}
	}
	nc, js, err := stream.Connect(target, program, append(options, name.ConnectOptions(program, allinone.Operator)...)...)
	if err != nil {
		if out.server != nil {
			err = errors.Join(err, out.server.Close())
		}
		return nil, servicemain.NATSTrouble(err)
	}
	out.conn, out.session = nc, kv.NewSession(js, settings)
	return out, nil
}

func (f Stores) embedded(ctx context.Context, out *source, settings *stream.Settings, readOnly bool) (target string, options []nats.Option, err error) {
	dir := f.DataDir
	if readOnly {
		if _, err := os.Stat(allinone.StoreDir(dir)); err != nil {
			return "", nil, fmt.Errorf("there is nothing stored: the data directory %s has no stores (--data-dir, DEVPILOT_DATA_DIR), and no NATS is named (DEVPILOT_NATS_URL): %w", dir, err)
		}
		if conn, err := allinone.DialStores(ctx, dir); err == nil {
			_ = conn.Close()
			return engine.PrivateURL, []nats.Option{nats.SetCustomDialer(dialer{ctx, dir})}, nil
		} else if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ECONNREFUSED) {
			return "", nil, fmt.Errorf("the running Devpilot of %s cannot be reached: run this as the user that it runs as: %w", dir, err)
		}
	}
	need := int64(0)
	if !readOnly {
		need = f.EmbeddedNeed()
	}
	out.server, err = engine.StartNATS(ctx, engine.NATSConfig{StoreDir: allinone.StoreDir(dir), Need: need, CanaryInterval: -1})
	var small *engine.VolumeError
	switch {
	case errors.Is(err, engine.ErrStoreInUse):
		return "", nil, fmt.Errorf("a Devpilot process uses the data directory %s: stop it first", dir)
	case errors.As(err, &small):
		return "", nil, fmt.Errorf("the volume of the data directory %s has %d MiB free and Devpilot needs %d MiB: make room, or name a directory on a larger volume with --data-dir (DEVPILOT_DATA_DIR)", dir, small.Free>>20, small.Need>>20)
	case err != nil:
		return "", nil, err
	}
	if settings.Fitted = settings.Bytes == 0; settings.Fitted {
		settings.Bytes = stream.Fitting(out.server.MaxStore())
	}
	return out.server.ClientURL(), []nats.Option{out.server.ConnectOption()}, nil
}

// dialer reaches the NATS of a running program.
type dialer struct {
	ctx context.Context //nolint:containedctx // the library's interface has none
	dir string
}

func (d dialer) Dial(string, string) (net.Conn, error) { return allinone.DialStores(d.ctx, d.dir) }
