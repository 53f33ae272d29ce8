package checkup

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/bitbucket/hook"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/stream"
)

const (
	natsRemedy = "Start NATS with JetStream, and put DEVPILOT_NATS_URL right: nats://user:password@host:4222."
	// monitorTimeout bounds asking nats-server's monitoring, which most do not have.
	monitorTimeout = 2 * time.Second
	// trialTimeout bounds what is tried at JetStream, which does not answer what it does not allow.
	trialTimeout = 5 * time.Second
)

// NATSConfig is what NewNATS needs.
type NATSConfig struct {
	Program string // whose user of NATS it is
	// Connect makes a connection as the program does; it is closed when the checks have ended.
	Connect func() (*nats.Conn, *kv.Session, error)
	// Needs is what the program does there.
	Needs stream.Permissions
	// Client asks nats-server's monitoring, at MonitorPort of the server; 8222 when empty.
	Client      *http.Client
	MonitorPort string
}

// NATS is one that others run, as a program reaches it. Its methods may be called concurrently.
type NATS struct {
	cfg     NATSConfig
	connect func() (*connection, error)
}

// connection is one to NATS.
type connection struct {
	nc      *nats.Conn
	js      *kv.Session
	granted *granted // nil where the user may do all, or NATS does not say
	deaf    bool     // the user may not listen at this process's inbox: no answer comes
}

// NewNATS connects when something is asked first, and until ctx is done.
func NewNATS(ctx context.Context, cfg NATSConfig) *NATS {
	if cfg.MonitorPort == "" {
		cfg.MonitorPort = "8222"
	}
	return &NATS{cfg: cfg, connect: sync.OnceValues(func() (*connection, error) {
		nc, js, err := cfg.Connect()
		if err != nil {
			return nil, err
		}
		context.AfterFunc(ctx, nc.Close)
		c := &connection{nc: nc, js: js, deaf: deaf(nc)}
		if !c.deaf {
			c.granted = grantedTo(ctx, nc)
		}
		return c, nil
	})}
}

// JetStream is that of the connection.
func (n *NATS) JetStream() (jetstream.JetStream, error) {
	c, err := n.connect()
	if err != nil {
		return nil, err
	}
	return c.js, nil
}

// NATSTask is a check of NATS, by its name.
type NATSTask struct {
	Name string
	Run  func(n *NATS, ctx context.Context) Check
}

// NATSTasks are all checks of NATS, in the order in which they are read.
func NATSTasks() []NATSTask {
	return []NATSTask{
		{"nats", (*NATS).Reached}, {"nats-sync", (*NATS).Sync}, {"nats-storage", (*NATS).Storage},
		{"nats-replicas", (*NATS).Replicas}, {"nats-permissions", (*NATS).Permissions},
	}
}

// with makes a check over a connection to a server that is new enough.
func (n *NATS) with(check func(c *connection) Check) Check {
	c, err := n.connect()
	switch {
	case err != nil:
		return Skip("NATS does not answer.")
	case !NewEnough(c.nc.ConnectedServerVersion(), stream.MinServer):
		return Skip("NATS is too old.")
	case c.deaf:
		return Skip("No answer of NATS may reach this process.")
	}
	return check(c)
}

// Reached checks that NATS can be reached and is new enough.
func (n *NATS) Reached(ctx context.Context) Check {
	c, err := n.connect()
	switch why := Untrusted(err); {
	case why != "":
		return Fail("NATS at DEVPILOT_NATS_URL is not trusted: "+why+".", "Renew its certificate, or put its authority into DEVPILOT_NATS_CA_FILE, and a name that it is for into DEVPILOT_NATS_URL.")
	case err != nil:
		return Fail("NATS at DEVPILOT_NATS_URL does not answer: "+hook.Cause(err)+".", natsRemedy)
	}
	version := c.nc.ConnectedServerVersion()
	where := fmt.Sprintf("nats-server %s answers at %s", version, c.nc.ConnectedAddr())
	if cluster := c.nc.ConnectedClusterName(); cluster != "" {
		where += ", of the cluster " + cluster
	}
	if !NewEnough(version, stream.MinServer) {
		return Fail(where+".", "Devpilot needs "+stream.MinServer+" or newer: update NATS.")
	}
	if c.deaf {
		return Well("%s.", where) // what its user lacks is said of the permissions
	}
	if _, err := c.js.AccountInfo(ctx); err != nil {
		return Fail(fmt.Sprintf("%s, but not its JetStream: %v.", where, err), "Switch JetStream on at NATS (jetstream { store_dir: … }) and for this account.")
	}
	return Well("%s.", where)
}

// NewEnough compares versions by their numbers; what has none is not.
func NewEnough(version, least string) bool {
	have, want := strings.Split(version, "."), strings.Split(least, ".")
	for i := range want {
		if i >= len(have) {
			return false
		}
		digits, _, _ := strings.Cut(have[i], "-")
		h, err := strconv.Atoi(digits)
		w, _ := strconv.Atoi(want[i]) // ours
		if err != nil || h < w {
			return false
		}
		if h > w {
			return true
		}
	}
	return true
}

// Sync checks that what is acknowledged is on a disk, or on the disks of a majority.
func (n *NATS) Sync(ctx context.Context) Check {
	const remedy = "Set sync_interval: always in the jetstream block of nats-server's configuration, or run a cluster of three."
	return n.with(func(c *connection) Check {
		always, known := n.syncAlways(ctx, c.nc)
		switch {
		case known && always:
			return Well("NATS acknowledges what is on the disk (sync_interval: always).")
		case c.nc.ConnectedClusterName() != "":
			return Well("A cluster: what is acknowledged is with most of its servers. Whether each syncs every write, NATS does not tell.")
		case known:
			return Fail("A single server that acknowledges before what it stored is on the disk: a power cut loses accepted pushes.", remedy)
		}
		return Skip("A single server, which tells only its administrators whether it syncs every write. Make sure that sync_interval is always in its jetstream block.")
	})
}

// syncAlways asks nats-server's monitoring, where it has that on its usual port.
func (n *NATS) syncAlways(ctx context.Context, nc *nats.Conn) (always, known bool) {
	host, _, err := net.SplitHostPort(nc.ConnectedAddr())
	if err != nil {
		return false, false
	}
	ctx, cancel := context.WithTimeout(ctx, monitorTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, n.cfg.MonitorPort)+"/jsz", http.NoBody)
	if err != nil {
		return false, false
	}
	answer, err := n.cfg.Client.Do(req)
	if err != nil {
		return false, false
	}
	defer answer.Body.Close()
	var info struct {
		ID     string `json:"server_id"`
		Config *struct {
			SyncAlways bool `json:"sync_always"`
		} `json:"config"`
	}
	if json.NewDecoder(io.LimitReader(answer.Body, 1<<20)).Decode(&info) != nil || info.ID != nc.ConnectedServerId() || info.Config == nil {
		return false, false
	}
	return info.Config.SyncAlways, true
}

// Storage checks that the store can hold what the streams ask, on disk.
func (n *NATS) Storage(ctx context.Context) Check {
	return n.with(func(c *connection) Check {
		if !c.measures() {
			return Skip(notMeasured)
		}
		for _, s := range stream.Shares() {
			st, err := c.js.Stream(ctx, stream.InstallationOf(c.js).Stream(s.Stream))
			if err == nil && st.CachedInfo().Config.Storage != jetstream.FileStorage {
				return Fail(fmt.Sprintf("The stream %s is kept in memory: it is lost when NATS restarts.", st.CachedInfo().Config.Name), "Stop Devpilot, delete the stream with NATS's own tool, and start again: it is made on disk.")
			}
		}
		fit, err := stream.Measure(ctx, c.js)
		if err != nil {
			return Fail(fmt.Sprintf("Whether the streams fit cannot be measured: %v.", err), "Let the user of DEVPILOT_NATS_URL make and delete streams ($JS.API.STREAM.>).")
		}
		sizes := fmt.Sprintf("%d MiB for streams (DEVPILOT_STREAMS_MIB; %d of it are there) and %d MiB for records", (fit.Stored+fit.Missing)>>20, fit.Stored>>20, int64(stream.RecordsBytes)>>20)
		switch {
		case fit.Has() < fit.Needs() && fit.Missing == 0:
			return Warn(fmt.Sprintf("The store is nearly given away: it has %d MiB and %s are asked.", fit.Has()>>20, sizes), "Give NATS a larger store: without room new records are refused.")
		case fit.Has() < fit.Needs():
			return Fail(fmt.Sprintf("JetStream's store is too small: %d MiB are needed, %s, and it has %d MiB.", fit.Needs()>>20, sizes, fit.Has()>>20),
				fmt.Sprintf("Give NATS a larger store, or set DEVPILOT_STREAMS_MIB, the same for every process, to %d or less.", max(fit.Has()-stream.RecordsBytes, 0)>>20))
		case len(fit.Larger) > 0:
			return Warn("Larger than DEVPILOT_STREAMS_MIB asks are: "+strings.Join(fit.Larger, ", ")+". They stay so.", "Give every process the larger number, or make the streams smaller with NATS's own tool.")
		}
		return Well("On disk, with room for %s.", sizes)
	})
}
