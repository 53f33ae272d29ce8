package fleet

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	deployerv1 "devpilot.io/bitbucket/proto/gen/devpilot/deployer/v1"
)

var (
	workersDesc = prometheus.NewDesc("devpilot_deployer_workers",
		"Workers of a server that gave a sign of life within the last minute; all replicas tell the same.", []string{"server"}, nil)
	slotsDesc = prometheus.NewDesc("devpilot_deployer_worker_slots",
		"Deployments that a server's live workers can run at a time; all replicas tell the same.", []string{"server"}, nil)
	busyDesc = prometheus.NewDesc("devpilot_deployer_worker_slots_busy",
		"Deployments that a server's live workers ran at their last sign of life; all replicas tell the same.", []string{"server"}, nil)
	freeDesc = prometheus.NewDesc("devpilot_deployer_disk_free_bytes",
		"Room on the fullest disk of a server's live workers, of those that hold releases and mirrors; all replicas tell the same.", []string{"server"}, nil)
	reserveDesc = prometheus.NewDesc("devpilot_deployer_disk_reserve_bytes",
		"How much of that room stays free: below it nothing is fetched; all replicas tell the same.", []string{"server"}, nil)
)

// Collector tells metrics of the servers, from memory. It is a prometheus.Collector.
type Collector struct{ registry *Registry }

// NewCollector makes the collector of a registry.
func NewCollector(r *Registry) *Collector { return &Collector{r} }

// Describe implements prometheus.Collector.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{workersDesc, slotsDesc, busyDesc, freeDesc, reserveDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. Before the list is known it says nothing.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	if c.registry.Ready(context.Background()) != nil {
		return
	}
	for _, s := range c.registry.List() {
		gauge := func(d *prometheus.Desc, v float64) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, s.GetId())
		}
		var slots, busy int32
		for _, w := range s.GetWorkers() {
			slots, busy = slots+w.GetSlots(), busy+w.GetBusy()
		}
		gauge(workersDesc, float64(len(s.GetWorkers())))
		gauge(slotsDesc, float64(slots))
		gauge(busyDesc, float64(busy))
		if w := fullest(s.GetWorkers()); w != nil {
			gauge(freeDesc, float64(w.GetDiskFreeMib())*(1<<20))
			gauge(reserveDesc, float64(w.GetDiskReserveMib())*(1<<20))
		}
	}
}

// fullest is the worker with the least room above its reserve; nil where none looks.
func fullest(workers []*deployerv1.Worker) *deployerv1.Worker {
	var least *deployerv1.Worker
	for _, w := range workers {
		if w.DiskFreeMib == nil {
			continue
		}
		if least == nil || w.GetDiskFreeMib()-w.GetDiskReserveMib() < least.GetDiskFreeMib()-least.GetDiskReserveMib() {
			least = w
		}
	}
	return least
}

// Names are the servers that there are.
func (r *Registry) Names() []string {
	var names []string
	for _, s := range r.List() {
		names = append(names, s.GetId())
	}
	return names
}
