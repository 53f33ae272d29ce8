package e2e

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/identity"
	"devpilot.io/bitbucket/pkg/seal"
	"devpilot.io/bitbucket/pkg/testkit"
)

// built is where the programs are, once a test needed them.
var built string

// programs are built once per test run.
var programs = sync.OnceValues(func() (dir string, err error) {
	dir, err = os.MkdirTemp("", "devpilot-e2e-")
	if err != nil {
		return "", err
	}
	built = dir
	const prefix = "devpilot.io/bitbucket/services/"
	args := []string{"build", "-o", dir + "/", prefix + "allinone/cmd/devpilot", prefix + "allinone/cmd/bitbucket-emulator"}
	for _, name := range testkit.Services {
		args = append(args, prefix+name+"/cmd/"+name)
	}
	if *clusterClocks {
		overlay, err := testkit.ClockOverlay(dir)
		if err != nil {
			return dir, err
		}
		args = slices.Insert(args, 1, "-overlay", overlay)
	}
	build := exec.Command("go", args...)
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as they are released
	out, err := build.CombinedOutput()
	if err != nil {
		return dir, fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	if address := os.Getenv(plainServerEnv); address != "" {
		servePlain(address) // this process is one of BenchmarkSpeed's
		return
	}
	m.Run() // its result becomes the exit code
	if built != "" {
		_ = os.RemoveAll(built) // nobody is left to tell
	}
}

func program(t testing.TB, name string) string {
	t.Helper()
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

// replica is one process of a service.
type replica struct {
	*testkit.Process
	ops string
}

// processes is the product as two processes of each service, with real engines.
type processes struct {
	t        *testing.T
	bucket   *site
	front    *front
	live     *front // of the releases
	admin    string
	dir      string // data directory of the server "default"; not below /dev, where hooks could not be shown it
	caches   string
	secrets  string            // files with secrets
	keysets  map[string]string // file of each service's
	env      []string          // settings of all
	nats     *testkit.RealNATSServer
	redis    *testkit.RealRedisServer
	log      recorder
	replicas map[string][]*replica
	guarded  *guarded // the NATS that is used instead; nil for nats
}

// pair is how many processes there are of each service.
const pair = 2

func startProcesses(t *testing.T) stack {
	t.Helper()
	return startTopology(t, topology{count: pair})
}

// topology says which processes there are.
type topology struct {
	count     int                                  // of each service
	deployers int                                  // when it is another number
	env       []string                             // settings of all
	of        func(service string, i int) []string // settings of one; nil for none
	guarded   *guarded                             // another NATS than the stack's, which settings name; nil for that
	unready   bool                                 // that they are ready is not waited for

	sharedKeyset bool // one for all services
	// elsewhere leaves the engines, their settings and Bitbucket to who starts the processes.
	elsewhere *site
	// via is the address at which others reach what one listens at; nil for the same.
	via func(service string, i int, address string) string
	// command runs one's program; nil for as it is.
	command func(service string, i int, path string) *exec.Cmd
	// log is where one's output goes; nil for the stack's own.
	log func(service string, i int) io.Writer
}

func (top topology) replicas(service string) int {
	if service == "deployer" && top.deployers > 0 {
		return top.deployers
	}
	return top.count
}

func (top topology) settings(service string, i int) []string {
	if top.of == nil {
		return nil
	}
	return top.of(service, i)
}

func (top topology) address(service string, i int, listen string) string {
	if top.via == nil {
		return listen
	}
	return top.via(service, i, listen)
}

func (top topology) run(service string, i int, path string) *exec.Cmd {
	if top.command == nil {
		return exec.Command(path)
	}
	return top.command(service, i, path)
}

const workerOnly = "DEVPILOT_ROLES=worker"

func startTopology(t *testing.T, top topology) *processes {
	t.Helper()
	root := testkit.FastDir(t)
	s := &processes{
		t: t, bucket: top.elsewhere, admin: "dpa_" + rand.Text() + rand.Text(), dir: filepath.Join(t.TempDir(), "data"), caches: filepath.Join(root, "caches"),
		secrets: filepath.Join(root, "secrets"), replicas: map[string][]*replica{},
	}
	s.front, s.live = openFront(t), openFront(t)
	s.live.only = "live"
	if s.bucket == nil {
		s.bucket = openSite(t)
		s.startEmulator(t, filepath.Join(root, "emulator"))
		s.nats, s.redis = testkit.RealNATS(t), testkit.RealRedis(t)
	}
	s.guarded = top.guarded
	s.keysets = map[string]string{}
	for _, name := range testkit.Services {
		s.keysets[name] = filepath.Join(s.secrets, "encryption-"+name+".json")
		if top.sharedKeyset {
			s.keysets[name] = filepath.Join(s.secrets, "encryption.json")
		}
	}
	env := append(s.environment(t), top.env...)
	addresses := map[string][]string{}
	for _, name := range []string{"auth", "repo", "webhook", "deployer"} {
		var serving []string
		for i := range top.replicas(name) {
			addresses[name] = append(addresses[name], loopback(t))
			if !slices.Contains(top.settings(name, i), workerOnly) {
				serving = append(serving, top.address(name, i, addresses[name][i]))
			}
		}
		env = append(env, "DEVPILOT_"+strings.ToUpper(name)+"_ADDR="+strings.Join(serving, ","))
	}
	s.env = env
	for _, name := range testkit.Services {
		for i := range top.replicas(name) {
			s.startReplica(t, top, name, i, slices.Concat(env, top.settings(name, i)), addresses[name])
		}
	}
	if top.unready {
		return s
	}
	for _, list := range s.replicas {
		for _, r := range list {
			awaitReady(t, r.ops)
		}
	}
	return s
}

// onLocalhost is an address of 127.0.0.1 by the name that browsers know its sub-domains of.
func onLocalhost(address string) string { return strings.Replace(address, "127.0.0.1", "localhost", 1) }

func loopback(t testing.TB) string {
	t.Helper()
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(testkit.FreePort(t)))
}

// startEmulator starts the emulator as a process of its own.
func (s *processes) startEmulator(t *testing.T, dir string) {
	t.Helper()
	path, address, secret := program(t, "bitbucket-emulator"), loopback(t), secretFile(t)
	log := &recorder{}
	testkit.StartProcess(t, "emulator", log, func() *exec.Cmd {
		cmd := exec.Command(path, "--listen", address, "--site-url", s.bucket.address, "--data-dir", dir, "--callback-url", s.url()+"/oauth/bitbucket/callback",
			"--client-id", consumer.Key, "--client-secret-file", secret)
		cmd.Env = cleanEnviron()
		return cmd
	})
	s.bucket.at(address)
	testkit.Eventually(t, timeout, func() error {
		_, err := s.bucket.State(t.Context())
		if err != nil {
			return fmt.Errorf("%w\n%s", err, log.String())
		}
		return nil
	})
}

// secretFile holds the consumer's secret: the environment of every process that tests start is
// searched.
func secretFile(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "client.secret")
	if err := os.WriteFile(path, []byte(consumer.Secret), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// cleanEnviron is the environment without settings of the product.
func cleanEnviron() []string {
	var env []string
	for _, pair := range os.Environ() {
		if !strings.HasPrefix(pair, "DEVPILOT_") {
			env = append(env, pair)
		}
	}
	return env
}

// environment is what all services are given. Secrets come from files.
func (s *processes) environment(t *testing.T) []string {
	t.Helper()
	if err := os.MkdirAll(s.secrets, 0o700); err != nil {
		t.Fatal(err)
	}
	file := func(name, content string) string {
		path := filepath.Join(s.secrets, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	keys := filepath.Join(s.secrets, "identity.json")
	for service, path := range s.keysets {
		if _, err := seal.CreateKeysetFile(path); err != nil && !errors.Is(err, fs.ErrExist) {
			t.Fatalf("the keyset of %s: %v", service, err)
		}
	}
	if _, err := identity.CreateKeysFile(keys, testkit.Services...); err != nil {
		t.Fatal(err)
	}
	env := cleanEnviron()
	if s.nats != nil {
		env = append(env, "DEVPILOT_NATS_URL="+s.nats.URL(), "DEVPILOT_REDIS_URL="+s.redis.URL())
	}
	return append(env,
		"DEVPILOT_PUBLIC_URL="+s.url(), "DEVPILOT_LOG_LEVEL=debug", "DEVPILOT_LOG_FORMAT=json", "DEVPILOT_DRAIN_DELAY=0s",
		"DEVPILOT_IDENTITY_KEY_FILE="+keys,
		"DEVPILOT_BITBUCKET_CLIENT_ID="+consumer.Key, "DEVPILOT_BITBUCKET_CLIENT_SECRET_FILE="+secretFile(t),
		"DEVPILOT_ADMIN_TOKEN_FILE="+file("admin.token", s.admin),
		"DEVPILOT_BITBUCKET_SITE_URL="+s.bucket.address, "DEVPILOT_BITBUCKET_API_URL="+s.bucket.address+"/2.0",
		"DEVPILOT_DATA_DIR="+s.dir, "DEVPILOT_WORKERS=2", "DEVPILOT_HOOK_NETWORK=none", "DEVPILOT_LIVE_URL="+s.liveURL(),
		"DEVPILOT_WORKER_LEASE="+workerLease.String(), "DEVPILOT_RECONCILE_INTERVAL="+reconcileInterval.String(), "DEVPILOT_RECONCILE_GRACE="+reconcileGrace.String(),
	)
}

// startReplica starts one process of a service.
func (s *processes) startReplica(t *testing.T, top topology, name string, i int, env, grpc []string) {
	t.Helper()
	path, ops := program(t, name), loopback(t)
	env = append(env[:len(env):len(env)], "DEVPILOT_OPS_LISTEN="+ops, "DEVPILOT_CACHE_DIR="+filepath.Join(s.caches, name+strconv.Itoa(i)))
	if grpc != nil {
		env = append(env, "DEVPILOT_GRPC_LISTEN="+grpc[i])
	}
	if name == "gateway" || name == "webhook" {
		listen := loopback(t)
		env = append(env, "DEVPILOT_LISTEN="+listen)
		s.front.add(name, top.address(name, i, listen))
	}
	if name == "deployer" {
		listen := loopback(t)
		env = append(env, "DEVPILOT_LIVE_LISTEN="+listen)
		s.live.add("live", top.address(name, i, listen))
	}
	var log io.Writer = &s.log
	if top.log != nil {
		log = top.log(name, i)
	}
	p := testkit.StartProcess(t, name, log, func() *exec.Cmd {
		cmd := top.run(name, i, path)
		cmd.Env = append([]string{"DEVPILOT_ENCRYPTION_KEYSET_FILE=" + s.keysets[name]}, env...)
		return cmd
	})
	s.replicas[name] = append(s.replicas[name], &replica{Process: p, ops: "http://" + ops})
}

func (s *processes) url() string        { return s.front.address }
func (s *processes) adminToken() string { return s.admin }
func (s *processes) site() *site        { return s.bucket }
func (s *processes) releases() string   { return s.dir }
func (s *processes) liveURL() string    { return onLocalhost(s.live.address) }
func (s *processes) redisURL() string   { return s.redis.URL() }
func (s *processes) output() string     { return s.log.String() }
func (s *processes) kept() []string     { return nil }
func (s *processes) stopRedis()         { s.redis.Kill() }
func (s *processes) startRedis()        { s.redis.Restart() }
func (s *processes) stopNATS()          { s.nats.Kill() }
func (s *processes) startNATS()         { s.nats.Restart() }

func (s *processes) places() []string {
	store := s.nats.StoreDir()
	if s.guarded != nil {
		store = s.guarded.store
	}
	return []string{s.dir, s.caches, store}
}

func (s *processes) pids() []int {
	var list []int
	for _, replicas := range s.replicas {
		for _, r := range replicas {
			list = append(list, r.Pid())
		}
	}
	return list
}

func (s *processes) js(t testing.TB) jetstream.JetStream {
	t.Helper()
	if s.guarded != nil {
		return s.guarded.js(t)
	}
	_, js := s.nats.Connect()
	return js
}
