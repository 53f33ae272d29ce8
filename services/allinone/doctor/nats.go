package doctor

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/bitbucket/hook"
	"devpilot.io/bitbucket/pkg/kv"
	"devpilot.io/bitbucket/pkg/servicemain"
	"devpilot.io/bitbucket/pkg/stream"
)

const (
	natsRemedy = "Start NATS with JetStream, and put DEVPILOT_NATS_URL right: nats://user:password@host:4222."
	// monitorTimeout bounds asking nats-server's monitoring, which most do not have.
	monitorTimeout = 2 * time.Second
	// trialTimeout bounds what is tried at JetStream, which does not answer what it does not allow.
	trialTimeout = 5 * time.Second
)

// connection is one to a NATS that is not ours.
type connection struct {
	nc      *nats.Conn
	js      *kv.Session
	granted *granted // nil where the user may do all, or NATS does not say
}

// connect connects until ctx is done.
func (x *exam) connect(ctx context.Context) (*connection, error) {
	name, err := x.flags.Name()
	if err != nil {
		return nil, err
	}
	options, err := x.flags.NATSOptions()
	if err != nil {
		return nil, err
	}
	nc, js, err := stream.Connect(x.flags.NATSURL.Reveal(), "devpilot-doctor", append(options, name.ConnectOptions("devpilot-doctor", x.flags.Service)...)...)
	if err != nil {
		return nil, servicemain.NATSTrouble(err)
	}
	context.AfterFunc(ctx, nc.Close)
	session := kv.NewSession(js, stream.Settings{Installation: name, Replicas: x.flags.Replicas, Bytes: x.flags.StreamsMiB << 20})
	return &connection{nc, session, grantedTo(ctx, nc)}, nil
}

// withNATS makes a check that needs a NATS that is not ours, and new enough.
func (x *exam) withNATS(ctx context.Context, embedded func(context.Context) Check, check func(context.Context, *connection) Check) Check {
	return x.withAnyNATS(ctx, embedded, func(ctx context.Context, c *connection) Check {
		if !newEnough(c.nc.ConnectedServerVersion(), stream.MinServer) {
			return skipped("NATS is too old.")
		}
		return check(ctx, c)
	})
}

func (x *exam) withAnyNATS(ctx context.Context, embedded func(context.Context) Check, check func(context.Context, *connection) Check) Check {
	switch {
	case x.program.withoutNATS:
		return skipped("%s keeps nothing in NATS.", x.flags.Service)
	case x.flags.NATSURL.IsZero() && x.flags.Service == whole:
		return embedded(ctx)
	case x.flags.NATSURL.IsZero():
		return skipped("DEVPILOT_NATS_URL is not set.")
	}
	c, err := x.nats()
	if err != nil {
		return skipped("NATS does not answer.")
	}
	return check(ctx, c)
}

// checkNATS checks that NATS can be reached and is new enough.
func (x *exam) checkNATS(ctx context.Context) Check {
	if !x.program.withoutNATS && !x.flags.NATSURL.IsZero() {
		if _, err := x.nats(); err != nil {
			return failed("NATS at DEVPILOT_NATS_URL does not answer: "+hook.Cause(err)+".", natsRemedy)
		}
	}
	return x.withAnyNATS(ctx, x.embeddedNATS, func(ctx context.Context, c *connection) Check {
		version := c.nc.ConnectedServerVersion()
		where := fmt.Sprintf("nats-server %s answers at %s", version, c.nc.ConnectedAddr())
		if cluster := c.nc.ConnectedClusterName(); cluster != "" {
			where += ", of the cluster " + cluster
		}
		if !newEnough(version, stream.MinServer) {
			return failed(where+".", "Devpilot needs "+stream.MinServer+" or newer: update NATS.")
		}
		if _, err := c.js.AccountInfo(ctx); err != nil {
			return failed(fmt.Sprintf("%s, but not its JetStream: %v.", where, err), "Switch JetStream on at NATS (jetstream { store_dir: … }) and for this account.")
		}
		return ok("%s.", where)
	})
}

// newEnough compares versions by their numbers; what has none is not.
func newEnough(version, least string) bool {
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

// sync checks that what is acknowledged is on a disk, or on the disks of a majority.
func (x *exam) sync(ctx context.Context) Check {
	const remedy = "Set sync_interval: always in the jetstream block of nats-server's configuration, or run a cluster of three."
	return x.withNATS(ctx, func(context.Context) Check {
		return ok("Embedded: every write is on the disk before it is acknowledged.")
	}, func(ctx context.Context, c *connection) Check {
		always, known := x.syncAlways(ctx, c.nc)
		switch {
		case known && always:
			return ok("NATS acknowledges what is on the disk (sync_interval: always).")
		case c.nc.ConnectedClusterName() != "":
			return ok("A cluster: what is acknowledged is with most of its servers. Whether each syncs every write, NATS does not tell.")
		case known:
			return failed("A single server that acknowledges before what it stored is on the disk: a power cut loses accepted pushes.", remedy)
		}
		return skipped("A single server, which tells only its administrators whether it syncs every write. Make sure that sync_interval is always in its jetstream block.")
	})
}

// syncAlways asks nats-server's monitoring, where it has that on its usual port.
func (x *exam) syncAlways(ctx context.Context, nc *nats.Conn) (always, known bool) {
	host, _, err := net.SplitHostPort(nc.ConnectedAddr())
	if err != nil {
		return false, false
	}
	ctx, cancel := context.WithTimeout(ctx, monitorTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, x.monitorPort)+"/jsz", http.NoBody)
	if err != nil {
		return false, false
	}
	answer, err := x.client.Do(req)
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

// storage checks that the store can hold what the streams ask, on disk.
func (x *exam) storage(ctx context.Context) Check {
	return x.withNATS(ctx, x.embeddedStorage, func(ctx context.Context, c *connection) Check {
		if !c.measures() {
			return skipped(notMeasured)
		}
		for _, s := range stream.Shares() {
			st, err := c.js.Stream(ctx, stream.InstallationOf(c.js).Stream(s.Stream))
			if err == nil && st.CachedInfo().Config.Storage != jetstream.FileStorage {
				return failed(fmt.Sprintf("The stream %s is kept in memory: it is lost when NATS restarts.", st.CachedInfo().Config.Name), "Stop Devpilot, delete the stream with NATS's own tool, and start again: it is made on disk.")
			}
		}
		fit, err := stream.Measure(ctx, c.js)
		if err != nil {
			return failed(fmt.Sprintf("Whether the streams fit cannot be measured: %v.", err), "Let the user of DEVPILOT_NATS_URL make and delete streams ($JS.API.STREAM.>).")
		}
		sizes := fmt.Sprintf("%d MiB for streams (DEVPILOT_STREAMS_MIB; %d of it are there) and %d MiB for records", (fit.Stored+fit.Missing)>>20, fit.Stored>>20, int64(stream.RecordsBytes)>>20)
		switch {
		case fit.Has() < fit.Needs() && fit.Missing == 0:
			return warning(fmt.Sprintf("The store is nearly given away: it has %d MiB and %s are asked.", fit.Has()>>20, sizes), "Give NATS a larger store: without room new records are refused.")
		case fit.Has() < fit.Needs():
			return failed(fmt.Sprintf("JetStream's store is too small: %d MiB are needed, %s, and it has %d MiB.", fit.Needs()>>20, sizes, fit.Has()>>20),
				fmt.Sprintf("Give NATS a larger store, or set DEVPILOT_STREAMS_MIB, the same for every process, to %d or less.", max(fit.Has()-stream.RecordsBytes, 0)>>20))
		case len(fit.Larger) > 0:
			return warning("Larger than DEVPILOT_STREAMS_MIB asks are: "+strings.Join(fit.Larger, ", ")+". They stay so.", "Give every process the larger number, or make the streams smaller with NATS's own tool.")
		}
		return ok("On disk, with room for %s.", sizes)
	})
}

// replicas checks that there can be, and are, as many replicas as are asked.
func (x *exam) replicas(ctx context.Context) Check {
	return x.withNATS(ctx, func(context.Context) Check { return ok("Embedded: one server, one copy of everything.") }, func(ctx context.Context, c *connection) Check {
		wish, clustered := x.flags.Replicas, c.nc.ConnectedClusterName() != ""
		if !clustered && wish > 1 {
			return failed(fmt.Sprintf("DEVPILOT_NATS_REPLICAS asks for %d replicas and NATS is a single server.", wish), "Run NATS as a cluster, or leave DEVPILOT_NATS_REPLICAS out.")
		}
		if !clustered {
			return ok("One server, one copy of everything.")
		}
		if !c.measures() {
			return skipped(notMeasured)
		}
		auto := wish == 0
		if auto {
			wish = 3
		}
		if err := trial(ctx, c.js, wish, func(context.Context, jetstream.Stream, string) error { return nil }); err != nil {
			found := fmt.Sprintf("The cluster does not hold %d replicas: %v.", wish, err)
			if auto {
				return warning(found, "Start more of its servers, so that one may be lost.")
			}
			return failed(found, "Start more of its servers, or leave DEVPILOT_NATS_REPLICAS out.")
		}
		var fewer []string
		for _, s := range stream.Shares() {
			st, err := c.js.Stream(ctx, stream.InstallationOf(c.js).Stream(s.Stream))
			if err == nil && st.CachedInfo().Config.Replicas < wish {
				fewer = append(fewer, fmt.Sprintf("%s (%d)", s.Stream, st.CachedInfo().Config.Replicas))
			}
		}
		if len(fewer) > 0 {
			return warning(fmt.Sprintf("Fewer than %d replicas have: %s.", wish, strings.Join(fewer, ", ")), "Start the services again: they raise them.")
		}
		return ok("The cluster holds %d replicas of a stream.", wish)
	})
}

// tryPermissions does, on a stream that is deleted again, what the services do with theirs.
func tryPermissions(ctx context.Context, c *connection) Check {
	err := trial(ctx, c.js, 1, func(ctx context.Context, s jetstream.Stream, subject string) error {
		if _, err := c.js.Publish(ctx, subject, []byte("doctor")); err != nil {
			return fmt.Errorf("publish to %s: %w", subject, err)
		}
		if _, err := s.GetLastMsgForSubject(ctx, subject); err != nil {
			return fmt.Errorf("read a message: %w", err)
		}
		consumer, err := s.CreateConsumer(ctx, jetstream.ConsumerConfig{AckPolicy: jetstream.AckExplicitPolicy, MemoryStorage: true})
		if err != nil {
			return fmt.Errorf("make a consumer: %w", err)
		}
		m, err := consumer.Next(jetstream.FetchMaxWait(monitorTimeout))
		if err != nil {
			return fmt.Errorf("take a message from a consumer: %w", err)
		}
		if err := m.DoubleAck(ctx); err != nil {
			return fmt.Errorf("acknowledge a message: %w", err)
		}
		return nil
	})
	if err != nil {
		if said := c.nc.LastError(); said != nil { // NATS answers nothing to what it does not allow, and says so beside
			err = fmt.Errorf("%w (NATS says: %w)", err, said)
		}
		return failed(fmt.Sprintf("JetStream does not let us work: %v.", err), permissionsRemedy)
	}
	return ok("A stream was made, written, read and deleted again.")
}

// trial makes a stream in NATS's memory, works with it, and deletes it.
func trial(ctx context.Context, js *kv.Session, replicas int, work func(ctx context.Context, s jetstream.Stream, subject string) error) (err error) {
	ctx, cancel := context.WithTimeout(ctx, trialTimeout)
	defer cancel()
	names, id := stream.InstallationOf(js), rand.Text()
	cfg := jetstream.StreamConfig{
		Name: names.Stream("DOCTOR_" + id), Subjects: []string{names.Subject("devpilot.doctor.v1." + id)}, Description: "made by devpilot doctor, and deleted at once",
		Storage: jetstream.MemoryStorage, Replicas: replicas,
	}
	s, err := js.CreateStream(ctx, cfg)
	if err != nil {
		return fmt.Errorf("make a stream: %w", err)
	}
	defer func() {
		after, cancel := context.WithTimeout(context.WithoutCancel(ctx), monitorTimeout)
		defer cancel()
		if gone := js.DeleteStream(after, cfg.Name); gone != nil {
			err = errors.Join(err, fmt.Errorf("delete the stream %s: %w", cfg.Name, gone))
		}
	}()
	return work(ctx, s, cfg.Subjects[0])
}
