package checkup

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"devpilot.io/bitbucket/pkg/stream"
)

// silentPeer is how long the leader of a stream may not have heard of a replica, which says something every second.
const silentPeer = 4 * time.Second

// Replicas checks that there can be, and are, as many replicas as are asked, and that the servers that have them run.
func (n *NATS) Replicas(ctx context.Context) Check {
	return n.with(func(c *connection) Check {
		wish, clustered := stream.SettingsOf(c.js).Replicas, c.nc.ConnectedClusterName() != ""
		switch {
		case !clustered && wish > 1:
			return Fail(fmt.Sprintf("DEVPILOT_NATS_REPLICAS asks for %d replicas and NATS is a single server.", wish), "Run NATS as a cluster, or leave DEVPILOT_NATS_REPLICAS out.")
		case !clustered:
			return Well("One server, one copy of everything.")
		}
		auto := wish == 0
		if auto {
			wish = 3
		}
		held := c.held(ctx, wish)
		if trouble := held.trouble(); trouble.State != OK {
			return trouble
		}
		if c.measures() {
			if err := trial(ctx, c.js, wish, func(context.Context, jetstream.Stream, string) error { return nil }); err != nil {
				found := fmt.Sprintf("The cluster does not hold %d replicas: %v.", wish, err)
				if auto {
					return Warn(found, "Start more of its servers, so that one may be lost.")
				}
				return Fail(found, "Start more of its servers, or leave DEVPILOT_NATS_REPLICAS out.")
			}
		}
		switch {
		case len(held.fewer) > 0:
			return Warn(fmt.Sprintf("Fewer than %d replicas have: %s.", wish, strings.Join(held.fewer, ", ")), "Start the services again: they raise them.")
		case c.measures():
			return Well("The cluster holds %d replicas of a stream.", wish)
		case held.streams == 0:
			return Skip(notMeasured)
		}
		return Well("The cluster holds %d replicas of each of the %d streams that this process uses.", wish, held.streams)
	})
}

// holding is how the streams are held that a user may look at.
type holding struct {
	streams int
	fewer   []string            // that have fewer replicas than are asked
	stopped []string            // that take no writes, and why
	away    map[string][]string // servers that are not heard of, with the streams that they have replicas of
}

func (c *connection) held(ctx context.Context, wish int) holding {
	h := holding{away: map[string][]string{}}
	for _, s := range stream.Shares() {
		name := stream.InstallationOf(c.js).Stream(s.Stream)
		if c.granted != nil && !c.granted.Publish.permits("$JS.API.STREAM.INFO."+name) {
			continue
		}
		st, err := c.js.Stream(ctx, name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			continue // the first start makes it
		}
		if err != nil {
			h.stopped = append(h.stopped, fmt.Sprintf("%s does not answer (%v)", s.Stream, err))
			continue
		}
		h.streams++
		info := st.CachedInfo()
		if err := stream.Majority(info); err != nil {
			h.stopped = append(h.stopped, fmt.Sprintf("%s %v", s.Stream, err))
		}
		if info.Config.Replicas < wish {
			h.fewer = append(h.fewer, fmt.Sprintf("%s (%d)", s.Stream, info.Config.Replicas))
		}
		if info.Cluster == nil {
			continue
		}
		for _, peer := range info.Cluster.Replicas {
			if peer.Offline || peer.Active > silentPeer {
				h.away[peer.Name] = append(h.away[peer.Name], s.Stream)
			}
		}
	}
	return h
}

// trouble is what is wrong with the servers, OK where nothing is.
func (h holding) trouble() Check {
	var servers []string
	for _, name := range slices.Sorted(maps.Keys(h.away)) {
		servers = append(servers, fmt.Sprintf("%s (it has replicas of %s)", name, strings.Join(h.away[name], ", ")))
	}
	away := "Servers of NATS that are not heard of: " + strings.Join(servers, "; ") + "."
	switch {
	case len(h.stopped) > 0 && len(servers) > 0:
		return Fail("Streams that take no writes: "+strings.Join(h.stopped, "; ")+". "+away, "Start these servers, or let the others reach them.")
	case len(h.stopped) > 0:
		return Fail("Streams that take no writes: "+strings.Join(h.stopped, "; ")+".", "Start all servers of NATS, and let them reach each other.")
	case len(servers) > 0:
		return Warn(away+" What is acknowledged is still with most of the servers.", "Start them, or let the others reach them, before another one is lost.")
	}
	return Check{State: OK}
}
