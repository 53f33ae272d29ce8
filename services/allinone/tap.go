package allinone

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"

	"devpilot.io/bitbucket/pkg/logs"
)

// The embedded NATS has no address. While the program runs it is reached through a socket in the data directory, by those who may
// use that directory, and only to be read, for backups, and to have what is sealed there sealed anew.

const storesSocket = "stores.sock"

// DialStores connects to the embedded NATS of the program that runs on a data directory; fs.ErrNotExist or ECONNREFUSED where none does. Who
// connects may read all streams, and write where sealed records are.
func DialStores(ctx context.Context, dataDir string) (net.Conn, error) {
	return inDirectory(dataDir, func(path string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	})
}

// inDirectory calls fn with a path of the socket that is short enough for the system, however long that of its directory is.
func inDirectory[T any](dir string, fn func(path string) (T, error)) (out T, err error) {
	d, err := os.Open(dir)
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	return fn(filepath.Join("/proc/self/fd", fmt.Sprint(d.Fd()), storesSocket))
}

// listenStores has the embedded NATS reached, until the function that it returns is called.
func (p *Product) listenStores(ctx context.Context) (stop func(), err error) {
	path := filepath.Join(p.dir.path, storesSocket)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) { // of a process that was killed: this one has the store's lock
		return nil, err
	}
	l, err := inDirectory(p.dir.path, func(path string) (*net.UnixListener, error) {
		return net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // the name by which it knows itself is gone
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	var all sync.WaitGroup
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // closed
			}
			all.Go(func() { p.tap(ctx, conn) })
		}
	})
	return func() {
		cancel()
		_ = l.Close()
		_ = os.Remove(path)
		all.Wait()
	}, nil
}

// tap connects one connection with the embedded NATS until either ends.
func (p *Product) tap(ctx context.Context, conn net.Conn) {
	defer func() { _ = conn.Close() }()
	inner, err := p.nats.InProcessConn()
	if err != nil {
		p.logger.WarnContext(ctx, "embedded NATS not reached for a backup", logs.Err(err))
		return
	}
	defer func() { _ = inner.Close() }()
	ended := make(chan struct{}, 2)
	between := func(to io.Writer, from io.Reader) {
		_, _ = io.Copy(to, from) // whoever speaks sees how it ended
		ended <- struct{}{}
	}
	go between(conn, inner)
	go between(inner, conn)
	select {
	case <-ended:
	case <-ctx.Done():
	}
}
