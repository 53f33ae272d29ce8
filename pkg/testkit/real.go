package testkit

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/redis/go-redis/v9"
)

// RealRedisServer is a redis-server process.
type RealRedisServer struct {
	*Process
	port int
}

// RealRedis starts redis-server from PATH on a free port, without persistence.
func RealRedis(t testing.TB) *RealRedisServer {
	t.Helper()
	path := lookPath(t, "redis-server", "install it (Debian: redis-server)")
	dir, port := t.TempDir(), FreePort(t)
	conf := filepath.Join(dir, "redis.conf")
	writeConfig(t, conf, "bind 127.0.0.1", "port "+strconv.Itoa(port), `save ""`, "appendonly no", "dir "+dir)
	p := StartProcess(t, "redis-server", Logger(t).Writer(), func() *exec.Cmd { return exec.Command(path, conf) })
	r := &RealRedisServer{Process: p, port: port}
	r.awaitListen(loopback(port))
	return r
}

// URL is the redis:// URL.
func (r *RealRedisServer) URL() string { return "redis://" + loopback(r.port) }

// Client opens a client of its own, closed with the test.
func (r *RealRedisServer) Client() redis.UniversalClient {
	r.t.Helper()
	return redisClient(r.t, r.URL())
}

// Restart ends the process, if it still runs, and starts it again on the same port. Nothing it knew
// is left.
func (r *RealRedisServer) Restart() {
	r.t.Helper()
	r.Kill()
	r.Start()
	r.awaitListen(loopback(r.port))
}

// RealNATSServer is a nats-server process with JetStream, syncing every write.
type RealNATSServer struct {
	*Process
	port int
	dir  string
}

// RealNATS builds nats-server from its Go module, once per machine, and starts it on a free port.
// (The packaged one is too old.)
func RealNATS(t testing.TB) *RealNATSServer {
	t.Helper()
	path := buildNATS(t)
	dir, port := FastDir(t), FreePort(t)
	conf := filepath.Join(dir, "nats.conf")
	writeConfig(t, conf,
		"listen: "+strconv.Quote(loopback(port)), "server_name: test", "max_payload: 8MB",
		"jetstream { store_dir: "+strconv.Quote(filepath.Join(dir, "store"))+", sync_interval: always, max_file_store: 8GB }")
	p := StartProcess(t, "nats-server", Logger(t).Writer(), func() *exec.Cmd { return exec.Command(path, "-c", conf) })
	s := &RealNATSServer{Process: p, port: port, dir: dir}
	s.awaitReady()
	return s
}

// URL is the nats:// URL; it stays the same over Kill and Restart.
func (s *RealNATSServer) URL() string { return "nats://" + loopback(s.port) }

// StoreDir is where JetStream keeps its files.
func (s *RealNATSServer) StoreDir() string { return filepath.Join(s.dir, "store", "jetstream") }

// Connect opens a connection of its own, closed with the test.
func (s *RealNATSServer) Connect() (*nats.Conn, jetstream.JetStream) {
	s.t.Helper()
	return connect(s.t, s.URL())
}

// Restart ends the process with SIGKILL, if it still runs, and starts it again on the same port and
// store.
func (s *RealNATSServer) Restart() {
	s.t.Helper()
	s.Kill()
	s.Start()
	s.awaitReady()
}

// awaitReady waits until JetStream answers: the port opens before it has recovered.
func (s *RealNATSServer) awaitReady() {
	s.t.Helper()
	s.awaitListen(loopback(s.port))
	Eventually(s.t, startTimeout, func() error {
		nc, err := nats.Connect(s.URL(), nats.NoReconnect())
		if err != nil {
			return err
		}
		defer nc.Close()
		js, err := jetstream.New(nc)
		if err != nil {
			return err
		}
		_, err = js.AccountInfo(s.t.Context())
		return err
	})
}

// buildNATS builds the version that our module requires into the user's cache directory. Packages
// whose tests run at the same time wait for each other.
func buildNATS(t testing.TB) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatalf("no cache directory for the built nats-server: %v", err)
	}
	dir := filepath.Join(cache, "devpilot-test")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatalf("make %s: %v", dir, err)
	}
	path := filepath.Join(dir, "nats-server-"+server.VERSION)
	unlock := lockFile(t, path+".lock")
	defer unlock()
	if _, err := os.Stat(path); err == nil {
		return path
	}
	t.Logf("building nats-server %s, once for this machine", server.VERSION)
	cmd := exec.Command("go", "build", "-o", path+".new", "github.com/nats-io/nats-server/v2")
	cmd.Dir, cmd.Env = moduleDir(t), append(os.Environ(), "CGO_ENABLED=0") // as the programs that it serves
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build nats-server: %v\n%s", err, out)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatalf("build nats-server: %v", err)
	}
	return path
}

// moduleDir is the directory of the module that pins nats-server, this one. Go is asked, so that
// tests may be built with -trimpath.
func moduleDir(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "devpilot.io/bitbucket/pkg").Output()
	if err != nil {
		t.Fatalf("find the directory of the module that pins nats-server: %v", err)
	}
	return strings.TrimSpace(string(out))
}

func lockFile(t testing.TB, path string) (unlock func()) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err == nil {
		err = retryInterrupted(func() error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX) })
	}
	if err != nil {
		t.Fatalf("lock %s: %v", path, err)
	}
	return func() {
		if err := f.Close(); err != nil {
			t.Errorf("unlock: %v", err)
		}
	}
}

func retryInterrupted(f func() error) error {
	for {
		if err := f(); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}
