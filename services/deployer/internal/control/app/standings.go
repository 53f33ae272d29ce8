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

// Standings counts the apps by how their branches stand, for metrics. It is safe for concurrent use.
type Standings struct {
	s    *Service
	desc *prometheus.Desc

	mu     sync.Mutex
	counts map[deployerv1.Sync_State]int
	at     time.Time
}

// NewStandings makes the collector of a service's apps.
func NewStandings(s *Service) *Standings {
	return &Standings{s: s, desc: prometheus.NewDesc("devpilot_deployer_apps",
		"Apps of all workspaces by how the watched branch stands to what is live; counted once a minute.", []string{"sync"}, nil)}
}

// Describe is of prometheus.Collector.
func (c *Standings) Describe(ch chan<- *prometheus.Desc) { ch <- c.desc }

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
	for state, n := range c.counts {
		ch <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, float64(n), strings.ToLower(state.String()))
	}
}

// standings counts from memory; nil where not all of them can be read.
func (s *Service) standings(ctx context.Context) map[deployerv1.Sync_State]int {
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
	counts := map[deployerv1.Sync_State]int{
		deployerv1.Sync_IN_SYNC: 0, deployerv1.Sync_BEHIND: 0, deployerv1.Sync_ROLLED_BACK: 0, deployerv1.Sync_UNKNOWN: 0,
		deployerv1.Sync_CHOSEN: 0,
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
		counts[st.sync().GetState()]++
	}
	return counts
}
