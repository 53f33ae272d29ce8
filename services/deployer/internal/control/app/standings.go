package app

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"devpilot.io/bitbucket/services/deployer/internal/record/lane"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

const (
	// standingsAge is how old the count of apps may be: counting reads them all.
	standingsAge = time.Minute
	// standingsTimeout bounds a count.
	standingsTimeout = 10 * time.Second
)

// Standings counts the apps by how their branches stand, and by server, for metrics. It is safe for concurrent use.
type Standings struct {
	s             *Service
	apps, servers *prometheus.Desc

	mu     sync.Mutex
	counts *counts
	at     time.Time
}

type counts struct {
	states  map[deployerv1.Sync_State]int
	servers map[string]int // apps that are deployed on a server, or whose live release it has
}

// NewStandings makes the collector of a service's apps.
func NewStandings(s *Service) *Standings {
	return &Standings{s: s, apps: prometheus.NewDesc("devpilot_deployer_apps",
		"Apps of all workspaces by how the watched branch stands to what is live; counted once a minute.", []string{"sync"}, nil),
		servers: prometheus.NewDesc("devpilot_deployer_server_apps",
			"Apps that are deployed on a server, or whose live release it has; counted once a minute, all replicas tell the same.", []string{"server"}, nil)}
}

// Describe is of prometheus.Collector.
func (c *Standings) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.apps
	ch <- c.servers
}

// Collect is of prometheus.Collector. Where the apps cannot be read it gives nothing rather than old
// numbers.
func (c *Standings) Collect(ch chan<- prometheus.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.s.now(); c.counts == nil || now.Sub(c.at) >= standingsAge {
		ctx, cancel := context.WithTimeout(context.Background(), standingsTimeout)
		defer cancel()
		c.counts, c.at = c.s.standings(ctx), now
	}
	if c.counts == nil {
		return
	}
	for state, n := range c.counts.states {
		ch <- prometheus.MustNewConstMetric(c.apps, prometheus.GaugeValue, float64(n), strings.ToLower(state.String()))
	}
	for server, n := range c.counts.servers {
		ch <- prometheus.MustNewConstMetric(c.servers, prometheus.GaugeValue, float64(n), server)
	}
}

// standings counts from memory; nil where not all of them can be read.
func (s *Service) standings(ctx context.Context) *counts {
	r := &reading{s: s}
	var err error
	if r.apps, err = s.cfg.Copies.Apps.AtLeast(ctx, 0); err != nil {
		return nil
	}
	if r.lanes, err = s.cfg.Copies.Lanes.AtLeast(ctx, 0); err != nil {
		return nil
	}
	keys, err := r.apps.Keys(ctx, "", "", 0)
	if err != nil || !r.apps.FromCopy() || !r.lanes.FromCopy() {
		return nil
	}
	all := &counts{servers: map[string]int{}, states: map[deployerv1.Sync_State]int{
		deployerv1.Sync_IN_SYNC: 0, deployerv1.Sync_BEHIND: 0, deployerv1.Sync_ROLLED_BACK: 0, deployerv1.Sync_UNKNOWN: 0,
		deployerv1.Sync_CHOSEN: 0,
	}}
	for _, name := range s.cfg.Servers.Names() {
		all.servers[name] = 0
	}
	for _, key := range keys {
		workspace, app, _ := strings.Cut(key, ".")
		p, err := s.parts(ctx, r, lane.Key{Workspace: workspace, App: app})
		if err != nil {
			return nil
		}
		if p == nil {
			continue
		}
		connection, err := s.cfg.Connections.Shown(ctx, workspace)
		if err != nil {
			return nil
		}
		st := standing{app: p.app, lane: p.lane, connection: connection, index: p.index}
		st.watched()
		all.states[st.sync().GetState()]++
		for _, server := range serversOf(p) {
			all.servers[server]++
		}
	}
	return all
}

// serversOf are the servers that an app is on: the one that it is deployed on, and the one that has what is live.
func serversOf(p *parts) []string {
	on := []string{p.app.GetServer()}
	if live := p.lane.GetLive(); live != nil && !live.GetLost() && live.GetServer() != on[0] {
		on = append(on, live.GetServer())
	}
	return on
}
