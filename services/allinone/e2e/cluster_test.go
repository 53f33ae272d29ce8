package e2e

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/bitbucket/emulator"
	"devpilot.io/bitbucket/pkg/testkit"
)

// cluster is the product as a platform runs it: three NATS servers, Redis with sentinels, two or three processes of
// each service and three deployers of one server, behind a front that leaves out who is not ready. Whatever it is made of
// can be killed, frozen and cut off.
type cluster struct {
	*processes
	t         *testing.T
	nodes     *testkit.NATSNodes
	sentinels *testkit.SentinelRedis
	calls     map[seat]map[string]*testkit.Link // the ways on which one is called, by what it listens at
	stores    map[seat][]*testkit.Link          // the ways of one to the NATS servers
	disk      *volume                           // of the deployers
	logs      string                            // a file for each process
	clocks    map[seat]*testkit.Clock           // of each process, where -cluster.clocks is given
	earlier   map[seat]bool                     // whose next start is with the programs of -cluster.from
}

// seat is the place of a process, whichever has it at the moment.
type seat struct {
	service string
	i       int
}

func (p seat) String() string { return p.service + " " + strconv.Itoa(p.i) }

// How the cluster is set: as an installation is, but for pauses that are there to spare Bitbucket.
const (
	clusterDeployers = 3
	clusterReconcile = 2 * time.Second
	clusterGrace     = 6 * time.Second
	clusterDrain     = time.Second
	volumeMiB        = 256
	roomyMiB         = 1024 // for earlier programs, whose hooks want 256 MiB to stay free
	reserveMiB       = 16
)

// openCluster starts so many processes of each service. Where there are earlier programs they begin.
func openCluster(t *testing.T, count int) *cluster {
	t.Helper()
	c := &cluster{t: t, calls: map[seat]map[string]*testkit.Link{}, stores: map[seat][]*testkit.Link{}, clocks: map[seat]*testkit.Clock{}, earlier: map[seat]bool{}}
	if *clusterFrom != "" {
		for _, service := range testkit.Services {
			for i := range max(count, clusterDeployers) {
				c.earlier[seat{service, i}] = true
			}
		}
	}
	if c.logs = *clusterLogs; c.logs == "" {
		c.logs = filepath.Join(testkit.FastDir(t), "logs")
	}
	if err := os.MkdirAll(c.logs, 0o700); err != nil {
		t.Fatal(err)
	}
	c.nodes, c.sentinels = testkit.RealNATSCluster(t, 3, c.logs), testkit.RealSentinelRedis(t, testkit.RedisSetup{})
	data := filepath.Join(t.TempDir(), "data")
	room := volumeMiB
	if *clusterFrom != "" {
		room = roomyMiB
	}
	c.disk = openVolume(t, data, room)
	bucket := openSite(t)
	bitbucket, err := emulator.New(emulator.Options{
		SiteURL: bucket.address, DataDir: testkit.FastDir(t), Consumer: consumer, Scenario: "sample",
		// A used refresh token lives on for ten minutes, as on Atlassian's platform: an answer may be lost.
		Tokens: emulator.TokenOptions{Rotate: true, Grace: 10 * time.Minute},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := bitbucket.Close(); err != nil {
			t.Errorf("stop the emulator: %v", err)
		}
	})
	bucket.behind(bitbucket.Handler())
	c.processes = startTopology(t, topology{
		count: count, deployers: clusterDeployers, sharedKeyset: *clusterFrom != "", // programs of before keysets of their own have one for all
		elsewhere: bucket, of: c.settings, via: c.via, command: c.command, log: c.log, unready: true,
		env: []string{
			"DEVPILOT_REDIS_URL=" + c.sentinels.URL(), "DEVPILOT_DATA_DIR=" + data, "DEVPILOT_LOG_LEVEL=info", "DEVPILOT_DRAIN_DELAY=" + clusterDrain.String(),
			"DEVPILOT_RECONCILE_INTERVAL=" + clusterReconcile.String(), "DEVPILOT_RECONCILE_GRACE=" + clusterGrace.String(),
			"DEVPILOT_DISK_RESERVE_MIB=" + strconv.Itoa(reserveMiB),
		},
	})
	c.dir = data
	c.awaitReady()
	if err := bucket.SetCallbackURL(t.Context(), c.url()+"/oauth/bitbucket/callback"); err != nil {
		t.Fatal(err)
	}
	c.watch()
	return c
}

// awaitReady waits until every process says that it serves.
func (c *cluster) awaitReady() {
	c.t.Helper()
	for _, service := range testkit.Services {
		for _, r := range c.replicas[service] {
			c.await(r)
		}
	}
}

// startsWithin is what a process needs at most until it serves, on a busy machine, also while a store of its is away.
const startsWithin = 40 * time.Second

// await waits until a process says that it serves. One that does not is made to log where it stands.
func (c *cluster) await(r *replica) {
	c.t.Helper()
	began := time.Now()
	testkit.Eventually(c.t, startsWithin, func() error {
		said, err := text(c.t, r.ops+"/readyz")
		if err == nil && !strings.Contains(said, "not ready") {
			return nil
		}
		if time.Since(began) > startsWithin {
			r.Signal(syscall.SIGQUIT)
			<-r.Exited()
			c.t.Fatalf("%s does not serve after %v: %v\n%s", r.ops, startsWithin, err, said)
		}
		return fmt.Errorf("%s: %w: %s", r.ops, err, said)
	})
}

// sayWhereTheyStand has the deployers log what each of their goroutines does, where the test fails: one that waits for ever
// logs nothing else.
func (c *cluster) sayWhereTheyStand() {
	c.t.Cleanup(func() {
		for _, r := range c.replicas["deployer"] {
			if c.t.Failed() {
				r.Signal(syscall.SIGQUIT)
				<-r.Exited()
			}
		}
	})
}

// seats are the places of all processes of the services.
func (c *cluster) seats() (list []seat) {
	for _, service := range testkit.Services {
		for i := range c.replicas[service] {
			list = append(list, seat{service, i})
		}
	}
	return list
}

func (c *cluster) at(p seat) *replica { return c.replicas[p.service][p.i] }

// settings has each process reach each NATS server on a way of its own.
func (c *cluster) settings(service string, i int) []string {
	p := seat{service, i}
	if c.stores[p] == nil {
		for _, node := range c.nodes.Nodes {
			c.stores[p] = append(c.stores[p], testkit.NewLink(c.t, strings.TrimPrefix(node.URL(), "nats://")))
		}
	}
	var urls []string
	for _, way := range c.stores[p] {
		urls = append(urls, "nats://"+way.Address())
	}
	env := []string{"DEVPILOT_NATS_URL=" + strings.Join(urls, ",")}
	if *clusterClocks {
		if c.clocks[p] == nil {
			c.clocks[p] = testkit.NewClock(c.t)
		}
		env = append(env, c.clocks[p].Env())
	}
	return env
}

// via has everybody reach what a process listens at on ways that can be cut.
func (c *cluster) via(service string, i int, address string) string {
	p := seat{service, i}
	if c.calls[p] == nil {
		c.calls[p] = map[string]*testkit.Link{}
	}
	if c.calls[p][address] == nil {
		c.calls[p][address] = testkit.NewLink(c.t, address)
	}
	return c.calls[p][address].Address()
}

// watch has the fronts leave out who is not ready, as far as they can see.
func (c *cluster) watch() {
	for service, in := range map[string]*front{"gateway": c.front, "webhook": c.front, "deployer": c.live} {
		name := service
		if in == c.live {
			name = "live"
		}
		for i, target := range in.targets[name] {
			ops := strings.TrimPrefix(c.replicas[service][i].ops, "http://")
			in.watch(c.t, target, "http://"+c.via(service, i, ops)+"/readyz")
		}
	}
}

// command runs the program of a seat, and has the deployers see the volume.
func (c *cluster) command(service string, i int, path string) *exec.Cmd {
	if c.earlier[seat{service, i}] {
		path = filepath.Join(*clusterFrom, service)
	}
	if service != "deployer" {
		return exec.Command(path)
	}
	args := []string{"--target", strconv.Itoa(c.disk.holder.Pid()), "--mount"}
	if !c.disk.asRoot {
		args = append(args, "--user", "--preserve-credentials")
	}
	return exec.Command("nsenter", append(args, "--", path)...)
}

// log opens the file of a process's log; what a process before it in the same place wrote stays.
func (c *cluster) log(service string, i int) io.Writer {
	f, err := os.OpenFile(filepath.Join(c.logs, service+"-"+strconv.Itoa(i)+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = f.Close() })
	return f
}

// output is all that the processes logged; of each its own, one after the other.
func (c *cluster) output() string {
	var all strings.Builder
	for _, p := range c.seats() {
		text, err := os.ReadFile(filepath.Join(c.logs, p.service+"-"+strconv.Itoa(p.i)+".log"))
		if err != nil {
			c.t.Error(err)
		}
		all.Write(text)
	}
	return all.String()
}

// connect connects to NATS for a moment; nil when no server answers.
func (c *cluster) connect() (*nats.Conn, jetstream.JetStream) {
	nc, err := nats.Connect(c.nodes.URL(), nats.NoReconnect())
	if err != nil {
		return nil, nil
	}
	js, err := jetstream.New(nc)
	if err != nil {
		nc.Close()
		return nil, nil
	}
	return nc, js
}

func (c *cluster) js(testing.TB) jetstream.JetStream {
	_, js := c.nodes.Connect()
	return js
}

// heal opens all ways.
func (c *cluster) heal() {
	c.nodes.Heal()
	for _, ways := range c.stores {
		for _, way := range ways {
			way.Heal()
		}
	}
	for _, ways := range c.calls {
		for _, way := range ways {
			way.Heal()
		}
	}
}

// volume is a disk of little room, mounted in namespaces of a process of its own: it goes with that process,
// whatever becomes of the test, and needs no rights.
type volume struct {
	holder *testkit.Process
	dir    string // as who is in these namespaces names it
	// asRoot tells that the test runs as root. Others need a user namespace for it too, in which hooks have no sandbox.
	asRoot bool
}

func openVolume(t *testing.T, dir string, mib int) *volume {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	v, args := &volume{dir: dir, asRoot: os.Geteuid() == 0}, []string{"--mount"}
	if !v.asRoot {
		args = append(args, "--user", "--map-root-user")
	}
	v.holder = testkit.StartProcess(t, "volume", testkit.Logger(t).Writer(), func() *exec.Cmd {
		const mount = `mount -t tmpfs -o size="$2"m,mode=0700 tmpfs "$1" && exec sleep infinity`
		return exec.Command("unshare", append(args, "sh", "-c", mount, "sh", dir, strconv.Itoa(mib))...)
	})
	testkit.Eventually(t, timeout, func() error {
		var st syscall.Statfs_t
		if err := syscall.Statfs(v.outside(), &st); err != nil {
			return err
		}
		if size := int64(st.Blocks) * st.Bsize; size != int64(mib)<<20 {
			return fmt.Errorf("the volume has %d bytes, not %d MiB", size, mib)
		}
		return nil
	})
	return v
}

// outside is where everybody else finds what is on the volume.
func (v *volume) outside(path ...string) string {
	return filepath.Join(append([]string{"/proc", strconv.Itoa(v.holder.Pid()), "root", v.dir}, path...)...)
}

// fill takes all the room that is left; empty gives it back.
func (v *volume) fill() error {
	f, err := os.OpenFile(v.outside("filler"), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	for chunk := make([]byte, 1<<20); ; {
		_, err := f.Write(chunk)
		if errors.Is(err, syscall.ENOSPC) && len(chunk) > 1 {
			chunk = chunk[:len(chunk)/2]
			continue
		}
		if errors.Is(err, syscall.ENOSPC) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (v *volume) empty() error { return os.Remove(v.outside("filler")) }
