// Package census knows how many deployments wait and run, and since when the oldest does, for metrics. It is
// told of each lane that changes, so that it never walks over apps that have nothing to do.
//
// Depends on the stored records.
package census

import (
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/types/known/timestamppb"

	storev1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/store/v1"
)

var (
	deployments = prometheus.NewDesc("devpilot_deployer_deployments",
		"Deployments that have not ended, by server and state: pending or processing; all replicas tell the same.", []string{"server", "state"}, nil)
	oldestPending = prometheus.NewDesc("devpilot_deployer_oldest_pending_seconds",
		"For how long the deployment that waits for longest has been asked for, 0 where none waits; all replicas tell the same.", nil, nil)
	oldestProcessing = prometheus.NewDesc("devpilot_deployer_oldest_processing_seconds",
		"For how long the attempt that runs for longest has been running, 0 where none runs; all replicas tell the same.", nil, nil)
	undecided = prometheus.NewDesc("devpilot_deployer_undecided_pushes",
		"Pushes that wait for a worker to read the repository and decide; all replicas tell the same.", nil, nil)
	oldestUndecided = prometheus.NewDesc("devpilot_deployer_oldest_undecided_seconds",
		"Since when the oldest of these pushes has been received, 0 where there is none; all replicas tell the same.", nil, nil)
)

// Config is what a Census needs.
type Config struct {
	// Complete tells whether all lanes were told of; before, nothing is said.
	Complete func() bool
	// Servers are those that there are: each is said to have nothing to do where that is so.
	Servers func() []string
	Now     func() time.Time
}

// Census knows what lanes have to do. It is safe for concurrent use.
type Census struct {
	mu     sync.Mutex
	active map[string]work // by the lane's key: those that have something to do
}

// work is what one lane has to do.
type work struct {
	pending, processing, undecided job
	candidates                     int
}

type job struct {
	there  bool
	server string
	since  time.Time // zero where the record does not say
}

// New makes a census that was told of nothing.
func New() *Census { return &Census{active: map[string]work{}} }

// Note takes a lane as it is now; nil where it is gone.
func (c *Census) Note(key string, l *storev1.Lane) {
	var w work
	if !l.GetRetired() {
		w = workOf(l)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if w == (work{}) {
		delete(c.active, key)
		return
	}
	c.active[key] = w
}

func workOf(l *storev1.Lane) work {
	w := work{candidates: len(l.GetCandidates())}
	j := l.GetWaiting()
	if ahead := l.GetAhead(); ahead != nil {
		j = ahead
	}
	if j != nil {
		w.pending = newJob(j.GetServer(), j.GetAskTime())
	}
	if r := l.GetRunning(); r != nil {
		w.processing = newJob(r.GetJob().GetServer(), r.GetStartTime())
	}
	if w.candidates > 0 {
		w.undecided = newJob(l.GetCandidates()[0].GetServer(), l.GetCandidates()[0].GetReceiveTime())
	}
	return w
}

func newJob(server string, since *timestamppb.Timestamp) job {
	j := job{there: true, server: server}
	if since != nil {
		j.since = since.AsTime()
	}
	return j
}

// Collector tells metrics of a census.
type Collector struct {
	census *Census
	cfg    Config
}

// NewCollector makes a prometheus.Collector.
func NewCollector(c *Census, cfg Config) *Collector { return &Collector{census: c, cfg: cfg} }

// Describe implements prometheus.Collector.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{deployments, oldestPending, oldestProcessing, undecided, oldestUndecided} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	if !c.cfg.Complete() {
		return
	}
	pending, processing := map[string]int{}, map[string]int{}
	servers := c.cfg.Servers()
	candidates := 0
	var ages struct{ pending, processing, undecided time.Time }
	c.census.mu.Lock()
	for _, w := range c.census.active {
		count(w.pending, pending, &ages.pending)
		count(w.processing, processing, &ages.processing)
		count(w.undecided, map[string]int{}, &ages.undecided)
		candidates += w.candidates
		for _, s := range []string{w.pending.server, w.processing.server} {
			if s != "" && !slices.Contains(servers, s) {
				servers = append(servers, s)
			}
		}
	}
	c.census.mu.Unlock()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for _, s := range servers {
		gauge(deployments, float64(pending[s]), s, "pending")
		gauge(deployments, float64(processing[s]), s, "processing")
	}
	gauge(oldestPending, c.age(ages.pending))
	gauge(oldestProcessing, c.age(ages.processing))
	gauge(undecided, float64(candidates))
	gauge(oldestUndecided, c.age(ages.undecided))
}

// count adds a job to those of its server, and keeps the oldest time.
func count(j job, to map[string]int, oldest *time.Time) {
	if !j.there {
		return
	}
	to[j.server]++
	if !j.since.IsZero() && (oldest.IsZero() || j.since.Before(*oldest)) {
		*oldest = j.since
	}
}

func (c *Collector) age(since time.Time) float64 {
	if since.IsZero() {
		return 0
	}
	return max(c.cfg.Now().Sub(since).Seconds(), 0)
}
