package testkit

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// NATSCluster is a cluster of nats-servers with JetStream, in this process, on free loopback ports.
type NATSCluster struct {
	t       testing.TB
	options []*server.Options
	servers []*server.Server
}

// Cluster starts so many servers, each with a store of so many bytes, and waits until JetStream has a leader
// that knows all of them. change alters the options of each.
func Cluster(t testing.TB, servers int, maxStore int64, change ...func(*server.Options)) *NATSCluster {
	t.Helper()
	c := &NATSCluster{t: t, servers: make([]*server.Server, servers)}
	dir := FastDir(t)
	var routes []*url.URL
	for i := range servers {
		o := &server.Options{
			ServerName: fmt.Sprintf("n%d", i), Host: "127.0.0.1", Port: FreePort(t), NoSigs: true, NoLog: true, MaxPayload: 8 << 20,
			JetStream: true, StoreDir: filepath.Join(dir, fmt.Sprintf("n%d", i)), JetStreamMaxStore: maxStore, SyncAlways: true, DisableJetStreamBanner: true,
			Cluster: server.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: FreePort(t)},
		}
		for _, f := range change {
			f(o)
		}
		c.options = append(c.options, o)
		routes = append(routes, &url.URL{Scheme: "nats", Host: loopback(o.Cluster.Port)})
	}
	t.Cleanup(func() {
		for i := range c.servers {
			c.Kill(i)
		}
	})
	for i := range servers {
		c.options[i].Routes = routes
		c.start(i)
	}
	Eventually(t, startTimeout, func() error { return c.whole() })
	return c
}

func (c *NATSCluster) start(i int) {
	c.t.Helper()
	s, err := server.NewServer(c.options[i].Clone())
	if err != nil {
		c.t.Fatalf("start server %d of the cluster: %v", i, err)
	}
	s.Start()
	c.servers[i] = s
}

// whole is nil when the leader sees every server that runs.
func (c *NATSCluster) whole() error {
	running := 0
	for _, s := range c.servers {
		if s != nil {
			running++
		}
	}
	for _, s := range c.servers {
		if s == nil || !s.JetStreamIsLeader() {
			continue
		}
		if n := len(s.JetStreamClusterPeers()); n < running {
			return fmt.Errorf("the leader knows %d of %d servers", n, running)
		}
		return nil
	}
	return fmt.Errorf("no leader of %d servers", running)
}

// URL has the addresses of all servers.
func (c *NATSCluster) URL() string {
	var all []string
	for _, o := range c.options {
		all = append(all, "nats://"+loopback(o.Port))
	}
	return strings.Join(all, ",")
}

// Connect opens a connection of its own, closed with the test.
func (c *NATSCluster) Connect() (*nats.Conn, jetstream.JetStream) {
	c.t.Helper()
	return connect(c.t, c.URL())
}

// Kill ends one server, by its name or place, with all that its disk held.
func (c *NATSCluster) Kill(i int) {
	if c.servers[i] == nil {
		return
	}
	c.servers[i].Shutdown()
	c.servers[i].WaitForShutdown()
	c.servers[i] = nil
	if err := os.RemoveAll(c.options[i].StoreDir); err != nil {
		c.t.Errorf("remove the store of server %d: %v", i, err)
	}
}

// KillNamed is Kill by the server's name, as JetStream tells it of a leader.
func (c *NATSCluster) KillNamed(name string) {
	c.t.Helper()
	for i, o := range c.options {
		if o.ServerName == name {
			c.Kill(i)
			return
		}
	}
	c.t.Fatalf("no server is called %q", name)
}
