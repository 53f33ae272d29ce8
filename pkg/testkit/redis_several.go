package testkit

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// RedisSetup says how several servers are set up together.
type RedisSetup struct {
	Password         string // of the servers; none when empty
	SentinelPassword string // of the sentinels; none when empty
	// TLSHost, when set, has all connections encrypted with a certificate for that name alone, whatever
	// addresses the servers know each other by.
	TLSHost string
}

// redisGroup is what servers that belong together share.
type redisGroup struct {
	t                testing.TB
	setup            RedisSetup
	certificate, key string
}

// SentinelMaster is the name that sentinels of tests know their Redis by.
const SentinelMaster = "devpilot"

// SentinelRedis is a master, replicas and three sentinels, as processes.
type SentinelRedis struct {
	redisGroup
	Servers   []*RealRedisServer // the first one was the master at the start
	Sentinels []*RealRedisServer
}

// RealSentinelRedis starts a master, two replicas and three sentinels that let another one take the master's place
// after it was away for a second.
func RealSentinelRedis(t testing.TB, setup RedisSetup) *SentinelRedis {
	t.Helper()
	s := &SentinelRedis{redisGroup: newRedisGroup(t, setup)}
	for i := range 3 {
		var more []string
		if i > 0 {
			more = append(more, "replicaof 127.0.0.1 "+strconv.Itoa(s.Servers[0].port), "repl-diskless-sync-delay 0")
		}
		s.Servers = append(s.Servers, s.start(nil, setup.Password, more...))
	}
	for range 3 {
		more := []string{
			fmt.Sprintf("sentinel monitor %s 127.0.0.1 %d 2", SentinelMaster, s.Servers[0].port),
			"sentinel down-after-milliseconds " + SentinelMaster + " 1000", "sentinel failover-timeout " + SentinelMaster + " 5000",
		}
		if setup.Password != "" {
			more = append(more, "sentinel auth-pass "+SentinelMaster+" "+setup.Password)
		}
		if setup.SentinelPassword != "" {
			more = append(more, "sentinel sentinel-pass "+setup.SentinelPassword)
		}
		s.Sentinels = append(s.Sentinels, s.start([]string{"--sentinel"}, setup.SentinelPassword, more...))
	}
	for _, sentinel := range s.Sentinels { // each knows the replicas and the other sentinels
		c := s.client(sentinel, setup.SentinelPassword)
		Eventually(t, startTimeout, func() error {
			known, err := c.Do(t.Context(), "SENTINEL", "MASTER", SentinelMaster).Result()
			if err != nil {
				return err
			}
			if text := fmt.Sprint(known); !strings.Contains(text, "num-slaves:2") || !strings.Contains(text, "num-other-sentinels:2") {
				return fmt.Errorf("the sentinel knows %s", text)
			}
			return nil
		})
	}
	for _, replica := range s.Servers[1:] {
		s.awaitInfo(replica, "master_link_status:up")
	}
	return s
}

// URL names the sentinels.
func (s *SentinelRedis) URL() string {
	query := "?master_name=" + SentinelMaster + "&addr=" + s.address(s.Sentinels[1]) + "&addr=" + s.address(s.Sentinels[2])
	if s.setup.SentinelPassword != "" {
		query += "&sentinel_password=" + s.setup.SentinelPassword
	}
	return s.url(s.Sentinels[0], s.setup.Password) + "/0" + query
}

// Master is the server that most sentinels name.
func (s *SentinelRedis) Master() (master *RealRedisServer) {
	s.t.Helper()
	Eventually(s.t, startTimeout, func() (err error) {
		master, err = s.named()
		return err
	})
	return master
}

// named is the server that most sentinels name now.
func (s *SentinelRedis) named() (*RealRedisServer, error) {
	named := map[string]int{}
	for _, sentinel := range s.Sentinels {
		ctx, cancel := context.WithTimeout(s.t.Context(), time.Second)
		at, err := s.client(sentinel, s.setup.SentinelPassword).Do(ctx, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", SentinelMaster).StringSlice()
		cancel()
		if err == nil && len(at) == 2 {
			named[at[1]]++
		}
	}
	for _, server := range s.Servers {
		if named[strconv.Itoa(server.port)] > len(s.Sentinels)/2 {
			return server, nil
		}
	}
	return nil, fmt.Errorf("the sentinels do not agree: %v", named)
}

// AwaitReplicas waits until the replicas have all that was written so far.
func (s *SentinelRedis) AwaitReplicas() {
	s.t.Helper()
	pipe := s.client(s.Master(), s.setup.Password).Pipeline() // one connection
	pipe.Set(s.t.Context(), "written last", "", time.Minute)
	replicas := pipe.Do(s.t.Context(), "WAIT", len(s.Servers)-1, startTimeout.Milliseconds())
	if _, err := pipe.Exec(s.t.Context()); err != nil {
		s.t.Fatalf("wait for the replicas: %v", err)
	}
	if n, err := replicas.Int(); err != nil || n < len(s.Servers)-1 {
		s.t.Fatalf("%d replicas have it, %v", n, err)
	}
}

// KillMaster ends the master with SIGKILL and waits until another one has its place for most sentinels.
func (s *SentinelRedis) KillMaster() {
	s.t.Helper()
	before := s.Master()
	before.Kill()
	Eventually(s.t, startTimeout, func() error {
		now, err := s.named()
		if err == nil && now == before {
			err = errors.New("the sentinels name the master that is gone")
		}
		return err
	})
}

// Asked is the sentinel that a client of go-redis listens to.
func (s *SentinelRedis) Asked() *RealRedisServer {
	s.t.Helper()
	for _, sentinel := range s.Sentinels {
		list, err := s.client(sentinel, s.setup.SentinelPassword).ClientList(s.t.Context()).Result()
		if err != nil {
			s.t.Fatalf("who is connected to a sentinel: %v", err)
		}
		for line := range strings.Lines(list) {
			if strings.Contains(line, "sub=2 ") {
				return sentinel
			}
		}
	}
	s.t.Fatal("no client listens to a sentinel")
	return nil
}

// ClusterRedis is a cluster of three masters, as processes, and where asked for a replica of each.
type ClusterRedis struct {
	redisGroup
	Nodes []*RealRedisServer // the masters first
}

// clusterSlots is how many slots a cluster's keys are in.
const clusterSlots = 16384

// RealClusterRedis starts three masters, each with so many replicas, which take the place of a master that was away
// for a second.
func RealClusterRedis(t testing.TB, setup RedisSetup, replicas int) *ClusterRedis {
	t.Helper()
	const masters = 3
	c := &ClusterRedis{redisGroup: newRedisGroup(t, setup)}
	for range masters * (1 + replicas) {
		c.Nodes = append(c.Nodes, c.start(nil, setup.Password,
			"cluster-enabled yes", "cluster-config-file nodes.conf", "cluster-node-timeout 1000", "cluster-port "+strconv.Itoa(FreePort(t)),
			"repl-diskless-sync-delay 0"))
	}
	clients := make([]redis.UniversalClient, len(c.Nodes))
	for i, node := range c.Nodes {
		clients[i] = c.client(node, setup.Password)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("make the cluster: %v", err)
		}
	}
	for i := range masters {
		must(clients[i].ClusterAddSlotsRange(t.Context(), i*clusterSlots/masters, (i+1)*clusterSlots/masters-1).Err())
	}
	for i, node := range c.Nodes[1:] {
		bus, err := clients[i+1].ConfigGet(t.Context(), "cluster-port").Result()
		must(err)
		must(clients[0].Do(t.Context(), "CLUSTER", "MEET", "127.0.0.1", node.port, bus["cluster-port"]).Err())
	}
	c.awaitAll(clients, len(c.Nodes))
	for i := masters; i < len(c.Nodes); i++ {
		id, err := clients[i%masters].Do(t.Context(), "CLUSTER", "MYID").Text()
		must(err)
		must(clients[i].ClusterReplicate(t.Context(), id).Err())
		c.awaitInfo(c.Nodes[i], "master_link_status:up")
	}
	c.awaitAll(clients, len(c.Nodes))
	return c
}

// awaitAll waits until every node knows all others and that all slots are served.
func (c *ClusterRedis) awaitAll(clients []redis.UniversalClient, nodes int) {
	c.t.Helper()
	for _, client := range clients {
		Eventually(c.t, startTimeout, func() error {
			info, err := client.ClusterInfo(c.t.Context()).Result()
			if err != nil {
				return err
			}
			if !strings.Contains(info, "cluster_state:ok") || !strings.Contains(info, fmt.Sprintf("cluster_known_nodes:%d\r", nodes)) {
				return fmt.Errorf("the cluster is not whole: %s", info)
			}
			return nil
		})
	}
}

// AwaitWhole waits until what is left of the cluster serves all keys, in the eyes of every node that is left.
func (c *ClusterRedis) AwaitWhole() {
	c.t.Helper()
	for _, node := range c.Nodes {
		if !node.running() {
			continue
		}
		client := c.client(node, c.setup.Password)
		Eventually(c.t, startTimeout, func() error {
			slots, err := client.ClusterSlots(c.t.Context()).Result()
			if err != nil {
				return err
			}
			for _, gone := range c.Nodes {
				for _, slot := range slots {
					if !gone.running() && slot.Nodes[0].Addr == loopback(gone.port) {
						return errors.New("a node that is gone has keys")
					}
				}
			}
			info, err := client.ClusterInfo(c.t.Context()).Result()
			if err == nil && !strings.Contains(info, "cluster_state:ok") {
				err = errors.New("not all keys are served")
			}
			return err
		})
	}
}

// AwaitReplicas waits until the replicas have all that was written so far.
func (c *ClusterRedis) AwaitReplicas() {
	c.t.Helper()
	for _, node := range c.Nodes {
		client := c.client(node, c.setup.Password)
		Eventually(c.t, startTimeout, func() error {
			info, err := client.Info(c.t.Context(), "replication").Result()
			if err != nil || !strings.Contains(info, "role:master") {
				return err
			}
			written := field(info, "master_repl_offset:")
			has := field(info, "slave0:")
			if written == "" || !strings.Contains(has, "state=online,offset="+written+",") {
				return fmt.Errorf("%s was written, the replica is at %q", written, has)
			}
			return nil
		})
	}
}

// field is the rest of the line of a server's INFO that begins with name.
func field(info, name string) string {
	for line := range strings.Lines(info) {
		if value, ok := strings.CutPrefix(line, name); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// URL names two nodes of the cluster.
func (c *ClusterRedis) URL() string {
	return c.url(c.Nodes[0], c.setup.Password) + "?cluster=true&addr=" + c.address(c.Nodes[1])
}

func newRedisGroup(t testing.TB, setup RedisSetup) redisGroup {
	t.Helper()
	g := redisGroup{t: t, setup: setup}
	if setup.TLSHost != "" {
		g.certificate, g.key = StoreCertificate(t, setup.TLSHost)
	}
	return g
}

// Authorities is the file of the authority that the certificates are by; empty where nothing is encrypted.
func (g redisGroup) Authorities() string { return g.certificate }

// start starts one server on a free port.
func (g redisGroup) start(args []string, password string, more ...string) *RealRedisServer {
	g.t.Helper()
	path := lookPath(g.t, "redis-server", "install it (Debian: redis-server)")
	dir, port := g.t.TempDir(), FreePort(g.t)
	conf := filepath.Join(dir, "redis.conf")
	lines := []string{"bind 127.0.0.1", "dir " + dir}
	if g.certificate == "" {
		lines = append(lines, "port "+strconv.Itoa(port))
	} else {
		lines = append(lines, "port 0", "tls-port "+strconv.Itoa(port), "tls-replication yes", "tls-auth-clients no",
			"tls-cert-file "+g.certificate, "tls-key-file "+g.key, "tls-ca-cert-file "+g.certificate)
		if slices.Contains(more, "cluster-enabled yes") {
			lines = append(lines, "tls-cluster yes")
		}
	}
	if password != "" {
		lines = append(lines, "requirepass "+password)
	}
	if args == nil { // a sentinel keeps nothing
		lines = append(lines, `save ""`, "appendonly no")
		if password != "" {
			lines = append(lines, "masterauth "+password)
		}
	}
	writeConfig(g.t, conf, append(lines, more...)...)
	p := StartProcess(g.t, "redis-server", Logger(g.t).Writer(), func() *exec.Cmd { return exec.Command(path, append([]string{conf}, args...)...) })
	r := &RealRedisServer{Process: p, port: port}
	r.awaitListen(loopback(port))
	return r
}

// address is what the certificate is for, where there is one, and the port.
func (g redisGroup) address(server *RealRedisServer) string {
	if g.setup.TLSHost != "" {
		return net.JoinHostPort(g.setup.TLSHost, strconv.Itoa(server.port))
	}
	return loopback(server.port)
}

func (g redisGroup) url(server *RealRedisServer, password string) string {
	scheme := "redis"
	if g.certificate != "" {
		scheme = "rediss"
	}
	if password != "" {
		password = ":" + password + "@"
	}
	return scheme + "://" + password + g.address(server)
}

// client opens a client of one server of its own, closed with the test.
func (g redisGroup) client(server *RealRedisServer, password string) redis.UniversalClient {
	g.t.Helper()
	opts := &redis.Options{Addr: loopback(server.port), Password: password, ContextTimeoutEnabled: true}
	if g.certificate != "" {
		text, err := os.ReadFile(g.certificate)
		if err != nil {
			g.t.Fatal(err)
		}
		opts.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool(), ServerName: g.setup.TLSHost}
		opts.TLSConfig.RootCAs.AppendCertsFromPEM(text)
	}
	c := redis.NewClient(opts)
	g.t.Cleanup(func() { _ = c.Close() })
	return c
}

func (g redisGroup) awaitInfo(server *RealRedisServer, want string) {
	g.t.Helper()
	c := g.client(server, g.setup.Password)
	Eventually(g.t, startTimeout, func() error {
		ctx, cancel := context.WithTimeout(g.t.Context(), time.Second)
		defer cancel()
		info, err := c.Info(ctx).Result()
		if err == nil && !strings.Contains(info, want) {
			err = fmt.Errorf("no %s yet", want)
		}
		return err
	})
}
