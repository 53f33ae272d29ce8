package testkit

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// NATSNodes is a cluster of nats-server processes with JetStream. The ways between them can be cut.
type NATSNodes struct {
	t     testing.TB
	Nodes []*RealNATSServer
	// Routes[i][j] is the way on which node i connects to node j; nil where they are the same.
	Routes [][]*Link
}

// RealNATSCluster starts so many nats-servers, which log into files in a directory, and waits until JetStream answers at each.
func RealNATSCluster(t testing.TB, servers int, logs string) *NATSNodes {
	t.Helper()
	c := &NATSNodes{t: t, Routes: make([][]*Link, servers)}
	path, dir := buildNATS(t), FastDir(t)
	var ports []int
	for range servers {
		ports = append(ports, FreePort(t))
	}
	for i := range servers {
		c.Routes[i] = make([]*Link, servers)
		var routes []string
		for j := range servers {
			if i != j {
				c.Routes[i][j] = NewLink(t, loopback(ports[j]))
				routes = append(routes, strconv.Quote("nats://"+c.Routes[i][j].Address()))
			}
		}
		s := &RealNATSServer{port: FreePort(t), dir: filepath.Join(dir, fmt.Sprintf("n%d", i))}
		conf := filepath.Join(dir, fmt.Sprintf("n%d.conf", i))
		writeConfig(t, conf,
			"listen: "+strconv.Quote(loopback(s.port)), fmt.Sprintf("server_name: n%d", i), "max_payload: 8MB",
			"log_file: "+strconv.Quote(filepath.Join(logs, fmt.Sprintf("n%d.log", i))),
			"jetstream { store_dir: "+strconv.Quote(filepath.Join(s.dir, "store"))+", sync_interval: always, max_file_store: 8GB }",
			// Nobody hears of an address that goes around the ways that can be cut: the one that is told leads nowhere.
			"cluster { name: test, listen: "+strconv.Quote(loopback(ports[i]))+", no_advertise: true, advertise: \"127.0.0.1:1\", routes: ["+strings.Join(routes, ", ")+"] }")
		s.Process = StartProcess(t, fmt.Sprintf("nats-server n%d", i), Logger(t).Writer(), func() *exec.Cmd { return exec.Command(path, "-c", conf) })
		c.Nodes = append(c.Nodes, s)
	}
	c.AwaitReady()
	return c
}

// AwaitReady waits until JetStream answers at each node.
func (c *NATSNodes) AwaitReady() {
	c.t.Helper()
	for _, node := range c.Nodes {
		node.awaitReady()
	}
}

// URL has the addresses of all nodes.
func (c *NATSNodes) URL() string {
	var all []string
	for _, node := range c.Nodes {
		all = append(all, node.URL())
	}
	return strings.Join(all, ",")
}

// Connect opens a connection of its own, closed with the test.
func (c *NATSNodes) Connect() (*nats.Conn, jetstream.JetStream) {
	c.t.Helper()
	return connect(c.t, c.URL())
}

// Isolate cuts all ways to a node, from it, or both, until Heal: the others go on without it.
func (c *NATSNodes) Isolate(node int, d Direction) {
	for other := range c.Nodes {
		if other != node {
			// A connection carries both ways, whoever made it.
			c.Routes[other][node].Cut(d)
			c.Routes[node][other].Cut(d.reverse())
		}
	}
}

// Heal opens all ways between the nodes.
func (c *NATSNodes) Heal() {
	for _, row := range c.Routes {
		for _, way := range row {
			if way != nil {
				way.Heal()
			}
		}
	}
}

// reverse is the same seen from the other end.
func (d Direction) reverse() Direction { return d&There<<1 | d&Back>>1 }
